"""The smallest and the largest published model in full size, converted and used for an edit, their memory measured.

It takes minutes, and up to 40 GB on the disk of `--basetemp`.
"""

import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from published_files import geometric, scale_tensors, write_checkpoint

from imagebart.imaging.files import read_recipe
from imagebart.weights.registry import MODELS

GB = 10**9
CONVERTING, IN_USE = 7 * GB, 14 * GB  # memory at most, besides what is mapped from files


@dataclass
class Measured:
    """Runs the command line as a person does, from a folder of its own; memory in bytes, at the peak."""

    home: Path
    own: dict[str, int] = field(default_factory=dict)  # what no file could be read for again
    all: dict[str, int] = field(default_factory=dict)

    def run(self, *command: str) -> str:
        environment = {**os.environ, "HF_HOME": str(self.home), "PYTHONPATH": os.getcwd(), "COLUMNS": "100"}
        job = subprocess.Popen(
            [sys.executable, "-m", "imagebart", *command],
            env=environment, cwd=self.home.parent, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        began, name = time.monotonic(), command[0]
        while job.poll() is None:
            with suppress(OSError):
                status = Path(f"/proc/{job.pid}/status").read_text()
                for kept, label in ((self.own, "RssAnon"), (self.all, "VmRSS")):
                    found = re.search(rf"{label}:\s+(\d+)", status)
                    kept[name] = max(kept.get(name, 0), 1024 * int(found[1]) if found else 0)
            time.sleep(0.05)
        print(
            f"{name}: {time.monotonic() - began:.0f} s, {self.own[name] / GB:.2f} GB of its own, "
            f"{self.all[name] / GB:.2f} GB with the files mapped",
            flush=True,
        )
        assert job.returncode == 0 and job.stdout is not None
        return job.stdout.read()


PROMPTS = {"cin_5_scales_custom": ("--prompt", "golden retriever")}  # it was not trained without a class
pytestmark = [
    pytest.mark.release,
    pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's account of memory"),
]


@pytest.mark.parametrize("name", ["ffhq_4_scales_geometric", "cin_5_scales_custom"])
def test_a_conversion_and_an_edit(tmp_path: Path, name: str) -> None:
    work = Measured(tmp_path / "home")
    published, converted = (tmp_path / "home" / "imagebart" / part / name for part in ("published", "converted"))
    published.mkdir(parents=True)
    betas = geometric(MODELS[name].stages)  # whatever its own are
    for t in range(1, len(betas) + 1):
        write_checkpoint(published / f"scale{t}.ckpt", scale_tensors(MODELS[name].stage(t), t, betas, scale=0.05))
    assert work.run("convert", name, "--dtype", "bf16", "--replace") == f"{converted}\n"
    assert work.own["convert"] < CONVERTING
    assert not list(published.glob("*.ckpt"))
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    asked = ("--mask", "upper half", *PROMPTS.get(name, ()), "--seed", "1", "--out", "out.png")
    work.run("edit", "--model", name, "--image", "in.png", *asked)
    edited = np.asarray(Image.open(tmp_path / "out.png"))
    assert (edited[128:] == pixels[128:]).all() and (edited[:128] != pixels[:128]).any()
    recipe = read_recipe(tmp_path / "out.png")
    assert recipe is not None and recipe.model == name
    assert work.own["edit"] < IN_USE
