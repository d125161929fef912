"""The smallest and the largest published model in full size, converted and used for an edit, their memory measured.

It takes minutes, and up to 40 GB on the disk of `--basetemp`.
"""

import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from published_files import geometric, scale_tensors, write_checkpoint

from imagebart.imaging.files import read_recipe
from imagebart.weights.registry import MODELS

GB = 10**9
PROMPTS = {"cin_5_scales_custom": ("--prompt", "golden retriever")}  # it was not trained without a class


def run(home: Path, *command: str) -> tuple[str, int]:
    """What the command line said, and the most memory that it had of its own: not mapped from files, in bytes."""
    environment = {**os.environ, "HF_HOME": str(home), "PYTHONPATH": os.getcwd(), "COLUMNS": "100"}
    program, memory = [sys.executable, "-m", "imagebart", *command], 0
    with subprocess.Popen(program, env=environment, cwd=home.parent, stdout=subprocess.PIPE, text=True) as job:
        while job.poll() is None:
            with suppress(OSError):
                found = re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{job.pid}/status").read_text())
                memory = max(memory, 1024 * int(found[1]) if found else 0)
            time.sleep(0.05)
        assert job.returncode == 0 and job.stdout is not None
        return job.stdout.read(), memory


@pytest.mark.release
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's account of memory")
@pytest.mark.parametrize("name", ["ffhq_4_scales_geometric", "cin_5_scales_custom"])
def test_a_conversion_and_an_edit(tmp_path: Path, name: str) -> None:
    home, betas = tmp_path / "home", geometric(MODELS[name].stages)  # whatever its own are
    published, converted = (home / "imagebart" / part / name for part in ("published", "converted"))
    published.mkdir(parents=True)
    for t in range(1, len(betas) + 1):
        write_checkpoint(published / f"scale{t}.ckpt", scale_tensors(MODELS[name].stage(t), t, betas, scale=0.05))
    said, memory = run(home, "convert", name, "--dtype", "bfloat16", "--replace")
    assert said == f"{converted}\n" and memory < 7 * GB
    assert not list(published.glob("*.ckpt"))
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    asked = ("--mask", "upper half", *PROMPTS.get(name, ()), "--seed", "1", "--out", "out.png")
    _, memory = run(home, "edit", "--model", name, "--image", "in.png", *asked)
    assert memory < 14 * GB
    edited = np.asarray(Image.open(tmp_path / "out.png"))
    assert (edited[128:] == pixels[128:]).all() and (edited[:128] != pixels[:128]).any()
    recipe = read_recipe(tmp_path / "out.png")
    assert recipe is not None and recipe.model == name
