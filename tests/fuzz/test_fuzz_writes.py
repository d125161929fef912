"""Programs that are killed, or run out of room, while they write: a file is the old one or the new, never half."""

from __future__ import annotations

import itertools
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from effort import Effort
from fault_injection import apart, without_room
from PIL import Image

from imagebart.atomic_io import recover_files, replace_files
from imagebart.imaging.files import save_animation, save_image
from imagebart.imaging.metadata import Recipe, write_png

PICTURES = [Image.fromarray(np.random.default_rng(seed).integers(0, 256, (120, 120, 3), np.uint8)) for seed in range(2)]
RECIPE = Recipe("tiny", "generate", "a hat", 1)
BYTES = [bytes([value]) * 100_000 for value in b"01"]
WRITERS: dict[str, Callable[[Path, int], Any]] = {
    "picture": lambda folder, which: write_png(PICTURES[which], folder / "out.png", RECIPE),
    "upload's kind": lambda folder, which: save_image(PICTURES[which], folder / "out.jpg"),
    "animation": lambda folder, which: save_animation([PICTURES[which]] * 2, folder / "out.gif", 1.0),
    "weights": lambda folder, which: replace_files(folder, [("a", BYTES[which]), ("b", BYTES[which])], owned="ab"),
}


def content(folder: Path) -> dict[str, bytes]:
    recover_files(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.mark.parametrize("name", WRITERS)
def test_whatever_ends_a_writer_files_are_whole(effort: Effort, tmp_path: Path, name: str) -> None:
    write, whole = WRITERS[name], []
    for which in (1, 0):
        write(tmp_path, which)
        whole.append(content(tmp_path))

    def forever() -> None:
        for which in itertools.cycle([1, 0]):
            write(tmp_path, which)

    size = max(len(file) for file in whole[0].values())
    for case, chance in effort.cases(4, 100):
        if chance.random() < 0.3:
            said = without_room(lambda: write(tmp_path, 1), chance.randrange(size))
            assert "cannot be written to" in said and "free there" in said, case
        else:
            kind = chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
            assert apart(forever, (kind, chance.uniform(0, 0.05))) != 0, case
        assert content(tmp_path) in whole, case
    shutil.rmtree(tmp_path)
