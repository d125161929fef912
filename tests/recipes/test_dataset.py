from __future__ import annotations

import numpy as np
import pytest
import torch

from recipes.avatars.artwork import REGIONS, background_mask, region_mask, render
from recipes.avatars.dataset import AvatarDataset, face_weight, sample


def test_items_are_reproducible_and_start_shifts_them() -> None:
    data, again, later = AvatarDataset(64), AvatarDataset(64), AvatarDataset(64, start=5)
    for index in range(10):
        item = data[index]
        assert item["image"].shape == (3, 64, 64) and item["image"].dtype == torch.uint8
        assert isinstance(item["text"], str) and item["text"]
        assert torch.equal(item["image"], again[index]["image"]) and item["text"] == again[index]["text"]
    assert torch.equal(data[7]["image"], later[2]["image"]) and data[7]["text"] == later[2]["text"]
    assert not torch.equal(AvatarDataset(64, seed=1)[0]["image"], data[0]["image"])


def test_length_bounds_the_index() -> None:
    data = AvatarDataset(8, length=3)
    assert len(data) == 3 and len(list(data)) == 3
    with pytest.raises(IndexError, match="not 3"):
        data[3]


def test_a_loader_batches_items() -> None:
    batch = next(iter(torch.utils.data.DataLoader(AvatarDataset(32, length=8), batch_size=4, num_workers=1)))
    assert batch["image"].shape == (4, 3, 32, 32) and len(batch["text"]) == 4


def test_face_weight_covers_what_eyes_and_mouths_change() -> None:
    weight = face_weight(128)
    assert weight.shape == (128, 128) and weight.min() == 0 and weight.max() == 1
    assert weight.mean() < 0.35
    for name, values in (
        ("eyes", ("hearts", "wide")),
        ("mouth", ("scream", "sad")),
        ("eyebrows", ("sad", "unibrow")),
    ):
        one, other = (render(_with(name, value), 128).astype(int) for value in values)
        changed = torch.from_numpy(np.abs(one - other).max(axis=2) > 30)
        assert weight[changed].min() > 0.6


@pytest.mark.parametrize(
    ("region", "name", "values", "least"),
    [
        ("eyes", "eyes", ("hearts", "rolling"), 0.99),
        ("eyes", "accessory", ("none", "round glasses"), 0.99),
        ("mouth", "mouth", ("scream", "vomit"), 0.99),
        ("chin", "facial_hair", ("none", "long beard"), 0.95),
        ("clothes", "clothing", ("hoodie", "overalls"), 0.95),
        ("hair", "top", ("wavy", "bald"), 0.85),
        ("background", "background", ("red", "blue"), 0.9),
    ],
)
def test_regions_cover_what_changes_there(region: str, name: str, values: tuple[str, str], least: float) -> None:
    one, other = (render(_with(name, value), 128).astype(int) for value in values)
    changed = np.abs(one - other).max(axis=2) > 30
    mask = region_mask(region, 128)
    assert mask.dtype == bool and mask.shape == (128, 128) and mask.mean() < 0.8
    assert mask[changed].mean() >= least


def test_background_of_one_avatar_is_exact() -> None:
    avatar = _with("top", "afro")
    mask = background_mask(avatar, 64)
    assert (np.abs(render(avatar, 64)[~mask].astype(int) - (0xFB, 0xE8, 0x92)).max(axis=1) > 3).all()
    assert mask[0, 0] and not mask[32, 32]


def test_unknown_regions_are_named() -> None:
    with pytest.raises(ValueError, match="'nose' is not a region"):
        region_mask("nose", 64)
    assert len(REGIONS) == 6


def _with(name: str, value: str):
    from dataclasses import replace

    from imagebart.avatars.attributes import PLAIN

    return replace(PLAIN, **{"background": "yellow", name: value})


def test_sample_is_offered_with_the_data() -> None:
    assert sample(3) == sample(3)
