"""Training the denoiser: x_0 from x_t at any noise rates, around any kept region (see `imagebart.models.denoiser`)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor, nn

from imagebart.atomic_io import write_bytes, write_text
from imagebart.conditioning import ClassConditioner, Conditioner, NoConditioner, TextConditioner
from imagebart.conditioning.tokenizer import CONTEXT_LENGTH, pieces
from imagebart.diffusion import add_uniform_noise
from imagebart.imaging.files import normalize
from imagebart.imaging.masks import preset_array
from imagebart.inpainting import encode_color_hints, fill_nearest, mask_coverage
from imagebart.models.denoiser import Denoiser, DenoiserConfig, DenoiserInput, check_color_hint_grid
from imagebart.models.imagebart import ImageBART
from imagebart.models.text_encoder import TextEncoderConfig
from imagebart.models.vqgan import FirstStage, FirstStageConfig
from imagebart.settings import SamplingSettings
from imagebart.training.codebook_embedding import add_codebook_embedding, merge_codebook_embedding
from imagebart.training.config import DenoiserRun, StageShape
from imagebart.training.data import AugmentedViews, ImageStore, grid
from imagebart.training.loop import Batch, train
from imagebart.training.masks import Step, painted_masks, random_masks
from imagebart.training.token_task import FOLDERS, DataSource, TokensTask, TokenTaskInputs, before_pictures, text_config
from imagebart.training.validation import Metrics
from imagebart.weights.folder import Part, load_part, save_part

LOUD = 2.0  # a colour that a cell shares with others, over the embedding of one that it has for itself


class DenoiserTask(TokensTask[DenoiserRun]):
    """Pictures and captions to tokens; a region of them to noise; the network says what they were."""

    def loss(self, model: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, Tensor]:
        x0 = self.tokens(batch)
        noise_level, left, color_hints = self.masked(batch, x0)
        step = Step.random(len(x0)).to(x0.device)
        noise_t, noise_s = torch.minimum(noise_level, step.noise_t), torch.minimum(noise_level, step.noise_s)
        unknown = noise_level > step.noise_s
        observed = (noise_level <= step.noise_t) & (noise_level < 1)
        x_s = torch.where(unknown, add_uniform_noise(x0, step.noise_s * unknown, self.vocab_size), left)
        x_t = torch.where(observed, left, add_uniform_noise(x_s, step.beta * unknown, self.vocab_size))
        cond, prompt_embeds = self.condition(accelerator.unwrap_model(model), batch["text"], x0.device)
        fed = add_uniform_noise(x_s, self.scrambled(step) * unknown, self.vocab_size)
        given = DenoiserInput(x_t, noise_t, noise_s, cond, color_hints, prompt_embeds)
        logits, drafts = model(fed, given, unknown)
        target = x0[unknown]
        loss, draft_loss = (F.cross_entropy(part.float(), target) for part in (logits, drafts))
        right = (logits.argmax(-1) == target).float().mean()
        return {"loss": loss + self.run.drafts * draft_loss, "tokens": loss, "drafts": draft_loss, "accuracy": right}

    def scrambled(self, step: Step) -> Tensor:
        """The share of tokens, row by row [B, 1], that are fed as noise though they are said to be right.

        Once a mouth has begun, the rest of it follows from its first token: a caption's word for it is needed once in
        256 tokens. Where the tokens before cannot be trusted, it is needed at each.
        """
        some = (torch.rand_like(step.noise_t) < self.run.decoder_corruption) & (step.noise_s == 0)
        return torch.rand_like(step.noise_t) * some

    def tokens(self, batch: Batch) -> Tensor:
        """The tokens of a batch, int64 [B, N]."""
        return self.encode(batch["image"])

    def masked(self, batch: Batch, x0: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Of each token the share of its cell that a mask paints, float [B, N]; what it leaves of it, int64 [B, N]; and
        a glance at that, bool [B, N, K], if the denoiser takes one. Some pictures are not looked at.
        """
        images, tokens = batch["image"], x0.shape[1]
        pixels = normalize(images)
        painted = painted_masks(pixels.cpu(), math.isqrt(tokens))
        enlarged = F.interpolate(painted[:, None].float(), images.shape[2:])[:, 0].bool()
        noise_level = mask_coverage(painted, tokens).to(x0.device)
        left = self.encode(fill_nearest(images.cpu(), enlarged).to(images.device))
        color_hints = None
        if self.run.color_hint_grid:
            painted = enlarged.to(images.device)
            color_hints = encode_color_hints(self.first_stage, pixels, painted, self.run.color_hint_grid)
            shown = torch.rand(len(color_hints), 1, 1, device=color_hints.device) >= self.run.color_hint_dropout
            color_hints = color_hints & shown
        return noise_level, torch.where(noise_level > 0, left, x0), color_hints

    def condition(self, model: Any, texts: list[str], device: torch.device) -> tuple[Tensor | None, Tensor | None]:
        """Conditioning tokens and what is read in them; whole captions and single slots are left out for a share.

        Guidance compares with no caption; a pair of values that never occurs together is met by each of them alone.
        """
        cond = self.told(texts, device)
        if cond is None or model.config.text is None:
            return cond, None
        prompt_embeds = model.encode_prompt(cond)
        nothing = model.encode_prompt(self.conditioner.unconditional(1).to(device))
        share = torch.rand(len(texts), 1) * (torch.rand(len(texts), 1) < self.run.query_token_dropout)
        dropped = (torch.rand(prompt_embeds.shape[:2]) < share).to(device)
        return cond, torch.where(dropped[..., None], nothing, prompt_embeds)

    @torch.no_grad()
    def sample(self, model: nn.Module) -> Image.Image:
        """Pictures, what is left of them at a rate of a half, and each token's likeliest value given those before."""
        assert isinstance(model, Denoiser)
        x0, cond = self.last(model.device)
        noise_t = torch.full(x0.shape, 0.5, device=x0.device)
        x_t = add_uniform_noise(x0, noise_t, self.vocab_size, torch.Generator(x0.device).manual_seed(0))
        guess = model.logits(x0, DenoiserInput(x_t, noise_t, torch.zeros_like(noise_t), cond)).argmax(-1)
        return grid(self.first_stage.decode(torch.cat([x0, x_t, guess])), columns=len(x0))


