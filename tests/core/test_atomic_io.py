"""Files are there whole or not at all: kills at every step and at random moments, full disks, links, permissions."""

from __future__ import annotations

import itertools
import os
import random
import signal
import stat
import subprocess
from pathlib import Path

import numpy as np
import pytest
from fault_injection import killed_at_every_step, run_in_fork, with_full_disk
from PIL import Image

from imagebart.core import atomic_io as files
from imagebart.core.errors import InputError
from imagebart.imaging.files import Recipe, read_recipe, save_animation, save_image, write_png

RECIPE = Recipe(model="tiny", task="generate", prompt="a hat", seed=1)


def noise(seed: int, side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8))


def same(path: Path, image: Image.Image) -> bool:
    with Image.open(path) as found:
        return bool(np.array_equal(np.asarray(found.convert("RGB")), np.asarray(image)))


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_an_image_is_old_or_new_whenever_its_writer_is_killed(tmp_path: Path) -> None:
    path, old, new = tmp_path / "out.png", noise(0), noise(1)
    write_png(old, path, RECIPE)
    steps = list(killed_at_every_step(lambda: write_png(new, path, RECIPE)))
    assert len(steps) >= 3  # made, given its permissions, moved
    assert same(path, new)
    write_png(old, path, RECIPE)
    for _ in killed_at_every_step(lambda: write_png(new, path, RECIPE)):
        assert same(path, old) and read_recipe(path) == RECIPE


@pytest.mark.parametrize("name", ["out.png", "out.webp", "out.gif", "out.jpg"])
def test_a_full_disk_leaves_the_old_image_and_says_what_it_takes(tmp_path: Path, name: str) -> None:
    path, new = tmp_path / name, noise(1)

    def write() -> None:
        if path.suffix in (".webp", ".gif"):
            save_animation([new, noise(2)], path, 1.0)
        else:
            save_image(new, path)

    run_in_fork(write)
    size = path.stat().st_size
    path.write_bytes(b"old")
    for room in (0, 1, size // 2, size - 1):
        said = with_full_disk(write, room)
        assert f"{name} cannot be written to {tmp_path} (" in said
        assert f"it takes {files.format_bytes(size)}, and" in said and "free there" in said
        assert path.read_bytes() == b"old" and not hidden(tmp_path)
    assert with_full_disk(write, size) == ""
    assert path.stat().st_size == size


def test_an_image_survives_kills_at_random_moments(tmp_path: Path) -> None:
    """A program that writes two images in turn, without end, killed as the system and people kill."""
    images, path, moments = [noise(0, 200), noise(1, 200)], tmp_path / "out.png", random.Random(0)
    save_image(images[0], path)

    def forever() -> None:
        for image in itertools.cycle(images):
            save_image(image, path)

    for kind in [signal.SIGKILL] * 30 + [signal.SIGTERM] * 10 + [signal.SIGINT] * 10:
        assert run_in_fork(forever, (kind, moments.uniform(0, 0.02))) != 0
        assert any(same(path, image) for image in images)


def test_permissions_and_links_stay(tmp_path: Path) -> None:
    target, link = tmp_path / "target.txt", tmp_path / "link.txt"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    files.write_text(link, "néw")
    assert link.is_symlink() and target.read_text(encoding="utf-8") == "néw"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_pipe_is_written_to_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        files.write_text(pipe, "through")
        assert reader.stdout is not None and reader.stdout.read() == b"through"
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"^out.txt cannot be written to .*nowhere \(No such file or directory\)\.$"):
        files.write_text(tmp_path / "nowhere" / "out.txt", "text")
    with pytest.raises(InputError, match=r"'out.words'; end the name in .png"):
        save_image(noise(0), tmp_path / "out.words")
