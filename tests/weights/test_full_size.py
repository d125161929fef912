"""The largest published models in full size, from a server on the loopback to an edit, their memory measured.

`pytest -m load -s tests/weights/test_full_size.py` takes minutes, and up to 52 GB on the disk of `--basetemp`. What the
server sends is made as it is sent, so that it lies nowhere.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from faulty_server import FaultyServer, breaking_off, refusing, serving
from PIL import Image
from published_files import Planned, write_full, write_full_package

from imagebart.imaging.metadata import read_recipe

GB = 10**9
BESIDE_A_STAGE = 1.5 * GB  # what a conversion may take besides the tensors of one stage
IN_USE = 6 * GB


class _End(Exception):
    """All has been written that was asked for."""


class _Window(io.RawIOBase):
    """Passes on bytes begin to end of what is written to it, and counts all."""

    def __init__(self, target: BinaryIO | None, begin: int, end: int | None) -> None:
        self.target, self.begin, self.end, self.count = target, begin, end, 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        piece = memoryview(data).cast("B")
        here, self.count = self.count, self.count + len(piece)
        if self.target is not None and self.count > self.begin:
            self.target.write(piece[max(self.begin - here, 0) : None if self.end is None else self.end - here])
        if self.end is not None and self.count >= self.end:
            raise _End
        return len(piece)


def _blank(planned: Planned) -> np.ndarray:
    return np.zeros(planned.shape, planned.dtype)


class MadeOnTheWay(FaultyServer):
    """A server of a published model's zip."""

    def __init__(self, name: str) -> None:
        super().__init__(b"")
        self.name = name
        counter = _Window(None, 0, None)
        write_full_package(counter, name, _blank)  # type: ignore[arg-type]
        self.size = counter.count

    @property
    def etag(self) -> str:
        return f'"{self.name}"'

    @property
    def length(self) -> int:
        return self.size

    def copy(self, target: BinaryIO, begin: int, end: int) -> None:
        with suppress(_End):
            write_full_package(_Window(target, begin, end), self.name)  # type: ignore[arg-type]


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
full_size = pytest.mark.parametrize(  # and the numbers of its largest stage
    ("name", "stage"), [("ffhq_4_scales_geometric", 203e6), ("cin_5_scales_custom", 642e6)]
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.load,
    pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's account of memory"),
]


@full_size
def test_a_download(tmp_path: Path, name: str, stage: float) -> None:
    work = Measured(tmp_path / "home")
    with serving(MadeOnTheWay(name)) as server:
        server.faults += [refusing(503, Retry_After=0), breaking_off(server.length // 50)]
        work.run("download", name, "--from", server.address)
    assert len(server.requests) == 3 and server.requests[2]["range"].startswith("bytes=")
    assert work.own["download"] < GB
    files = tmp_path / "home" / "imagebart" / "published" / name
    assert min(path.stat().st_size for path in files.glob("*.ckpt")) > 8 * 0.95 * stage


@full_size
def test_a_conversion_and_an_edit(tmp_path: Path, name: str, stage: float) -> None:
    work = Measured(tmp_path / "home")
    published, converted = (tmp_path / "home" / "imagebart" / part / name for part in ("published", "converted"))
    write_full(name, published)
    assert work.run("convert", name, "--dtype", "bf16", "--replace") == f"{converted}\n"
    assert work.all["convert"] < 4 * stage + BESIDE_A_STAGE
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
