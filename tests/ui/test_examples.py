"""Example pictures."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from imagebart.ui.examples import find_examples


def test_examples_come_in_order_with_captions(tmp_path: Path) -> None:
    for name in ("02-blue_hat.png", "01-red-curls.png", "7.png"):
        Image.new("RGBA", (8, 8), "red").save(tmp_path / name)
    (tmp_path / "note.txt").write_text("no picture")
    found = find_examples(tmp_path)
    assert [example.caption for example in found] == ["Red curls", "Blue hat", "7"]
    assert found[0].open().mode == "RGB"


def test_no_folder_means_no_examples(tmp_path: Path) -> None:
    assert find_examples(tmp_path / "missing") == []
