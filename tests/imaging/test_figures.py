"""Contact sheets, measured by their pixels."""

from __future__ import annotations

import numpy as np
from PIL import Image

from imagebart.imaging.figures import CAPTION, LABEL, sheet


def test_images_stand_in_rows_with_names_and_captions() -> None:
    colours = ("red", "lime", "blue")
    rows = [[Image.new("RGB", (20, 20), colour) for colour in colours], [Image.new("RGB", (10, 10), "red")]]
    page = np.asarray(sheet(rows, 20, names=("one", "two"), captions=(("over all three",), ("x",))))
    assert page.shape == (2 * (24 + CAPTION), LABEL + 3 * 24, 3)
    pixels = {"red": (255, 0, 0), "lime": (0, 255, 0), "blue": (0, 0, 255)}
    for i, colour in enumerate(colours):
        left = LABEL + 24 * i
        assert (page[2:22, left + 2 : left + 22] == pixels[colour]).all()
        assert (page[2:22, left : left + 2] == 255).all()
    second = page[24 + CAPTION :, LABEL:]
    assert (second[2:22, 2:22] == pixels["red"]).all(), "enlarged"
    assert (second[:24, 24:] == 255).all(), "no more images there"
    assert (page[:24, :LABEL] != 255).any() and (page[23 : 24 + CAPTION - 1, LABEL:] != 255).any()


def test_fewer_captions_than_images_stand_under_as_many_each() -> None:
    row = [Image.new("RGB", (20, 20), "white")] * 4
    page = np.asarray(sheet([row], 20, margin=2, captions=(("l", "l"),)))
    marked = np.flatnonzero((page < 255).any((0, 2)))
    assert [int(part[0]) // 48 for part in np.split(marked, np.flatnonzero(np.diff(marked) > 5) + 1)] == [0, 1]
    assert marked.max() - marked.min() >= 40


def test_without_words_there_is_no_room_for_them() -> None:
    assert sheet([[Image.new("RGB", (8, 8))] * 2], 8, margin=1).size == (20, 10)
