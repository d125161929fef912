"""The first look at a folder: what is used, what is left out and why, what is held back."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from image_folders import draw_folder
from PIL import Image

from imagebart.errors import InputError
from imagebart.training.data import DatasetReport, Example, ImageStore, inspect_dataset, open_dataset, split_held_out


def found(folder: Path) -> DatasetReport:
    return inspect_dataset(open_dataset(str(folder)), 32)


def test_captions_classes_and_bare_pictures(tmp_path: Path) -> None:
    captions = found(draw_folder(tmp_path / "text", "text"))
    assert captions.kind == "text" and captions.words["red"] == 8 and captions.words["a"] == 24
    classes = found(draw_folder(tmp_path / "class", "class"))
    assert classes.kind == "class" and dict(classes.texts) == {"red": 8, "green": 8, "blue": 8}
    assert found(draw_folder(tmp_path / "none", "none")).kind == "none"
    said = "\n".join(captions.lines())
    assert "24 pictures, 4 of them held back" in said and "captions of 6 different words" in said


def test_parts_called_train_and_test_are_no_classes(tmp_path: Path) -> None:
    draw_folder(tmp_path / "train", "none", 20)
    for i, path in enumerate(sorted((tmp_path / "train").iterdir())[:5]):
        (tmp_path / "test").mkdir(exist_ok=True)
        shutil.move(path, tmp_path / "test" / f"other{i}.png")
    looked = inspect_dataset(open_dataset(str(tmp_path)), 32, tmp_path / "store")
    pictures = ImageStore(tmp_path / "store").index
    assert looked.kind == "none" and looked.held_out == 5
    assert {pictures.names[i] for i in pictures.numbers(True)} == {f"test/other{i}.png" for i in range(5)}


def test_what_cannot_be_used_is_named_and_left_out(tmp_path: Path) -> None:
    draw_folder(tmp_path, "none")
    Image.new("RGB", (40_000, 10)).save(tmp_path / "long.png")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "broken.png").write_bytes((tmp_path / "1.png").read_bytes()[:120])
    frames = [Image.new("RGB", (50, 50), (0, 0, 80 * i)) for i in range(3)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    shutil.copy(tmp_path / "1.png", tmp_path / "again.png")
    Image.new("CMYK", (60, 60), (5, 100, 20, 3)).save(tmp_path / "printed.jpg")
    Image.fromarray(np.arange(3600, dtype=np.uint16).reshape(60, 60) * 18).save(tmp_path / "deep.png")
    looked = inspect_dataset(open_dataset(str(tmp_path)), 32, tmp_path / "store")
    assert sorted(looked.unusable) == ["broken.png", "empty.png", "long.png", "moving.gif"]
    assert "40,000 × 10" in looked.unusable["long.png"] and "animated" in looked.unusable["moving.gif"]
    ((first, second),) = looked.duplicates.items()
    assert {first, second} == {"1.png", "again.png"}
    names = ImageStore(tmp_path / "store").index.names
    assert {"printed.jpg", "deep.png"} <= set(names) and looked.count == 26


def test_captions_of_missing_pictures_are_named(tmp_path: Path) -> None:
    draw_folder(tmp_path, "text")
    with (tmp_path / "metadata.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"file_name": "nowhere.png", "text": "a ghost", "author": "nobody"}))
    looked = found(tmp_path)
    assert looked.unusable == {"nowhere.png": "is named by the captions, but there is no such file."}
    assert "ghost" not in looked.words


def test_what_holds_no_pictures_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        open_dataset(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="holds no pictures"):
        open_dataset(str(tmp_path))
    with pytest.raises(InputError, match="3 pictures .* at least 16"):
        found(draw_folder(tmp_path / "three", "none", 3))
    draw_folder(tmp_path / "text", "text")
    (tmp_path / "text" / "metadata.jsonl").write_text("{broken")
    with pytest.raises(InputError, match="metadata.jsonl each line"):
        open_dataset(str(tmp_path / "text"))


def test_one_in_twenty_is_held_back_whatever_the_order() -> None:
    rows = [Example(f"{i}.png", Path(), "", False, {}) for i in range(200)]
    held = split_held_out(rows)
    assert sum(held) == 10
    names = {row.name for row, one in zip(rows, held, strict=True) if one}
    back = split_held_out(rows[::-1])
    assert {row.name for row, one in zip(rows[::-1], back, strict=True) if one} == names


def test_where_all_pictures_are_called_test_most_are_trained_on() -> None:
    rows = [Example(f"{i}.png", Path(), "", True, {}) for i in range(200)]
    assert sum(split_held_out(rows)) == 10
    assert split_held_out([Example("a.png", Path(), "", False, {}), *rows[:3]]) == [False, True, True, True]


def test_no_more_are_held_back_than_are_needed() -> None:
    assert sum(split_held_out([Example(f"{i}.png", Path(), "", False, {}) for i in range(12_000)])) == 500
