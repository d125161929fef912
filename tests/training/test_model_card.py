"""What a model of someone's own pictures says of itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from imagebart.training.data import PIXELS, ImageStore, StoreIndex, stored_side, write_index
from imagebart.training.train_model import EXAMPLES, write_examples
from imagebart.ui.examples import find_examples

TEXTS = ("red roses", "red roses", "dark roses", "green apples, dark background", "red apples", "green lime")


def test_examples_are_as_different_as_can_be(tmp_path: Path) -> None:
    """The last one was trained on, and is none of them."""
    held = (True, True, True, True, True, False)
    pictures = StoreIndex(32, "text", tuple("abcdef"), TEXTS, held, ({},) * 6)
    (tmp_path / PIXELS).write_bytes(np.zeros((6, stored_side(32), stored_side(32), 3), np.uint8).tobytes())
    write_index(tmp_path, pictures)
    write_examples(ImageStore(tmp_path), tmp_path)
    prompts = [example.prompt for example in find_examples(tmp_path / EXAMPLES)]
    assert prompts == ["green apples, dark background", "red roses", "red roses", "dark roses"]
