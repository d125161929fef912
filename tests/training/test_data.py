"""Data sets: folders of images, their inspection, held-out images, stores and views of them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import HUES, draw_folder

from imagebart.core.errors import InputError
from imagebart.training.data import (
    MAX_VIEWS,
    AugmentedViews,
    Example,
    ImageStore,
    StoreIndex,
    inspect_dataset,
    open_dataset,
    split_held_out,
    stored_dataset,
)


def inspected(folder: Path) -> tuple[StoreIndex, str]:
    """What is known of a folder's images, and what is said of them."""
    said = inspect_dataset(open_dataset(str(folder)), 32, folder.parent / f"{folder.name} stored")
    return ImageStore(folder.parent / f"{folder.name} stored").index, "\n".join(said)


def test_captions_classes_and_bare_images(tmp_path: Path) -> None:
    captions, said = inspected(draw_folder(tmp_path / "text", "text"))
    assert captions.kind == "text" and captions.texts.count("a red circle") == 4
    assert "24 images, 4 of them held out" in said and "6 different words in captions, most frequent: a (24)" in said
    assert "short sides of 40 to 40 pixels, 40 in the middle" in said
    classes, said = inspected(draw_folder(tmp_path / "class", "class"))
    assert classes.kind == "class" and classes.texts.count("red") == 8 and "3 classes, most frequent: " in said
    assert inspected(draw_folder(tmp_path / "none", "none"))[0].kind == "none"


def test_parts_called_train_and_test_are_no_classes(tmp_path: Path) -> None:
    draw_folder(tmp_path / "data" / "train", "none", 20)
    (tmp_path / "data" / "test").mkdir()
    for i in range(5):
        shutil.move(tmp_path / "data" / "train" / f"{i}.png", tmp_path / "data" / "test" / f"other{i}.png")
    index, _ = inspected(tmp_path / "data")
    assert index.kind == "none"
    assert {index.names[i] for i in index.numbers(True)} == {f"test/other{i}.png" for i in range(5)}


def test_what_cannot_be_used_is_named_and_left_out(tmp_path: Path) -> None:
    data = draw_folder(tmp_path / "data", "text")
    Image.new("RGB", (40_000, 10)).save(data / "long.png")
    (data / "empty.png").write_bytes(b"")
    (data / "broken.png").write_bytes((data / "1.png").read_bytes()[:120])
    frames = [Image.new("RGB", (50, 50), (0, 0, 80 * i)) for i in range(3)]
    frames[0].save(data / "moving.gif", save_all=True, append_images=frames[1:])
    shutil.copy(data / "1.png", data / "again.png")
    Image.new("CMYK", (60, 60), (5, 100, 20, 3)).save(data / "printed.jpg")
    Image.fromarray(np.arange(3600, dtype=np.uint16).reshape(60, 60) * 18).save(data / "deep.png")
    bad, good = ("long.png", "empty.png", "broken.png", "moving.gif", "nowhere.png"), ("printed.jpg", "deep.png")
    with (data / "metadata.jsonl").open("a") as file:
        for name in (*bad, *good, "again.png"):
            file.write("\n" + json.dumps({"file_name": name, "text": "more", "author": "nobody"}))
    index, said = inspected(data)
    assert not set(bad) & set(index.names) and set(good) <= set(index.names)
    assert len({"1.png", "again.png"} & set(index.names)) == 1
    assert "6 left out:" in said and "  nowhere.png: " in said and len(index.names) == 26


def test_what_holds_no_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        open_dataset(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="holds no images"):
        open_dataset(str(tmp_path))
    with pytest.raises(InputError, match="3 images .* at least 16"):
        inspected(draw_folder(tmp_path / "three", "none", 3))
    draw_folder(tmp_path / "text", "text")
    (tmp_path / "text" / "metadata.jsonl").write_text("{broken")
    with pytest.raises(InputError, match="metadata.jsonl each line"):
        open_dataset(str(tmp_path / "text"))


def examples(count: int, is_test: bool = False) -> list[Example]:
    return [Example(f"{i}.png", Path(), "", is_test) for i in range(count)]


def test_one_in_twenty_is_held_out_whatever_the_order() -> None:
    there, back = examples(200), examples(200)[::-1]
    chosen, again = ({e.name for e, held in zip(es, split_held_out(es), strict=True) if held} for es in (there, back))
    assert chosen == again and len(chosen) == 10
    assert sum(split_held_out(examples(12_000))) == 500, "no more than are needed"


def test_a_split_called_test_is_held_out_unless_it_is_all_there_is() -> None:
    tests = examples(200, is_test=True)
    assert sum(split_held_out(tests)) == 10
    assert split_held_out([*examples(1), *tests[:3]]) == [False, True, True, True]


def test_a_folder_is_stored_once_and_what_is_not_held_out_has_views(tmp_path: Path) -> None:
    data = str(draw_folder(tmp_path / "data", "class"))
    first = stored_dataset(data, 32, tmp_path / "store")
    shutil.rmtree(data)
    for place in (data, str(tmp_path / "store")):  # a store can be named itself
        items = stored_dataset(place, 32, tmp_path / "store")
        assert len(items) == 20 * MAX_VIEWS and items.texts == first.texts and set(items.texts) == {*HUES}
    with pytest.raises(InputError, match="images of 32 pixels a side, expected 64"):
        stored_dataset(data, 64, tmp_path / "store")
    (tmp_path / "store" / "pixels.bin").write_bytes(b"cut")
    with pytest.raises(InputError, match="delete it to read the images again"):
        ImageStore(tmp_path / "store")
    with pytest.raises(InputError, match="images.json"):
        ImageStore(tmp_path)


def test_views_are_the_middle_that_mirrored_and_crops_and_the_same_each_time(tmp_path: Path) -> None:
    inspected(draw_folder(tmp_path / "data", "text"))
    store = ImageStore(tmp_path / "data stored")
    number = store.index.names.index("0.png")
    with Image.open(tmp_path / "data" / "0.png") as image:
        expected = image.convert("RGB").resize((36, 36), Image.Resampling.LANCZOS).crop((2, 2, 34, 34))
    middle = store.view(number, 0)
    assert Image.fromarray(middle.permute(1, 2, 0).numpy()).tobytes() == expected.tobytes()
    assert torch.equal(store.view(number, 1), middle.flip(2)) and store.index.texts[number] == "a red circle"
    views = AugmentedViews(store, store.index.numbers(held_out=False), 6)
    assert len(views) == 20 * 6 and not set(store.index.numbers(True)) & set(views.numbers)
    assert torch.equal(views[70]["image"], views[70]["image"])
    assert len({tuple(views[20 * view]["image"].flatten().tolist()) for view in range(6)}) >= 4
    assert {views[20 * view]["text"] for view in range(6)} == {views[0]["text"]}
