"""Files are there whole or not at all: killed or interrupted writers, full disks, links, permissions."""

import os
import stat
import subprocess
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from fault_injection import killed_at_every_step, run_in_fork, with_full_disk
from PIL import Image

from imagebart.core.atomic_io import format_bytes, write_text
from imagebart.core.errors import InputError
from imagebart.imaging.files import Recipe, read_recipe, save_animation, save_image, write_png

RECIPE = Recipe(model="tiny", task="generate", prompt="a hat", seed=1)


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8))


def test_an_image_is_old_or_new_whenever_its_writer_is_killed(tmp_path: Path) -> None:
    path, old, new = tmp_path / "out.png", noise(0), noise(1)
    write_png(old, path, RECIPE)
    steps = 0
    for _ in killed_at_every_step(lambda: write_png(new, path, RECIPE)):
        assert np.array_equal(Image.open(path), old) and read_recipe(path) == RECIPE
        steps += 1
    assert steps >= 3  # made, given its permissions, moved
    assert np.array_equal(Image.open(path), new)


@pytest.mark.parametrize("name", ["out.png", "out.webp"])
def test_a_full_disk_leaves_the_old_image_and_says_what_it_takes(tmp_path: Path, name: str) -> None:
    path, images = tmp_path / name, [noise(1), noise(2)]

    def write() -> None:
        save_animation(images, path, 1.0) if name == "out.webp" else save_image(images[0], path)

    run_in_fork(write)
    size = path.stat().st_size
    path.write_bytes(b"old")
    for room in (0, 1, size // 2, size - 1):
        said = with_full_disk(write, room)
        assert f"{name} cannot be written to {tmp_path} (" in said
        assert f"it takes {format_bytes(size)}, and" in said and "free there" in said
        assert path.read_bytes() == b"old" and os.listdir(tmp_path) == [name]
    assert with_full_disk(write, size) == ""
    assert path.stat().st_size == size


def test_an_interrupted_writer_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.txt"
    write_text(path, "old")
    monkeypatch.setattr("shutil.copymode", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["out.txt"]


def test_permissions_and_links_stay(tmp_path: Path) -> None:
    target, link = tmp_path / "target.txt", tmp_path / "link.txt"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    write_text(link, "néw")
    assert link.is_symlink() and target.read_text(encoding="utf-8") == "néw"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_pipe_is_written_to_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        write_text(pipe, "through")
        assert reader.stdout is not None and reader.stdout.read() == b"through"
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"^out.txt cannot be written to .*nowhere \(No such file or directory\)\.$"):
        write_text(tmp_path / "nowhere" / "out.txt", "text")
    with pytest.raises(InputError, match=r"'out.words'; end the name in .png"):
        save_image(noise(0), tmp_path / "out.words")


def test_numbers_of_bytes_are_said_as_people_read_them() -> None:
    said = {0: "0 bytes", 999: "999 bytes", 1000: "1.0 kB", 1_250_000: "1.2 MB", 10**12: "1.0 TB", 2**63: "9.2 EB"}
    assert {size: format_bytes(size) for size in said} == said
