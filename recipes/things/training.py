"""Training the model of things: the detector, the tokens, the text encoder; and what the denoiser is trained on.

The detector (`imagebart.worlds.things`) measures the model, which ships with it as its scorer. It is trained on scenes
only, never on what a model drew.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from imagebart.imaging.crop import Box
from imagebart.imaging.files import normalize
from imagebart.model import ImageBART
from imagebart.models.transformer import TextEncoder
from imagebart.models.vqgan import FirstStage, FirstStageConfig, psnr
from imagebart.text.conditioners import Conditioner, TextConditioner
from imagebart.text.prompts import PromptRules
from imagebart.training.config import DenoiserRun, FirstStageRun, LoopConfig, TokensRun
from imagebart.training.denoiser import train_denoiser
from imagebart.training.loop import Batch, train
from imagebart.training.patch_memory import fit_patch_memory, k_means, principal_directions
from imagebart.training.vqgan import train_first_stage
from imagebart.worlds.ranking import DETECTOR
from imagebart.worlds.things import SIDE, ThingDetector, ThingNames, save_detector
from recipes import generator
from recipes.things import scenes
from recipes.things.artwork import CELL, GRID, GROUNDS, HUES, NOUNS, Placed, render
from recipes.training import CaptionsRun, LossTask, Series, Trainings, pixels_first, train_text_encoder

NOTHING = len(NOUNS)  # the label of a square without a whole thing
COLORS = ("", *HUES)  # "": the artwork's, of nouns that have one color
GROUPS = sorted({group for noun in NOUNS for group in noun.groups})
NAMES = ThingNames(
    nouns=tuple((noun.name, noun.plural, *noun.synonyms) for noun in NOUNS),
    noun_colors=tuple(noun.color for noun in NOUNS), colors=COLORS, grounds=GROUNDS,
    sides=scenes.SIDES, counts=scenes.COUNT_WORDS,
    own_colors={noun.name: noun.own_color for noun in NOUNS if noun.own_color},
    groups={group: tuple(number for number, noun in enumerate(NOUNS) if group in noun.groups) for group in GROUPS},
)  # fmt: skip
DETECTOR_LOOP = LoopConfig(steps=900, batch_size=64, optimizer="muon", lr=2e-3, warmup=50, ema=0.99, log_every=20)
P_NOTHING = 0.4  # share of squares without a whole thing
MIN_SEEN = 0.4  # intersection over union of a square and a thing's box, from which the square may be said to show it
BEYOND = 24
DETECTOR_SEED = 8101  # of its scenes; no other part of the recipe draws from it


def crop(image: np.ndarray, top: float, left: float, side: float) -> np.ndarray:
    """A square of an image, in pixels, at most BEYOND of them outside of it: uint8 [SIDE, SIDE, 3]."""
    padded = np.pad(image, ((BEYOND, BEYOND), (BEYOND, BEYOND), (0, 0)), "edge")
    box = (left + BEYOND, top + BEYOND, left + side + BEYOND, top + side + BEYOND)
    return np.array(Image.fromarray(padded).resize((SIDE, SIDE), Image.Resampling.BICUBIC, box))


def square_item(number: int, seed: int = DETECTOR_SEED) -> dict[str, Any]:
    """A square of the scene of a number: image, uint8 [3, SIDE, SIDE]; noun and color."""
    random, scene = generator(number, seed, 4), scenes.sample(number, seed, scenes.SceneOptions(6, (35, 35, 20, 10)))
    image = render(scene)
    if scene.things and random.random() > P_NOTHING:
        thing = scene.things[int(random.integers(len(scene.things)))]
        pixels = thing.side * CELL * random.uniform(0.92, 1.12)
        spare = thing.side * CELL - pixels
        y, x = (start * CELL + spare * random.uniform(0, 1) for start in (thing.top, thing.left))
        square, noun = crop(image, y, x, pixels), thing.noun
        color = COLORS.index(thing.color or NOUNS[noun].color)
    else:
        box = empty_box(scene.things, random)
        square = crop(image, box.top * CELL, box.left * CELL, box.side * CELL)
        noun, color = NOTHING, 0
    return {"image": pixels_first(square), "noun": noun, "color": color}


def empty_box(things: tuple[Placed, ...], random: np.random.Generator) -> Box:
    """A box that holds no whole thing, or one that is much smaller: ground, parts of things, several of them."""
    boxes = [thing.box for thing in things]
    while True:
        side = int(random.choice(scenes.SIDES))
        if boxes and random.random() < 0.5:  # near a thing, where a detector errs
            near = boxes[int(random.integers(len(boxes)))]
            top, left = (
                min(max(start + int(random.integers(-side, near.side + 1)), 0), GRID - side)
                for start in (near.top, near.left)
            )
        else:
            top, left = (int(random.integers(GRID - side + 1)) for _ in range(2))
        box = Box(left, top, side)
        if all(iou(box, other) < MIN_SEEN for other in boxes):
            return box


def iou(one: Box, other: Box) -> float:
    """Intersection over union of two boxes."""
    both = one.overlap(other)
    return both / (one.side**2 + other.side**2 - both)


def detector_losses(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Cross-entropy of noun and color."""
    nouns, colors = model(augmented(normalize(batch["image"])))
    thing = batch["noun"] != NOTHING
    loss = F.cross_entropy(nouns, batch["noun"]) + 0.5 * F.cross_entropy(colors[thing], batch["color"][thing])
    right = (nouns.argmax(1) == batch["noun"]).float().mean()
    return {"loss": loss, "right": right, "colors": (colors.argmax(1) == batch["color"])[thing].float().mean()}


