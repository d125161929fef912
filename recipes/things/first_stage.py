"""The first stage of things: tokens of layers, read from pictures in which the things stand on anything.

Codes begin as the drawings' patches, in their directions of largest variance; patches that are most alike share one.
They are learned on together with the decoder. The encoder learns the tokens of a drawing from pictures of it: in any
color, on any ground, partly hidden. What a picture shows besides the thing is "nothing".
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from imagebart.core.settings import Settings
from imagebart.imaging.files import normalize
from imagebart.model import ImageBART
from imagebart.models.vqgan import LAYER_CHANNELS, NOTHING, AlphaDecoder, FirstStage, FirstStageConfig
from imagebart.training.config import LoopConfig
from imagebart.training.data import grid
from imagebart.training.loop import Batch, Task, train
from imagebart.training.vqgan import gradient_loss, load_first_stage
from imagebart.worlds.things import recolored
from recipes.things.layers import NOUNS, PATCH, SIDE, drawing, picture
from recipes.training import Series

PAINT_WEIGHT = 0.5  # of errors in paint, over those in color and opacity
LEAST = 2 / 255  # opacity of a patch that is not nothing
CODE_SIZE = 4.0  # root mean square length of the codes at first
SHARPNESS = 2.0  # of the choice among codes that the encoder is trained to make, times squared distances
COMMITMENT = 0.2
DECODED = 8  # one drawing, of which the decoder learns, for so many pictures
STRIDE = 1009  # between the drawings of a batch
PER_PICTURE = 24  # tokens of each picture whose choice is trained, in the mean
START = "start.safetensors"  # codes, and the tokens of the drawings
MEASURED = 100  # pictures


class LayersRun(Settings):
    """`python -m recipes.things train first-stage --config FILE`."""

    model: FirstStageConfig
    loop: LoopConfig
    init_from: str | None = None  # folder of a run to begin from, with its tokens
    decoder_only: bool = False  # codes and decoder: a hundred times fewer things to see


def nearest(points: Tensor, codes: Tensor) -> Tensor:
    """Of points [M, d] the nearest codes [K, d]."""
    return torch.cat([(codes.square().sum(1) - 2 * part @ codes.T).argmin(1) for part in points.split(8192)])


def fewer(points: Tensor, count: int) -> Tensor:
    """Codes [count, d] for points [M, d]: each point's own, except where two are most alike.

    K-means from points by chance would share codes by chance, while a few thousand patches have a near double.
    """
    kept = points
    while len(kept) > count:
        parts = [torch.cdist(part, kept).topk(2, largest=False) for part in kept.split(2048)]
        distance, nearest_of = (torch.cat(values)[:, 1] for values in zip(*parts, strict=True))
        stays, excess = [True] * len(kept), len(kept) - count
        for number, double in zip(order := distance.argsort().tolist(), nearest_of[order].tolist(), strict=True):
            if excess and stays[double]:
                stays[number], excess = False, excess - 1
        kept = kept[stays]
    group = nearest(points, kept)[:, None].expand_as(points)
    return torch.zeros_like(kept).scatter_reduce(0, group, points, "mean", include_self=False)


@torch.no_grad()
def init_codes(model: FirstStage, layers: Tensor) -> Tensor:
    """Codes and the decoder's linear map by what the patches are; the tokens of the drawings, int64 [M, N]."""
    weight = torch.ones(LAYER_CHANNELS)
    weight[4] = PAINT_WEIGHT
    weight = weight.repeat_interleave(PATCH**2)
    patches = F.pixel_unshuffle(layers, PATCH).permute(0, 2, 3, 1).reshape(-1, LAYER_CHANNELS * PATCH**2)
    there = patches[:, 3 * PATCH**2 : 4 * PATCH**2].amax(1) >= LEAST
    config, shown, decoder = model.config, patches * weight, model.decoder
    assert isinstance(decoder, AlphaDecoder) and decoder.patch.bias is not None
    mean, count = shown[there].mean(0), int(there.sum())
    centered = shown[there] - mean
    _, vectors = torch.linalg.eigh(centered.T @ centered / count)
    directions = vectors[:, -config.code_dim :].flip(1)  # orthonormal, of largest variance first
    points = (shown - mean) @ directions
    scale = points[there].square().sum(1).mean().sqrt() / CODE_SIZE
    points = points / scale
    codes = torch.cat([points[~there][:1], fewer(points[there], min(config.codebook_size - 1, count))])
    model.quantize.embedding.weight[: len(codes)] = codes
    model.quantize.embedding.weight[len(codes) :] = 100.0  # never the nearest
    decoder.patch.weight.copy_((scale * directions / weight[:, None])[..., None, None])
    decoder.patch.bias.copy_(mean / weight)
    model.quant_conv.weight.mul_(0.1)  # latents begin in the middle of the codes
    tokens = nearest(points, codes)
    tokens[~there] = NOTHING
    return tokens.view(len(layers), -1)


def psnr_over(layers: Tensor, decoded: Tensor, ground: Tensor) -> Tensor:
    """PSNR in dB, [B], of layers [B, 4, H, W] over a ground [B, 3, 1 or H, 1 or W], all in [0, 1]."""
    one, two = (part[:, :3] + ground * (1 - part[:, 3:4]) for part in (layers, decoded.clamp(0, 1)))
    return -10 * (one - two).square().mean((1, 2, 3)).clamp_min(1e-10).log10()


