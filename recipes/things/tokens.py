"""The tokens of things: a codebook found by k-means, an encoder of single patches that maps to it, and a decoder that
begins with what patches look like.

    python -m recipes.things train tokens --run runs/things/tokens

Patches of scenes, averaged over squares of 2 x 2 pixels, are mapped to their first principal components; the encoder
learns this map, and the codes are the k-means of what it gives. That takes minutes, where a codebook that learns
together with a decoder takes hours. The decoder's memory of patches is found by least squares; its convolutions, which
add nothing yet, are trained afterwards (`python -m recipes.things train decoder`).
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from tqdm import tqdm

from imagebart.imaging.files import normalize
from imagebart.model import ImageBART
from imagebart.models.vqgan import FirstStage, FirstStageConfig, psnr
from imagebart.training.patch_memory import fit_patch_memory, k_means, principal_directions
from recipes.things.artwork import CELL
from recipes.things.scenes import crowded, image_of, of_every_size

SCENES = 3000
STEPS, BATCH = 3000, 1024  # of the encoder
ROUNDS = 25  # of k-means
MEMORY_SCENES = 20_000  # that the decoder's memory is found from
FRESH = 160  # scenes that it is measured on
CONFIG = FirstStageConfig(
    channels=96, multipliers=(1,), res_blocks=1, attention_resolutions=(), latent_channels=192, code_dim=32,
    codebook_size=4096, pixel_unshuffle=CELL, encoder="patch", pair_rows=68_000, pair_dim=96, pair_bytes=24,
)  # fmt: skip


def patches(seed: int, scenes: int) -> Tensor:
    """Patches of scenes, uint8 [scenes * 256, 3, CELL, CELL]."""
    images = (image_of(crowded(i, seed)) for i in tqdm(range(scenes), unit="scene"))
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
    images = (image_of(of_every_size(i, 2)) for i in tqdm(range(MEMORY_SCENES), unit="scene"))
    fit_patch_memory(model, images)
    shown = normalize(torch.stack([image_of(of_every_size(i, 3)) for i in range(FRESH)]))
    decoded = torch.cat([model.decode(model.encode(part)) for part in shown.split(16)])
    print(f"{FRESH} new scenes: PSNR {psnr(shown[None], decoded[None]).item():.2f} dB")
    ImageBART(model).save_pretrained(folder)
