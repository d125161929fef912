"""Pictures kept ready to train on, and views of them."""

from pathlib import Path

import pytest
import torch
from image_folders import draw_folder
from PIL import Image

from imagebart.training.data import AugmentedViews, ImageStore, inspect_dataset, open_dataset


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
    assert store.index.credits[number] == {"author": "painter 0"}


def test_views_are_the_same_whenever_asked_for_and_differ(store: ImageStore) -> None:
    views = AugmentedViews(store, store.index.numbers(False), 6)
    assert len(views) == 20 * 6
    assert torch.equal(views[70]["image"], views[70]["image"])
    first = [views[20 * view]["image"] for view in range(6)]
    assert len({tuple(image.flatten().tolist()) for image in first}) >= 4
    assert {views[20 * view]["text"] for view in range(6)} == {views[0]["text"]}
    assert not set(store.index.numbers(True)) & set(views.numbers)


def test_an_unfinished_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pictures that are ready"):
        ImageStore(tmp_path)


def test_crops_reach_from_one_edge_to_the_other(store: ImageStore) -> None:
    """Where the left and upper edges of 100 crops of a picture whose pixels are all different lie."""
    pixels = torch.arange(36 * 36 * 3, dtype=torch.int64).view(36, 36, 3)
    numbered = (pixels % 251).to(torch.uint8).numpy()
    store.pixels = numbered[None]  # type: ignore[assignment]
    places = set()
    for view in range(2, 202, 2):
        crop = store.view(0, view).permute(1, 2, 0).numpy()
        places |= {(y, x) for y in range(5) for x in range(5) if (numbered[y : y + 32, x : x + 32] == crop).all()}
    assert {y for y, _ in places} == {x for _, x in places} == set(range(5))