def denoiser_config(
    shape: StageShape, first_stage: FirstStageConfig, conditioner: Conditioner, text: TextEncoderConfig | None
) -> DenoiserConfig:
    """Shapes; text: what reads prompts, None for other conditioning tokens."""
    prefix, others = before_pictures(conditioner, text)
    codes, tokens = first_stage.vocab_size, first_stage.tokens
    vocabulary, positions = codes + others + 1, 1 + prefix + tokens
    decoder = shape.decoder(vocabulary, positions, codes, cross=True)
    return DenoiserConfig(codes, tokens, decoder, shape.encoder(vocabulary, positions), conditioner.length, text)


@torch.no_grad()
def begin_to_glance(denoiser: Denoiser) -> None:
    """Has a colour told as what the encoder knows already: a cell that is all of it, and louder."""
    table = denoiser.encoder.token_embedding.weight[: denoiser.config.vocab_size]
    denoiser.glance.weight.copy_(LOUD * table.T)


def train_denoiser(run: DenoiserRun, folder: Path, source: DataSource = FOLDERS) -> Denoiser:
    """Trains (or goes on training) a denoiser in a run's folder and writes it there."""
    given = TokenTaskInputs.of(run, source)
    check_color_hint_grid(run.color_hint_grid, given.first_stage.config)
    config = denoiser_config(run.shape, given.first_stage.config, given.conditioner, given.text)
    denoiser = Denoiser(replace(config, partial_patches=True, color_hint_grid=run.color_hint_grid))
    if run.init_from is not None:
        begun = load_part(Path(run.init_from), Denoiser).module
        if given.reader is not None:
            begun.set_text_encoder(given.reader)  # it may know other words
        begins = run.color_hint_grid > 0 and not begun.config.color_hint_grid
        new = {"glance.weight": denoiser.glance.weight} if begins else {}
        denoiser.load_state_dict({**begun.state_dict(), **new})
        if begins:
            begin_to_glance(denoiser)
    given.take_reader(denoiser)
    embeddings = (denoiser.encoder.token_embedding, denoiser.decoder.token_embedding)
    add_codebook_embedding(embeddings, given.first_stage.quantize.codes().detach())
    task = DenoiserTask(denoiser, given.conditioner, given.first_stage, given.dataset, run)
    trained = train(task, run.loop, folder)
    assert isinstance(trained, Denoiser)
    merge_codebook_embedding(trained)
    save_part(Part(trained, given.conditioner), folder)
    return trained


