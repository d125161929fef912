"""Example images."""

from __future__ import annotations

import json
from pathlib import Path

from page_values import open_image
from PIL import Image

from imagebart.text.conditioners import TextConditioner
from imagebart.ui.examples import find_examples
from imagebart.ui.sketchpad.component import unpack_mask

ROOT = Path(__file__).resolve().parents[2]


def test_examples_come_in_order_with_captions(tmp_path: Path) -> None:
    for name in ("02-blue_hat.png", "01-red-curls.png", "7.png"):
        Image.new("RGBA", (16, 16), "red").save(tmp_path / name)
    (tmp_path / "note.txt").write_text("no image")
    found = find_examples(tmp_path)
    assert [example.caption for example in found] == ["Red curls", "Blue hat", "7"]
    assert found[0].open().mode == "RGB"


def test_an_example_brings_a_mask_and_a_prompt_and_keeps_its_names(tmp_path: Path, own_files: None) -> None:
    Image.new("RGB", (32, 24), "blue").save(tmp_path / "1-sea.png")
    mask = Image.new("L", (32, 24))
    mask.paste(255, (0, 0, 16, 24))
    mask.save(tmp_path / "1-sea.mask.png")
    (tmp_path / "1-sea.txt").write_text("a boat\n", encoding="utf-8")
    (example,) = find_examples(tmp_path)
    assert example.prompt == "a boat" and example.caption == "Sea: a boat"
    assert example.mask().tobytes() == mask.tobytes()
    shown = example.thumbnail()
    assert shown.getpixel((24, 12)) == (0, 0, 255) != shown.getpixel((1, 12))
    published = example.publish()
    assert published == example.publish() and (published["prompt"], published["caption"]) == ("a boat", "Sea: a boat")
    assert unpack_mask(published["mask"], (32, 24)).tobytes() == mask.tobytes()
    assert open_image(published["image"]["path"]).tobytes() == example.open().tobytes()
    assert open_image(published["small"]).convert("RGB").tobytes() == shown.tobytes()


def test_what_is_shown_is_what_was_checked_whatever_lies_there_later(tmp_path: Path, own_files: None) -> None:
    secret = tmp_path / "of-this-machine"
    Image.new("RGB", (32, 24), "red").save(secret, "PNG")
    path = tmp_path / "examples" / "1-sea.png"
    path.parent.mkdir()
    Image.new("RGB", (32, 24), "blue").save(path)
    (example,) = find_examples(path.parent)
    path.unlink()
    path.symlink_to(secret)
    published = example.publish()
    for shown in (published["image"]["path"], published["image"]["view"], published["small"]):
        assert open_image(shown).getpixel((0, 0)) == (0, 0, 255)


def test_an_example_without_a_mask_shows_itself(tmp_path: Path) -> None:
    Image.new("RGB", (32, 24), "blue").save(tmp_path / "1-sea.png")
    (example,) = find_examples(tmp_path)
    assert example.mask() is None and example.thumbnail() == example.open()


def test_the_shipped_examples_are_six_to_eight_triples_whose_words_the_model_knows() -> None:
    examples = find_examples(ROOT / "checkpoints" / "avatars" / "examples")
    known = json.loads((ROOT / "checkpoints" / "avatars" / "config.json").read_text(encoding="utf-8"))
    words = TextConditioner(
        tokens=tuple(known["conditioner"]["tokens"]),
        words=tuple(known["conditioner"]["words"]),
        length=known["conditioner"]["length"],
    )
    assert 6 <= len(examples) <= 8
    for example in examples:
        mask = example.mask()
        assert mask is not None and mask.size == example.open().size and mask.getbbox()
        assert example.prompt and words.unknown_words(example.prompt) == []


def test_no_folder_means_no_examples(tmp_path: Path) -> None:
    assert find_examples(tmp_path / "missing") == []
