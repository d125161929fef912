"""Masks as text: there and back, and what is no mask."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from imagebart.errors import InputError
from imagebart.imaging.masks import preset
from imagebart.ui.sketchpad.stored_images import pack, unpack


def test_a_mask_comes_back_as_it_was() -> None:
    soft = Image.fromarray(np.random.default_rng(0).integers(0, 256, (13, 29), np.uint8))
    for mask in (soft, preset("border", (29, 13)), preset("everything", (29, 13)), Image.new("L", (29, 13))):
        assert unpack(pack(mask), (29, 13)).tobytes() == mask.tobytes()


def test_an_empty_mask_is_no_text_and_a_full_one_is_short() -> None:
    assert pack(Image.new("L", (1024, 1024))) == ""
    assert pack(Image.new("L", (1024, 1024), 255)) == f"255 {1024 * 1024}"


@pytest.mark.parametrize(
    "text",
    [
        "255",
        "255 11",
        "256 12",
        "-1 12",
        "a b",
        "1.5 12",
        "0 0 0 12",
        f"0 {2**62} 0 {2**62} 0 {2**62} 0 {2**62 + 12}",
        "9" * 40,
    ],
)
def test_what_is_no_mask_of_this_size_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="load the page again"):
        unpack(text, (4, 3))


def test_a_text_longer_than_any_mask_is_refused_unread() -> None:
    noise = Image.fromarray(np.tile(np.array([[255, 254]], np.uint8), (64, 32)))
    assert unpack(pack(noise), noise.size).tobytes() == noise.tobytes()  # the longest of this size
    tracemalloc.start()
    text = "255 1 " * 1_000_000
    before = tracemalloc.get_traced_memory()[0]
    with pytest.raises(InputError, match="another picture"):
        unpack(text, (64, 64))
    taken = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert taken < 1_000_000
