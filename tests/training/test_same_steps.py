"""The same seed gives the same steps as when these losses were recorded, up to how a machine rounds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from image_folders import draw_folder
from PIL import Image, ImageOps
from tiny_models import tiny_first_stage
from tiny_runs import SHAPE

from imagebart.model import ImageBART
from imagebart.models.vqgan import FirstStage
from imagebart.training.config import AdversarialLoss, DenoiserRun, FirstStageLoss, FirstStageRun, LoopConfig, StageRun
from imagebart.training.denoiser import train_denoiser
from imagebart.training.loop import read_log
from imagebart.training.stage import train_stages
from imagebart.training.token_task import conditioner_of
from imagebart.training.vqgan import train_first_stage

LOOP = LoopConfig(
    steps=4, batch_size=4, lr=3e-3, optimizer="muon", warmup=2, ema=0.5, mixed_precision="no", log_every=1
)
MODEL = tiny_first_stage(encoder="patch")
LOSSES = {
    "first stage": [2.09325, 1.86443, 1.58758, 1.27152],
    "stages": [3.14816, 2.97217, 2.71675, 2.15924],
    "denoiser": [3.81322, 3.46871, 3.02327, 2.68595],
}


@pytest.mark.parametrize("kind", LOSSES)
def test_losses_of_the_first_steps(tmp_path: Path, kind: str) -> None:
    run, folder = tmp_path / "run", draw_folder(tmp_path / "data", "text")
    texts = {row["file_name"]: row["text"] for row in map(json.loads, (folder / "metadata.jsonl").open())}
    items = []
    for path in sorted(folder.glob("*.png")):
        square = ImageOps.fit(Image.open(path).convert("RGB"), (32, 32), Image.Resampling.LANCZOS)
        items.append({"image": torch.from_numpy(np.array(square)).permute(2, 0, 1), "text": texts[path.name]})
    data = (items, conditioner_of("text", list(texts.values()), 16))
    torch.manual_seed(0)
    ImageBART(FirstStage(MODEL)).save_pretrained(tmp_path / "first")
    places = {"data": "", "first_stage": str(tmp_path / "first"), "loop": LOOP, "shape": SHAPE, "text_length": 16}
    if kind == "first stage":
        loss = FirstStageLoss(adversarial=AdversarialLoss(start=0.5, crop=32, channels=8))
        train_first_stage(FirstStageRun(data="", model=MODEL, loop=LOOP, loss=loss), run, items)
    elif kind == "stages":
        train_stages(StageRun(**places, betas=(0.5, 1.0), t=None, decoder_corruption=0.5), run, lambda *_: data)
    else:
        train_denoiser(DenoiserRun(**places, color_hint_grid=2), run, lambda *_: data)
    assert [record["loss"] for record in read_log(run) if "loss" in record] == pytest.approx(LOSSES[kind], rel=2e-3)
