"""The example for Ray edits a folder with two workers, as `Pipeline.edit` does one image after the other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_models import tiny_model

from imagebart.imaging.masks import preset
from imagebart.pipeline import Pipeline

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_workers_edit_a_folder(tmp_path: Path) -> None:
    tiny_model("text").save_pretrained(tmp_path / "model")
    (tmp_path / "in").mkdir()
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{i}.png")
    mask = preset("centre", (32, 32))
    mask.save(tmp_path / "mask.png")
    command = [sys.executable, ROOT / "examples" / "ray_batch.py", "in", "out", "--mask", "mask.png"]
    command += ["--prompt", "a red hat", "--model", tmp_path / "model"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    pipe = Pipeline.from_pretrained(tmp_path / "model")
    for i in range(4):
        *_, event = pipe.edit(tmp_path / "in" / f"{i}.png", mask, "a red hat", seed=0)
        with Image.open(tmp_path / "out" / f"{i}.png") as image:
            assert (np.asarray(image) == np.asarray(event.image)).all()