# Tokens of all pictures of a store, made once: shards of safetensors, several views of each picture.


INDEX = "tokens.json"
SHARD = 4096  # pictures a file; views of one picture lie in one file
BATCH = 32


@torch.no_grad()
def encode_store(
    store: ImageStore, first_stage: FirstStage, views: int, folder: Path, done: Callable[[int], object]
) -> None:
    """Writes the tokens of each picture in so many views, whole files that a killed run need not make again.

    done: told how many pictures are encoded.
    """
    count = len(store.index.names)
    device = next(first_stage.parameters()).device
    for start in range(0, count, SHARD):
        path, numbers = folder / _shard(start), range(start, min(start + SHARD, count))
        if not path.is_file():
            parts = []
            for view in range(views):
                rows = AugmentedViews(store, numbers, views)
                items = range(view * len(numbers), (view + 1) * len(numbers))
                for at in range(0, len(numbers), BATCH):
                    images = torch.stack([rows[i]["image"] for i in items[at : at + BATCH]]).to(device)
                    parts.append(first_stage.encode(normalize(images)).cpu().to(torch.int32))
                    done(len(images))
            tokens = torch.cat(parts).unflatten(0, (views, len(numbers))).transpose(0, 1).contiguous()
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes(path, save({"tokens": tokens}))
    write_text(folder / INDEX, json.dumps({"pictures": count, "views": views}))


def _shard(start: int) -> str:
    return f"tokens-{start // SHARD:05d}.safetensors"


def has_tokens(folder: Path) -> bool:
    """Whether all tokens are there."""
    return (folder / INDEX).is_file()


