"""The tokens of things: a codebook found by k-means, and an encoder of single patches that maps to it.

    python -m recipes.things.tokens runs/things/tokens

Patches of scenes, averaged over squares of 2 x 2 pixels, are mapped to their first principal components; the encoder
learns this map, and the codes are the k-means of what it gives. That takes minutes, where a codebook that learns
together with a decoder takes hours; the decoder is trained afterwards (`imagebart.training.vqgan`, decoder_only).
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from imagebart.imaging.files import normalize
from imagebart.models.vqgan import FirstStage, FirstStageConfig
from imagebart.training.progress import tracked
from imagebart.weights.folder import Part, save_part
from recipes.things.artwork import CELL
from recipes.things.scenes import CrowdedScenes

SCENES = 3000
STEPS, BATCH = 3000, 1024  # of the encoder
ROUNDS = 25  # of k-means
CONFIG = FirstStageConfig(
    channels=32, multipliers=(1,), attention_resolutions=(), latent_channels=192, code_dim=32, codebook_size=4096,
    pixel_unshuffle=CELL, encoder="patch",
)  # fmt: skip


def patches(seed: int, scenes: int) -> Tensor:
    """Patches of scenes, uint8 [scenes * 256, 3, CELL, CELL]."""
    dataset = CrowdedScenes(seed)
    images = (dataset[i]["image"] for i in tracked(range(scenes), "scenes", scenes))
    return torch.cat([rearrange(i, "c (h y) (w x) -> (h w) c y x", y=CELL, x=CELL) for i in images])


def averaged(part: Tensor) -> Tensor:
    """Patches as the mean colors of squares of 2 x 2 pixels, float [M, 3 * 64] in [-1, 1]."""
    return F.avg_pool2d(normalize(part), 2).flatten(1)


def principal_components(pixels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The mean of rows [M, D] and the directions of largest variance, [D, count]."""
    mean = pixels.mean(0)
    centered = pixels - mean
    values, vectors = torch.linalg.eigh(centered.T @ centered / len(pixels))
    print(f"{count} of {len(values)} components hold {values[-count:].sum() / values.sum():.4f} of the variance")
    return mean, vectors[:, -count:].flip(1)


def train_encoder(model: FirstStage, data: Tensor) -> None:
    """Teaches the patch encoder the map to principal components."""
    mean, directions = principal_components(averaged(data[torch.randperm(len(data))[:200_000]]), model.config.code_dim)
    layers = [*model.encoder.parameters(), *model.quant_conv.parameters()]
    optimizer = torch.optim.AdamW(layers, 2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, STEPS, pct_start=0.05)
    for step in tracked(range(STEPS), "steps", STEPS):
        batch = data[torch.randint(len(data), (BATCH,))]
        error = model.latents(normalize(batch))[:, 0, 0] - (averaged(batch) - mean) @ directions
        loss = error.square().sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 500 == 0:
            print(f"step {step + 1}: squared distance {loss.item():.4f}", flush=True)


def nearest(points: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Of points [M, d] the nearest codes [K, d] and the squared distances."""
    found = [(codes.square().sum(1) - 2 * part @ codes.T).min(1) for part in points.split(8192)]
    distances = torch.cat([values for values, _ in found]) + points.square().sum(1)
    return torch.cat([indices for _, indices in found]), distances.clamp_min(0)


def k_means(points: Tensor, count: int, rounds: int) -> Tensor:
    """Codes [count, d]; those that few points are nearest to are put where points are far from theirs."""
    codes = points[torch.randperm(len(points))[:count]].clone()
    for number in tracked(range(rounds), "rounds", rounds):
        labels, distances = nearest(points, codes)
        members = torch.bincount(labels, minlength=count)
        codes = torch.zeros_like(codes).index_add_(0, labels, points) / members.clamp_min(1)[:, None]
        few = members < 0.05 * len(points) / count
        if number < rounds - 5:
            codes[few] = points[distances.multinomial(int(few.sum()))] if few.any() else codes[few]
        print(f"round {number + 1}: mean squared distance {distances.mean():.4f}, {int(few.sum())} moved", flush=True)
    return codes


@torch.no_grad()
def spread(model: FirstStage) -> None:
    """Gives the decoder all components of codes equally large: those that tell similar codes apart are small."""
    codes = model.quantize.codes()
    deviation, mean = codes.std(0), codes.mean(0)
    layer, width = model.post_quant_conv, model.config.latent_channels
    directions = torch.linalg.qr(torch.randn(width, codes.shape[1]))[0] * (width / codes.shape[1]) ** 0.5
    assert layer.bias is not None
    layer.weight.copy_((directions / deviation)[..., None, None])
    layer.bias.copy_(-(directions / deviation) @ mean)


@torch.no_grad()
def latents_of(model: FirstStage, data: Tensor) -> Tensor:
    return torch.cat([model.latents(normalize(part))[:, 0, 0] for part in data.split(4096)])


def main(folder: Path) -> None:
    torch.manual_seed(0)
    data = patches(0, SCENES)
    model = FirstStage(CONFIG)
    train_encoder(model, data)
    model.requires_grad_(False)
    points = latents_of(model, data)
    model.quantize.embedding.weight.copy_(k_means(points, CONFIG.codebook_size, ROUNDS))
    spread(model)
    fresh = latents_of(model, patches(1, 200))
    labels, distances = nearest(fresh, model.quantize.codes())
    print(
        f"new scenes: mean squared distance {distances.mean():.4f} of {fresh.var(0).sum():.3f}, "
        f"{len(labels.unique())} of {CONFIG.codebook_size} codes"
    )
    save_part(Part(model), folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
