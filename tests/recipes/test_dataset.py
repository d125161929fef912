"""Avatars: rendered from attributes, by number, with the regions of their images."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from oracles import binomial_z

from imagebart.worlds.avatars import HAIR_TOPS, HAT_TOPS, PLAIN, SHOWING, VALUES
from recipes.avatars import artwork
from recipes.avatars.artwork import (
    BACKGROUNDS,
    background_mask,
    face_weight,
    part_svg,
    parts,
    rasterise,
    region_mask,
    render,
)
from recipes.avatars.dataset import NEW_BACKGROUND_SHARE, avatar_item, edit_item, sample
from recipes.training import Series


def changed(name: str, values: tuple[str, str], size: int = 128) -> np.ndarray:
    """Where two values of an attribute differ clearly: bool [size, size]."""
    one, other = (render(replace(PLAIN, **{"background": "yellow", name: value}), size).astype(int) for value in values)
    return np.abs(one - other).max(axis=2) > 30


def share(image: np.ndarray, color: str) -> float:
    """The share of pixels that have a color, up to rounding."""
    wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    return float((np.abs(image.astype(int) - wanted).max(axis=2) <= 3).mean())


def test_a_number_is_always_the_same_avatar() -> None:
    for number in range(10):
        item, again = avatar_item(number, 64), avatar_item(number, 64)
        assert item["image"].shape == (3, 64, 64) and item["image"].dtype == torch.uint8
        assert isinstance(item["text"], str) and item["text"]
        assert torch.equal(item["image"], again["image"]) and item["text"] == again["text"]
    assert not torch.equal(avatar_item(1, 64)["image"], avatar_item(0, 64)["image"]) and sample(0, 1) != sample(0)


def test_a_loader_batches_items() -> None:
    batch = next(iter(torch.utils.data.DataLoader(Series(partial(avatar_item, size=32)), batch_size=4, num_workers=1)))
    assert batch["image"].shape == (4, 3, 32, 32) and len(batch["text"]) == 4


def test_face_weight_covers_what_eyes_and_mouths_change() -> None:
    weight = face_weight(128)
    assert weight.shape == (128, 128) and weight.min() == 0 and weight.max() == 1
    assert weight.mean() < 0.35
    for name, values in (("eyes", ("hearts", "wide")), ("mouth", ("scream", "sad")), ("eyebrows", ("sad", "unibrow"))):
        assert weight[torch.from_numpy(changed(name, values))].min() > 0.6


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
    mask = region_mask(region, 128)
    assert mask.dtype == bool and mask.shape == (128, 128) and mask.mean() < 0.8
    assert mask[changed(name, values)].mean() >= least


def test_the_background_of_one_avatar_is_exact() -> None:
    avatar = replace(PLAIN, background="yellow", top="afro")
    mask = background_mask(avatar, 64)
    assert (np.abs(render(avatar, 64)[~mask].astype(int) - (0xFB, 0xE8, 0x92)).max(axis=1) > 3).all()
    assert mask[0, 0] and not mask[32, 32]


def test_images_are_square_bytes_of_any_size() -> None:
    for size in (1, 33, 128):
        image = render(PLAIN, size)
        assert image.shape == (size, size, 3) and image.dtype == np.uint8


def test_stacked_layers_are_what_the_rasteriser_makes_of_the_whole() -> None:
    for index in (1, 5, 8, 13):
        avatar = replace(sample(index), clothing_color="blue")
        stack = [part_svg(kind, name, color, 128) for kind, name, color in parts(avatar)]
        bodies = []
        for number, svg in enumerate(stack):  # parts reuse each other's ids, which one document cannot
            for before in (' id="', "url(#", 'href="#'):
                svg = svg.replace(before, f"{before}p{number}-")
            bodies.append(svg)
        opening = bodies[0][: bodies[0].index(">") + 1]
        ground = artwork.BACKGROUNDS[avatar.background]
        inner = "".join(body[body.index(">") + 1 : body.rindex("</svg>")] for body in bodies)
        whole = rasterise(f'{opening}<rect x="-9" y="-9" width="300" height="300" fill="{ground}"/>{inner}</svg>')
        difference = np.abs(render(avatar, 128).astype(int) - whole[..., :3])
        assert difference.max() <= 4 and difference.mean() < 0.2


@pytest.mark.parametrize("name", VALUES)
def test_every_pair_of_values_looks_different(name: str) -> None:
    for skin in ("fair", "dark"):
        base = replace(PLAIN, **{"skin": skin, **SHOWING.get(name, {})})
        images = [render(replace(base, **{name: value}), 128).astype(int) for value in VALUES[name]]
        for a, b in itertools.combinations(images, 2):
            assert (np.abs(a - b).max(axis=2) > 30).sum() >= 12


@pytest.mark.parametrize("top", HAIR_TOPS[1:])
def test_hair_has_its_color(top: str) -> None:
    for color, code in artwork.HAIR_COLORS.items():
        image = render(replace(PLAIN, top=top, hair_color=color), 128)
        assert share(image, code) > 0.01 or top == "wavy"
        other = render(replace(PLAIN, top=top, hair_color="blue" if color != "blue" else "red"), 128)
        assert (image != other).any(axis=2).mean() > 0.02


@pytest.mark.parametrize("top", HAT_TOPS)
def test_hats_have_the_hats_color_and_hide_the_hair(top: str) -> None:
    for color, code in artwork.FABRIC_COLORS.items():
        assert share(render(replace(PLAIN, top=top, hat_color=color), 128), code) > 0.03
    one, other = (render(replace(PLAIN, top=top, hair_color=color), 64) for color in ("pink", "black"))
    assert (one == other).all()


def test_clothes_skin_beards_and_backgrounds_have_their_colors() -> None:
    for clothing, (color, code) in itertools.product(VALUES["clothing"], artwork.FABRIC_COLORS.items()):
        assert share(render(replace(PLAIN, clothing=clothing, clothing_color=color), 128), code) > 0.03
    for color, code in artwork.SKINS.items():
        assert share(render(replace(PLAIN, skin=color), 128), code) > 0.08
    for color, code in artwork.BACKGROUNDS.items():
        assert share(render(replace(PLAIN, background=color), 128), code) > 0.3
    for kind, (color, code) in itertools.product(VALUES["facial_hair"][1:], artwork.HAIR_COLORS.items()):
        assert share(render(replace(PLAIN, facial_hair=kind, facial_hair_color=color), 128), code) > 0.003


def test_hidden_attributes_change_no_or_few_pixels_and_visible_ones_some() -> None:
    for index in range(25):
        avatar = sample(index)
        for name, values in VALUES.items():
            images = [render(replace(avatar, **{name: value}), 64).astype(int) for value in values]
            change = max((np.abs(images[0] - image).max(axis=2) > 30).sum() for image in images)
            if name in avatar.visible():
                assert change > 2, (index, name)
            elif name.endswith("_color") and name != "clothing_color":
                assert change == 0, (index, name)


def test_prints_show_on_every_shirt() -> None:
    for color in VALUES["clothing_color"]:
        shirt = replace(PLAIN, clothing="graphic", clothing_color=color)
        bear, skull = (render(replace(shirt, graphic=graphic), 128).astype(int) for graphic in ("bear", "skull"))
        assert (np.abs(bear - skull).max(axis=2) > 60).sum() > 40


def test_edits_show_another_background_where_the_mask_is_and_the_old_one_around_heads() -> None:
    count, new = 300, 0
    for number in range(count):
        edit, avatar = edit_item(number, 256), avatar_item(number, 256)
        mask = edit["mask"].repeat_interleave(4, 0).repeat_interleave(4, 1)
        assert mask.shape == (256, 256) and mask.any()
        changed = (edit["image"] != avatar["image"]).any(0)
        assert not (changed & ~mask).any()
        assert edit["needs_text"] == bool(changed.any()), "only the caption tells what the mask shows"
        if changed.any():
            new += 1
            corner = tuple(edit["image"][:, 0, 0].tolist())
            assert corner in {tuple(bytes.fromhex(color[1:])) for color in BACKGROUNDS.values()}
            assert edit["text"] and edit["text"] != avatar["text"]
        else:
            assert edit["text"] == avatar["text"]
    assert abs(binomial_z(new, count, NEW_BACKGROUND_SHARE)) < 4
    assert torch.equal(edit_item(7, 256)["mask"], edit_item(7, 256)["mask"]), "a number is always the same edit"
