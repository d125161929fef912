"""Data sets: folders of images, their inspection, held-out images, stores and views of them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from image_folders import COLORS, draw_folder
from PIL import Image
from tiny_runs import write_store

from imagebart.core.errors import InputError
from imagebart.training.data import (
    MAX_VIEWS,
    AugmentedViews,
    Example,
    ImageStore,
    StoreIndex,
    grid,
    inspect_dataset,
    open_dataset,
    split_held_out,
    stored_dataset,
)


def test_grid_places_images_in_rows() -> None:
    images = torch.stack([torch.full((3, 4, 4), value) for value in (-1.0, 0.0, 1.0)])
    sheet = np.asarray(grid(images, columns=2))
    assert sheet.shape == (12, 12, 3)
    assert (sheet[1, 1, 0], sheet[1, 7, 0], sheet[7, 1, 0]) == (0, 128, 255)


def test_a_store_gives_what_is_not_held_out_in_all_its_views(tmp_path: Path) -> None:
    store = write_store(tmp_path, ("sky", "grass"), "text", held_out=1)
    items = stored_dataset(str(tmp_path), 32, tmp_path / "elsewhere")
    assert len(items) == MAX_VIEWS
    assert [items[i]["text"] for i in range(MAX_VIEWS)] == ["grass"] * MAX_VIEWS
    assert (items[0]["image"].permute(1, 2, 0).numpy() == store.pixels[1, 2:34, 2:34]).all()
    with pytest.raises(InputError, match="images of 32 pixels a side, expected 64"):
        stored_dataset(str(tmp_path), 64, tmp_path / "elsewhere")


def test_a_folder_is_stored_once(tmp_path: Path) -> None:
    data = str(draw_folder(tmp_path / "data", "class"))
    first = stored_dataset(data, 32, tmp_path / "store")
    shutil.rmtree(data)
    assert stored_dataset(data, 32, tmp_path / "store").texts == first.texts and set(first.texts) == {*COLORS}


def inspected(folder: Path) -> tuple[StoreIndex, str]:
    """What is known of a folder's images, and what is said of them."""
    lines = inspect_dataset(open_dataset(str(folder)), 32, folder.parent / "store")
    return ImageStore(folder.parent / "store").index, "\n".join(lines)


def test_captions_classes_and_bare_images(tmp_path: Path) -> None:
    captions, said = inspected(draw_folder(tmp_path / "text", "text"))
    assert captions.kind == "text" and captions.texts.count("a red circle") == 4
    assert "24 images, 4 of them held out" in said and "6 different words in captions, most frequent: a (24)" in said
    classes, said = inspected(draw_folder(tmp_path / "class", "class"))
    assert classes.kind == "class" and classes.texts.count("red") == 8 and "3 classes, most frequent: " in said
    assert inspected(draw_folder(tmp_path / "none", "none"))[0].kind == "none"


def test_parts_called_train_and_test_are_no_classes(tmp_path: Path) -> None:
    draw_folder(tmp_path / "train", "none", 20)
    for i, path in enumerate(sorted((tmp_path / "train").iterdir())[:5]):
        (tmp_path / "test").mkdir(exist_ok=True)
        shutil.move(path, tmp_path / "test" / f"other{i}.png")
    inspect_dataset(open_dataset(str(tmp_path)), 32, tmp_path / "store")
    index = ImageStore(tmp_path / "store").index
    assert index.kind == "none"
    assert {index.names[i] for i in index.numbers(True)} == {f"test/other{i}.png" for i in range(5)}


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
    said = "\n".join(inspect_dataset(open_dataset(str(tmp_path)), 32, tmp_path / "store"))
    names = set(ImageStore(tmp_path / "store").index.names)
    assert not names & {"broken.png", "empty.png", "long.png", "moving.gif"}
    assert len({"1.png", "again.png"} & names) == 1
    assert "5 left out:" in said and len(names) == 26
    assert {"printed.jpg", "deep.png"} <= names


def test_captions_of_missing_images_are_named(tmp_path: Path) -> None:
    draw_folder(tmp_path / "data", "text")
    with (tmp_path / "data" / "metadata.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"file_name": "nowhere.png", "text": "a ghost", "author": "nobody"}))
    index, said = inspected(tmp_path / "data")
    assert "1 left out:" in said and "  nowhere.png: " in said and "a ghost" not in index.texts


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
    names = [
        {e.name for e, held in zip(order, split_held_out(order), strict=True) if held}
        for order in (examples(200), examples(200)[::-1])
    ]
    assert names[0] == names[1] and len(names[0]) == 10
    assert sum(split_held_out(examples(12_000))) == 500, "no more than are needed"


def test_a_split_called_test_is_held_out_unless_it_is_all_there_is() -> None:
    tests = examples(200, is_test=True)
    assert sum(split_held_out(tests)) == 10
    assert split_held_out([*examples(1), *tests[:3]]) == [False, True, True, True]


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    inspect_dataset(open_dataset(str(draw_folder(tmp_path / "data", "text"))), 32, tmp_path / "store")
    return ImageStore(tmp_path / "store")


def test_the_middle_is_what_is_in_the_file(store: ImageStore, tmp_path: Path) -> None:
    number = store.index.names.index("0.png")
    with Image.open(tmp_path / "data" / "0.png") as image:
        expected = image.convert("RGB").resize((36, 36), Image.Resampling.LANCZOS).crop((2, 2, 34, 34))
    view = store.view(number, 0)
    assert Image.fromarray(view.permute(1, 2, 0).numpy()).tobytes() == expected.tobytes()
    assert torch.equal(store.view(number, 1), view.flip(2))
    assert store.index.texts[number] == "a red circle"


def test_views_are_the_same_whenever_asked_for_and_differ(store: ImageStore) -> None:
    views = AugmentedViews(store, store.index.numbers(held_out=False), 6)
    assert len(views) == 20 * 6
    assert torch.equal(views[70]["image"], views[70]["image"])
    first = [views[20 * view]["image"] for view in range(6)]
    assert len({tuple(image.flatten().tolist()) for image in first}) >= 4
    assert {views[20 * view]["text"] for view in range(6)} == {views[0]["text"]}
    assert not set(store.index.numbers(True)) & set(views.numbers)


def test_an_unfinished_or_cut_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="images.json"):
        ImageStore(tmp_path)
    write_store(tmp_path, ("sky",))
    (tmp_path / "pixels.bin").write_bytes(b"cut")
    with pytest.raises(InputError, match="delete it to read the images again"):
        ImageStore(tmp_path)


def test_crops_reach_from_one_edge_to_the_other(store: ImageStore) -> None:
    """Where the left and upper edges of 100 crops of an image whose pixels are all different lie."""
    pixels = torch.arange(36 * 36 * 3, dtype=torch.int64).view(36, 36, 3)
    numbered = (pixels % 251).to(torch.uint8).numpy()
    store.pixels = numbered[None]  # type: ignore[assignment]
    places = set()
    for view in range(2, 202, 2):
        crop = store.view(0, view).permute(1, 2, 0).numpy()
        places |= {(y, x) for y in range(5) for x in range(5) if (numbered[y : y + 32, x : x + 32] == crop).all()}
    assert {y for y, _ in places} == {x for _, x in places} == set(range(5))