class LayersTask(Task):
    """Decoder and codes: the drawings from their tokens. Encoder: their tokens from pictures."""

    def __init__(self, model: FirstStage, layers: Tensor, tokens: Tensor, decoder_only: bool = False) -> None:
        self.model, self.layers, self.drawn, self.decoder_only = model, layers, tokens, decoder_only
        self.dataset = Series((lambda number: {"noun": number * STRIDE % len(layers)}) if decoder_only else picture)
        model.encoder.requires_grad_(not decoder_only)
        model.quant_conv.requires_grad_(not decoder_only)

    def loss(self, model: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, Tensor]:
        first: FirstStage = accelerator.unwrap_model(model)
        nouns = batch["noun"] if self.decoder_only else batch["noun"][::DECODED]
        decoder, scalars = self.decoder_loss(first, self.layers[nouns], self.drawn[nouns])
        if self.decoder_only:
            return {"loss": decoder, **scalars}
        encoder, more = self.encoder_loss(first, batch, self.drawn[batch["noun"]])
        return {"loss": encoder + decoder, **scalars, **more}

    def encoder_loss(self, first: FirstStage, batch: Batch, truth: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The choice of the drawings' tokens, [B, N], among all codes, for some patches of pictures."""
        z = first.quant_conv(first.encoder(normalize(batch["image"]))).float().flatten(2).mT  # in bf16
        chosen = batch["seen"].flatten(1) & (torch.rand(truth.shape) < PER_PICTURE / truth.shape[1])
        codes, points, target = first.quantize.embedding.weight.detach(), z[chosen], truth[chosen]
        logits = -SHARPNESS * (codes.square().sum(1) - 2 * points @ codes.T)
        choice = F.cross_entropy(logits.float(), target)
        commitment = (points - codes[target]).square().sum(1).mean()
        right = (logits.argmax(1) == target)[target != NOTHING].float().mean()
        scalars = {"choice": choice, "commitment": commitment, "right": right}
        return choice + COMMITMENT * commitment, scalars

    def decoder_loss(self, first: FirstStage, layers: Tensor, tokens: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Drawings from their tokens, [B, N]: over a ground by chance; opacity; paint."""
        output = first.decode(tokens).float()
        ground = torch.rand(len(layers), 3, 1, 1)
        over, wanted = (part[:, :3] + ground * (1 - part[:, 3:4]) for part in (output, layers))
        error, one = over - wanted, torch.ones(1, 1, SIDE, SIDE)
        pixels = error.abs().mean() + 4 * error.square().mean() + gradient_loss(over, wanted, one)
        opacity = (output[:, 3] - layers[:, 3]).abs().mean()
        paint = ((output[:, 4] - layers[:, 4]).abs() * layers[:, 3]).mean()
        psnr = psnr_over(layers, output.detach(), ground).mean()
        scalars = {"pixels": pixels, "opacity": opacity, "paint": paint, "psnr": psnr}
        return 10 * (pixels + 0.5 * opacity + PAINT_WEIGHT * paint), scalars

    @torch.no_grad()
    def measured(self, model: FirstStage, count: int) -> tuple[Tensor, ...]:
        """New pictures of whole things, their layers, what is decoded from them and from the drawn tokens; the share
        of tokens that are read right."""
        items = [picture(number, 99, "test", hidden=False) for number in range(count)]
        images = torch.stack([item["image"] for item in items])
        nouns, colors = torch.tensor([item["noun"] for item in items]), [item["color"] for item in items]
        read, drawn = torch.cat([model.encode(normalize(part)) for part in images.split(20)]), self.drawn[nouns]
        decoded = [torch.cat([model.decode(part) for part in tokens.split(20)]) for tokens in (read, drawn)]
        layers = [self.layers[nouns], *(part.clamp(0, 1) for part in decoded)]
        right = (read == drawn)[drawn != NOTHING].float().mean()
        return images, *(recolored(part, colors) for part in layers), right

    def sample(self, model: nn.Module) -> Image.Image:
        """Pictures; the layers read from them, on gray; the layers of their things' tokens; the layers."""
        images, layers, one, two, _ = self.measured(model, 20)  # type: ignore[arg-type]
        over = [2 * (part[:, :3] + 0.8 * (1 - part[:, 3:4])) - 1 for part in (one, two, layers)]
        return grid(torch.cat([normalize(images), *over]), columns=20)

    def validate(self, model: nn.Module) -> dict[str, float]:
        """PSNR in dB over grounds that were not seen, and the share of tokens that are read right."""
        _, layers, one, two, right = self.measured(model, MEASURED)  # type: ignore[arg-type]
        ground = torch.rand(len(layers), 3, 1, 1, generator=torch.Generator().manual_seed(0))
        found = {"read": psnr_over(layers, one, ground), "drawn": psnr_over(layers, two, ground)}
        figures = {f"{name}_{what}": float(value) for name, part in found.items()
                   for what, value in (("mean", part.mean()), ("worst", part.min()))}  # fmt: skip
        return figures | {"right": float(right)}


def train_first_stage(run: LayersRun, folder: Path) -> None:
    """Trains (or resumes) the first stage in a run's folder and writes it there, with the drawings' tokens."""
    torch.manual_seed(run.loop.seed)
    layers = torch.stack([torch.from_numpy(drawing(noun)).permute(2, 0, 1) for noun in range(len(NOUNS))])
    model, start = FirstStage(run.model), folder / START
    folder.mkdir(parents=True, exist_ok=True)
    if not start.is_file():  # some minutes
        if run.init_from is not None:
            model.load_state_dict(load_first_stage(run.init_from).state_dict())
            tokens = load_file(Path(run.init_from) / START)["tokens"]
        else:
            tokens = init_codes(model, layers)
        weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        save_file({"tokens": tokens, **weights}, start)
    begun = load_file(start)
    tokens = begun.pop("tokens")
    model.load_state_dict(begun)
    task = LayersTask(model, layers, tokens, run.decoder_only)
    trained: Any = train(task, run.loop, folder)
    ImageBART(trained).save_pretrained(folder)