def augmented(squares: Tensor) -> Tensor:
    """Squares as a model may draw them, each half of them: blurred, shifted in color, stretched, noisy."""
    half = torch.rand(4, len(squares), 1, 1, 1) < 0.5
    size = int(torch.randint(SIDE // 3, SIDE, ()))
    small = F.interpolate(squares, (size, size), mode="area")
    blurred = F.interpolate(small, squares.shape[2:], mode="bilinear", align_corners=False)
    squares = torch.where(half[0], blurred, squares)
    shift = (torch.rand(len(squares), 3, 1, 1) - 0.5) * 0.12
    squares = torch.where(half[1], squares + shift, squares)
    squares = torch.where(half[2], squares * (0.9 + 0.2 * torch.rand(len(squares), 1, 1, 1)), squares)
    return torch.where(half[3], squares + 0.05 * torch.randn_like(squares), squares)


def train_detector(folder: Path, loop: LoopConfig = DETECTOR_LOOP) -> ThingDetector:
    """Trains (or resumes) a detector in a run's folder and writes it there as `detector.safetensors`."""
    torch.manual_seed(loop.seed)
    trained = train(
        LossTask(ThingDetector(len(NOUNS), len(COLORS)), Series(square_item), detector_losses), loop, folder
    )
    assert isinstance(trained, ThingDetector)
    save_detector(trained, NAMES, folder / DETECTOR)
    return trained


# The tokens: a codebook found by k-means, an encoder of single patches that maps to it, and a decoder that begins with
# what patches look like. Patches of scenes, averaged over squares of 2 x 2 pixels, are mapped to their first principal
# components; the encoder learns this map, and the codes are the k-means of what it gives. That takes minutes, where a
# codebook that learns together with a decoder takes hours. The decoder's memory of patches is found by least squares;
# its convolutions, which add nothing yet, are trained afterwards (`train_decoder`).

SCENES = 3000
STEPS, BATCH = 3000, 1024  # of the encoder
ROUNDS = 25  # of k-means
MEMORY_SCENES = 20_000  # that the decoder's memory is found from
FRESH = 160  # scenes that it is measured on
CONFIG = FirstStageConfig(
    channels=96, multipliers=(1,), res_blocks=1, attention_resolutions=(), latent_channels=192, code_dim=32,
    codebook_size=4096, pixel_unshuffle=CELL, encoder="patch", pair_rows=68_000, pair_dim=96, pair_bytes=24,
)  # fmt: skip


def patches(seed: int, count: int) -> Tensor:
    """Patches of scenes, uint8 [count * 256, 3, CELL, CELL]."""
    images = (scenes.image_of(scenes.crowded(i, seed)) for i in tqdm(range(count), unit="scene"))
    return torch.cat([rearrange(i, "c (h y) (w x) -> (h w) c y x", y=CELL, x=CELL) for i in images])


def averaged(part: Tensor) -> Tensor:
    """Patches as the mean colors of squares of 2 x 2 pixels, float [M, 3 * 64] in [-1, 1]."""
    return F.avg_pool2d(normalize(part), 2).flatten(1)


def train_encoder(model: FirstStage, data: Tensor) -> None:
    """Teaches the patch encoder the map to principal components."""
    mean, directions = principal_directions(averaged(data[torch.randperm(len(data))[:200_000]]), model.config.code_dim)
    layers = [*model.encoder.parameters(), *model.quant_conv.parameters()]
    optimizer = torch.optim.AdamW(layers, 2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, STEPS, pct_start=0.05)
    for _ in tqdm(range(STEPS), unit="step"):
        batch = data[torch.randint(len(data), (BATCH,))]
        error = model.latents(normalize(batch))[:, 0, 0] - (averaged(batch) - mean) @ directions
        loss = error.square().sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def latents_of(model: FirstStage, data: Tensor) -> Tensor:
    return torch.cat([model.latents(normalize(part))[:, 0, 0] for part in data.split(4096)])


def train_tokens(folder: Path) -> None:
    """Makes the tokens and the decoder's memory, and writes them to a run's folder."""
    torch.manual_seed(0)
    data = patches(0, SCENES)
    model = FirstStage(CONFIG)
    train_encoder(model, data)
    model.requires_grad_(False)
    model.quantize.embedding.weight.copy_(k_means(latents_of(model, data), CONFIG.codebook_size, ROUNDS))
    images = (scenes.image_of(scenes.of_every_size(i, 2)) for i in tqdm(range(MEMORY_SCENES), unit="scene"))
    fit_patch_memory(model, images)
    shown = normalize(torch.stack([scenes.image_of(scenes.of_every_size(i, 3)) for i in range(FRESH)]))
    decoded = torch.cat([model.decode(model.encode(part)) for part in shown.split(16)])
    print(f"{FRESH} new scenes: PSNR {psnr(shown[None], decoded[None]).item():.2f} dB")
    ImageBART(model).save_pretrained(folder)


# The text encoder, from captions alone. What a caption says is known: each query token learns to say one mention of it,
# the next ones where two things lie and what the ground is. So the denoiser finds a few vectors that name things, in
# place of words.

MENTIONS = 6  # query tokens of things; then one of their places, one of the wall, one of the floor
MISSPELLINGS = {  # of short words, by what is meant
    "red": "rde redd erd", "blue": "blu bue lue bleu", "green": "grn gren reen", "pink": "pnk pik", "black": "blk",
    "white": "wht", "brown": "brn rown", "grey": "gry gray", "yellow": "ylw", "purple": "prpl", "orange": "orng",
    "hat": "hta",
}  # fmt: skip
SILENT = 0.03  # share of empty captions


def conditioner(length: int = 48) -> TextConditioner:
    """Knows the words that captions have."""
    nouns = [name for noun in NOUNS for name in (noun.name, noun.plural, *noun.synonyms)]
    places = [text for texts in scenes.PLACES.values() for text in texts]
    others = ["a an and on the one ground background wall floor , ."]
    captions = [*nouns, *places, *HUES, *GROUNDS, *scenes.COUNT_WORDS, *others]
    misspellings = {typed: meant for meant, words in MISSPELLINGS.items() for typed in words.split()}
    rules = PromptRules(misspellings=misspellings)
    return TextConditioner.from_captions(captions, length, rules, NAMES.understood)


def caption(index: int, seed: int = 0) -> scenes.Caption:
    """What is said of the scene of a number: of one to three things, as edits are asked for, or of all of it."""
    random = generator(index, seed, 2)
    scene = scenes.sample(index, seed)
    if random.random() < SILENT:
        return scenes.Caption("")
    if random.random() < 0.5 and scene.things:
        return scenes.describe_things(scene.things[: int(random.integers(1, 4))], random)
    return scenes.describe(scene, random)


WALLS = ("", *GROUNDS)
NOUN_COUNT, COLOR_COUNT, MANY = len(NOUNS) + 1, len(COLORS), len(scenes.COUNT_WORDS)


def labels(said: scenes.Caption) -> Tensor:
    """What a caption says, as indices: int64 [3 * MENTIONS + 3]; the last of nouns, and 0 of the rest, is "none"."""
    mentions = [(m.noun, COLORS.index(m.color), m.count) for m in said.mentions[:MENTIONS]]
    mentions += [(len(NOUNS), 0, 0)] * (MENTIONS - len(mentions))
    place = 1 + list(scenes.PLACES).index(said.place) if said.place else 0
    grounds = [WALLS.index(name) for name in said.ground] if said.ground else [0, 0]
    return torch.tensor([*(value for mention in mentions for value in mention), place, *grounds])


class CaptionReader(nn.Module):
    """A text encoder with linear heads: words [B, length] -> logits of each of `labels`."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        width = encoder.config.transformer.width
        self.mention = nn.Linear(width, NOUN_COUNT + COLOR_COUNT + MANY)  # the same for all: a noun has one vector
        self.place = nn.Linear(width, 1 + len(scenes.PLACES))
        self.wall, self.floor = nn.Linear(width, len(WALLS)), nn.Linear(width, len(WALLS))

    def forward(self, words: Tensor) -> list[Tensor]:
        queries = self.encoder(words)
        found: list[Tensor] = []
        for query in queries[:, :MENTIONS].unbind(1):
            found += self.mention(query).split([NOUN_COUNT, COLOR_COUNT, MANY], 1)
        heads = (self.place, self.wall, self.floor)
        return found + [head(query) for head, query in zip(heads, queries[:, MENTIONS:].unbind(1), strict=True)]


def caption_item(number: int) -> dict[str, Any]:
    """The caption of a number: text; labels, see `labels`."""
    said = caption(number)
    return {"text": said.text, "labels": labels(said)}


def caption_losses(answers: list[Tensor], truth: Tensor) -> dict[str, Tensor]:
    """Cross-entropy of what captions say."""
    losses = [F.cross_entropy(logits, label) for logits, label in zip(answers, truth.unbind(1), strict=True)]
    right = torch.stack([logits.argmax(1) for logits in answers], 1) == truth
    return {"loss": torch.stack(losses).mean(), "right": right.float().mean(), "whole": right.all(1).float().mean()}


def train_captions(run: CaptionsRun, folder: Path) -> None:
    """Trains (or resumes) a text encoder in a run's folder and writes it there."""
    words = conditioner(run.text_length)
    train_text_encoder(run, folder, words, CaptionReader, Series(caption_item), caption_losses)


def thing_data(run: TokensRun, size: int) -> tuple[Dataset[Any], Conditioner]:
    """What a denoiser is trained on: tasks on scenes, and the conditioner for their captions."""
    return Series(scenes.edit_item), conditioner(run.text_length)


def train_decoder(run: FirstStageRun, folder: Path) -> None:
    """Trains (or resumes) the decoder's convolutions."""
    train_first_stage(run, folder, Series(lambda number: {"image": scenes.image_of(scenes.of_every_size(number))}))


TRAININGS: Trainings = {
    "tokens": (None, train_tokens),  # the codes by k-means, the encoder of patches, and the decoder's memory
    "captions": (CaptionsRun, train_captions),  # the text encoder
    "decoder": (FirstStageRun, train_decoder),  # its convolutions
    "denoiser": (DenoiserRun, partial(train_denoiser, data=thing_data)),
    "detector": (None, train_detector),  # which things squares of images show: it measures, and ships as the scorer
}
