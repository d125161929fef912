"""A run as a moving picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from imagebart.errors import InputError
from imagebart.images import flatten, save_image

FORMATS = {".webp": "WEBP", ".gif": "GIF"}
HOLD = 2.0  # seconds that the last frame stays longer
SHORTEST = 0.02  # seconds a frame; browsers slow down what is shorter


def animation_format(path: str | Path) -> str:
    """Pillow's name for the format of a .webp or .gif; raises InputError for another ending."""
    kind = FORMATS.get(Path(path).suffix.lower())
    if kind is None:
        raise InputError(f"An animation cannot be written to {Path(path).name!r}; end the name in .webp or .gif.")
    return kind


def save_animation(frames: Sequence[Image.Image], path: str | Path, seconds: float) -> None:
    """Writes frames ("RGB" or "RGBA", one size) as an endless .webp, lossless, or .gif, in 256 colours a frame.

    seconds: for all frames alike; the last one stays HOLD longer. A frame is shown SHORTEST at least. In a .gif
    transparent parts are white. Raises InputError for another ending, ValueError for frames that do not fit.
    """
    kind = animation_format(path)
    if not frames:
        raise ValueError("there are no frames, expected one or more")
    sizes = {frame.size for frame in frames}
    if len(sizes) > 1:
        raise ValueError(f"frames have sizes {sorted(sizes)}, expected one size")
    if not seconds > 0:
        raise ValueError(f"{seconds} seconds, expected more than 0")
    each = max(seconds / len(frames), SHORTEST)
    durations = [round(1000 * each)] * (len(frames) - 1) + [round(1000 * (each + HOLD))]
    if kind == "GIF":
        frames = [flatten(frame) for frame in frames]
    first, *rest = frames
    moving = {"save_all": True, "append_images": rest, "duration": durations, "loop": 0}
    save_image(first, path, format=kind, lossless=True, **moving)
