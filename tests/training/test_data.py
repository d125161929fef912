"""Folders of images in imagefolder layout."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imagebart.training.data import (
    MAX_VIEWS,
    PIXELS,
    ImageFolder,
    StoreIndex,
    dataset_for,
    grid,
    stored_side,
    write_index,
)


def picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def test_captions_come_from_metadata(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (255, 0, 0))
    picture(tmp_path / "b.png", (0, 255, 0))
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "b.png", "text": "grass"}) + "\n\n")
    items = ImageFolder(tmp_path, 16)
    assert [item["text"] for item in (items[0], items[1])] == ["", "grass"]
    assert items[1]["image"].shape == (3, 16, 16)
    assert items[1]["image"].dtype == torch.uint8
    assert items[1]["image"].flatten(1).unique(dim=1).flatten().tolist() == [0, 255, 0]


def test_subfolders_are_classes(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "1.png", (1, 2, 3))
    picture(tmp_path / "dog" / "1.jpg", (1, 2, 3))
    assert ImageFolder(tmp_path, 16).texts == ["cat", "dog"]


def test_centre_square_is_taken(tmp_path: Path) -> None:
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 200
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert (ImageFolder(tmp_path, 10)[0]["image"] == 200).all()


@pytest.mark.parametrize(("line", "named"), [("{broken", "line 1"), ('{"text": "x"}', "file_name"), ("[1]", "line 1")])
def test_bad_metadata_names_the_line(tmp_path: Path, line: str, named: str) -> None:
    picture(tmp_path / "a.png", (0, 0, 0))
    (tmp_path / "metadata.jsonl").write_text(line)
    with pytest.raises(ValueError, match=named):
        ImageFolder(tmp_path, 16)


def test_no_folder_and_no_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no folder"):
        dataset_for(str(tmp_path / "nowhere"), 16)
    with pytest.raises(ValueError, match="no images"):
        dataset_for(str(tmp_path), 16)


def test_grid_places_pictures_in_rows() -> None:
    images = torch.stack([torch.full((3, 4, 4), value) for value in (-1.0, 0.0, 1.0)])
    sheet = np.asarray(grid(images, columns=2))
    assert sheet.shape == (10, 10, 3)
    assert (sheet[0, 0, 0], sheet[0, 6, 0], sheet[6, 0, 0]) == (0, 128, 255)


def test_a_store_gives_what_is_not_held_back_in_all_its_views(tmp_path: Path) -> None:
    pictures = StoreIndex(32, "text", ("a", "b"), ("grass", "sky"), (False, True), ({}, {}))
    pixels = np.random.default_rng(0).integers(0, 256, (2, stored_side(32), stored_side(32), 3), np.uint8)
    (tmp_path / PIXELS).write_bytes(pixels.tobytes())
    write_index(tmp_path, pictures)
    items = dataset_for(str(tmp_path), 32)
    assert len(items) == MAX_VIEWS  # type: ignore[arg-type]
    assert [items[i]["text"] for i in range(MAX_VIEWS)] == ["grass"] * MAX_VIEWS
    assert (items[0]["image"].permute(1, 2, 0).numpy() == pixels[0, 2:34, 2:34]).all()
    with pytest.raises(ValueError, match="pictures of 32 pixels a side, expected 64"):
        dataset_for(str(tmp_path), 64)