class TokenDataset(AugmentedViews):
    """Some pictures of a store, in all their views, with their tokens, int64 [N], beside image and text."""

    def __init__(self, folder: Path, store: ImageStore, numbers: Sequence[int]) -> None:
        if not has_tokens(folder):
            raise ValueError(f"{folder} holds no tokens that are ready to train on ({INDEX} is missing)")
        shards = sorted(folder.glob("tokens-*.safetensors"))
        self.all = torch.cat([load_file(shard)["tokens"] for shard in shards])  # [pictures, views, N]
        super().__init__(store, numbers, self.all.shape[1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        view, place = divmod(index, len(self.numbers))
        return {**super().__getitem__(index), "tokens": self.all[self.numbers[place], view].long()}

    def middles(self, count: int) -> tuple[Tensor, list[str]]:
        """The first pictures as they are, neither moved nor mirrored: tokens [B, N] and what is said of them."""
        return self.all[self.numbers[:count], 0].long(), self.texts[:count]


# Training the denoiser on tokens alone, and how it does on pictures that were held back.


SHOWN, HELD = 6, 64  # pictures in a grid; pictures that a figure is of
LEAST_LENGTH = 16  # conditioning tokens a caption
DRAWN = SamplingSettings(top_p=0.95, guidance=2.0, scales=2)


def conditioner_of(kind: str, texts: list[str]) -> Conditioner:
    """What captions ("text") or classes ("class") need: their words, or their names; else nothing."""
    said = [text for text in texts if text]
    if kind == "class" and said:
        return ClassConditioner(tuple(sorted(set(said))), null_class=True)
    if kind == "text" and said:
        longest = max(sum(len(piece.ids) for piece in pieces(text)) for text in set(said))
        return TextConditioner.from_captions(sorted(set(said)), min(max(longest, LEAST_LENGTH), CONTEXT_LENGTH))
    return NoConditioner()


def new_denoiser(first_stage: FirstStage, shape: StageShape, conditioner: Conditioner) -> Denoiser:
    """A denoiser of this shape for the tokens of a first stage; where that sees cells one by one, for cut ones, too."""
    text = text_config(shape, conditioner) if conditioner.kind == "text" else None
    config = denoiser_config(shape, first_stage.config, conditioner, text)
    return Denoiser(replace(config, partial_patches=first_stage.config.encoder == "patch"))


class TokenDatasetTask(DenoiserTask):
    """The denoiser on tokens that were made before; only what masks leave of cells that they cut is encoded anew."""

    def __init__(
        self,
        denoiser: Denoiser,
        conditioner: Conditioner,
        first_stage: FirstStage,
        dataset: TokenDataset,
        held: TokenDataset,
        run: DenoiserRun,
    ) -> None:
        super().__init__(denoiser, conditioner, first_stage, dataset, run)
        self.held = held

    def tokens(self, batch: Batch) -> Tensor:
        return batch["tokens"]

    def masked(self, batch: Batch, x0: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        if self.first_stage.config.encoder == "patch":
            return super().masked(batch, x0)
        return random_masks(len(x0), math.isqrt(x0.shape[1])).float().to(x0.device), x0, None

    @torch.no_grad()
    def sample(self, model: nn.Module) -> Image.Image:
        """Pictures that were held back; their lower halves, their middles drawn anew; and pictures of what they say."""
        assert isinstance(model, Denoiser)
        whole = ImageBART(self.first_stage.to(model.device), model, self.conditioner)
        x0, texts = self.held.middles(SHOWN)
        cond = self._cond(texts)
        side = math.isqrt(x0.shape[1])
        rows = [x0]
        for unknown in (preset_array(name, side) for name in ("lower half", "centre", "everything")):
            keep = ~torch.from_numpy(unknown).flatten()
            settings = DRAWN if cond is not None and unknown.all() else SamplingSettings(top_p=0.95, scales=2)
            given = cond if unknown.all() else self._cond([""] * len(texts))
            *_, last = whole.stream(len(x0), given, known=x0, keep=keep, settings=settings, seed=0)
            rows.append(last.tokens.cpu())
        pixels = self.first_stage.decode(torch.cat(rows).to(model.device))
        return grid(pixels.float(), columns=len(x0))

    @torch.no_grad()
    def figures(self, model: nn.Module) -> Metrics:
        """Mean negative log-likelihood a token of held-back pictures, in nats: with half of them known, and with none.

        The noise is the same each time.
        """
        assert isinstance(model, Denoiser)
        x0, texts = self.held.middles(HELD)
        cond, side = self._cond(texts), math.isqrt(x0.shape[1])
        found: dict[str, list[Any]] = {"loss": [], "half": [], "whole": []}
        for at in range(0, len(x0), 16):
            part = x0[at : at + 16].to(model.device)
            told = None if cond is None else cond[at : at + 16].to(model.device)
            for name, area in (("half", "lower half"), ("whole", "everything")):
                noise_t = (
                    torch.from_numpy(preset_array(area, side)).flatten().float().expand(len(part), -1).to(model.device)
                )
                x_t = add_uniform_noise(part, noise_t, self.vocab_size, torch.Generator(part.device).manual_seed(at))
                logits = model.logits(part, DenoiserInput(x_t, noise_t, torch.zeros_like(noise_t), told))
                found[name].append(F.cross_entropy(logits[noise_t > 0].float(), part[noise_t > 0], reduction="none"))
        values = {name: float(torch.cat(parts).mean()) for name, parts in found.items() if parts}
        return {"loss": (values["half"] + values["whole"]) / 2, **values}

    def _cond(self, texts: list[str]) -> Tensor | None:
        return self.conditioner.encode(list(texts)).tokens if self.conditioner.length else None
