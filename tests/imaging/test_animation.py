"""Moving pictures, read back frame by frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from imagebart import InputError
from imagebart.imaging.files import HOLD, save_animation


def noise(mode: str, count: int) -> list[Image.Image]:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 24, 17, 4), np.uint8)
    return [Image.fromarray(p, "RGBA").convert(mode) for p in pixels]


def played(path: Path) -> tuple[list[Image.Image], list[int]]:
    frames, durations = [], []
    with Image.open(path) as file:
        assert file.info["loop"] == 0, "for ever"
        for frame in ImageSequence.Iterator(file):
            frames.append(frame.convert("RGBA"))
            durations.append(int(frame.info["duration"]))
    return frames, durations


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_webp_keeps_every_frame_as_it_is(tmp_path: Path, mode: str) -> None:
    frames = noise(mode, 5)
    save_animation(frames, tmp_path / "run.webp", 2.0)
    shown, durations = played(tmp_path / "run.webp")
    assert durations == [400] * 4 + [400 + round(1000 * HOLD)]
    for before, after in zip(frames, shown, strict=True):
        before_, after_ = np.asarray(before.convert("RGBA")), np.asarray(after)
        visible = before_[..., 3] > 0
        assert (before_[..., 3] == after_[..., 3]).all() and (before_[visible] == after_[visible]).all()


def test_gif_keeps_order_and_colours(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (24, 17), colour) for colour in ("red", "lime", "blue")]
    frames.append(Image.new("RGBA", (24, 17), (0, 0, 0, 0)))  # shown on white
    save_animation(frames, tmp_path / "run.GIF", 0.4)
    shown, durations = played(tmp_path / "run.GIF")
    assert durations == [100, 100, 100, 100 + round(1000 * HOLD)]
    colours = [frame.getpixel((5, 5)) for frame in shown]
    assert colours == [(255, 0, 0, 255), (0, 255, 0, 255), (0, 0, 255, 255), (255, 255, 255, 255)]


def test_one_frame_and_many_short_ones_can_be_written(tmp_path: Path) -> None:
    save_animation(noise("RGB", 1), tmp_path / "one.webp", 1.0)
    save_animation(noise("RGB", 30), tmp_path / "many.webp", 0.1)
    assert played(tmp_path / "many.webp")[1][:29] == [20] * 29


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    frames = noise("RGB", 2)
    with pytest.raises(InputError, match=r"'run.mp4'.*\.webp or \.gif"):
        save_animation(frames, tmp_path / "run.mp4", 1.0)
    with pytest.raises(ValueError, match="no frames"):
        save_animation([], tmp_path / "run.webp", 1.0)
    with pytest.raises(ValueError, match=r"\(17, 24\), \(18, 24\)"):
        save_animation([frames[0], Image.new("RGB", (18, 24))], tmp_path / "run.webp", 1.0)
    with pytest.raises(ValueError, match="0 seconds"):
        save_animation(frames, tmp_path / "run.webp", 0)
    assert not list(tmp_path.iterdir())
