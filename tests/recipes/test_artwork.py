from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from imagebart.avatars.attributes import HAIR_TOPS, HAT_TOPS, PLAIN, SHOWING, VALUES, Attributes
from recipes.avatars import artwork
from recipes.avatars.artwork import part_svg, parts, rasterise, render
from recipes.avatars.dataset import sample


def share(picture: np.ndarray, colour: str) -> float:
    """The share of pixels that have a colour, up to rounding."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return float((np.abs(picture.astype(int) - wanted).max(axis=2) <= 3).mean())


def with_ids_of_its_own(svg: str, prefix: str) -> str:
    """Parts reuse each other's ids, which one document cannot."""
    for before in (' id="', "url(#", 'href="#'):
        svg = svg.replace(before, before + prefix)
    return svg


def test_pictures_are_square_bytes_of_any_size() -> None:
    for size in (1, 33, 128):
        picture = render(PLAIN, size)
        assert picture.shape == (size, size, 3) and picture.dtype == np.uint8
    with pytest.raises(ValueError, match="not 0"):
        render(PLAIN, 0)


def test_layers_stack_to_what_the_rasteriser_draws_at_once() -> None:
    for index in (1, 5, 8, 13):
        avatar = replace(sample(index), clothing_colour="blue")
        stack = [part_svg(kind, name, colour, 128) for kind, name, colour in parts(avatar)]
        bodies = [with_ids_of_its_own(svg, f"p{number}-") for number, svg in enumerate(stack)]
        opening = bodies[0][: bodies[0].index(">") + 1]
        ground = artwork.BACKGROUNDS[avatar.background]
        inner = "".join(body[body.index(">") + 1 : body.rindex("</svg>")] for body in bodies)
        whole = rasterise(f'{opening}<rect x="-9" y="-9" width="300" height="300" fill="{ground}"/>{inner}</svg>')
        difference = np.abs(render(avatar, 128).astype(int) - whole[..., :3])
        assert difference.max() <= 4 and difference.mean() < 0.2


@pytest.mark.parametrize("name", VALUES)
def test_every_pair_of_values_looks_different(name: str) -> None:
    for skin in ("fair", "dark"):
        base = {**PLAIN.as_dict(), "skin": skin, **SHOWING.get(name, {})}
        pictures = [render(Attributes(**{**base, name: value}), 128).astype(int) for value in VALUES[name]]
        for a, b in itertools.combinations(pictures, 2):
            assert (np.abs(a - b).max(axis=2) > 30).sum() >= 12


@pytest.mark.parametrize("top", HAIR_TOPS[1:])
def test_hair_has_its_colour(top: str) -> None:
    for colour, code in artwork.HAIR_COLOURS.items():
        other = "blue" if colour != "blue" else "red"
        assert share(render(replace(PLAIN, top=top, hair_colour=colour), 128), code) > 0.01 or top == "wavy"
        changed = render(replace(PLAIN, top=top, hair_colour=other), 128)
        assert (render(replace(PLAIN, top=top, hair_colour=colour), 128) != changed).any(axis=2).mean() > 0.02


@pytest.mark.parametrize("top", HAT_TOPS)
def test_hats_have_the_hats_colour_and_hide_the_hair(top: str) -> None:
    for colour, code in artwork.FABRIC_COLOURS.items():
        assert share(render(replace(PLAIN, top=top, hat_colour=colour), 128), code) > 0.03
    one, other = (render(replace(PLAIN, top=top, hair_colour=colour), 64) for colour in ("pink", "black"))
    assert (one == other).all()


def test_clothes_skin_beards_and_grounds_have_their_colours() -> None:
    for clothing, (colour, code) in itertools.product(VALUES["clothing"], artwork.FABRIC_COLOURS.items()):
        assert share(render(replace(PLAIN, clothing=clothing, clothing_colour=colour), 128), code) > 0.03
    for colour, code in artwork.SKINS.items():
        assert share(render(replace(PLAIN, skin=colour), 128), code) > 0.08
    for colour, code in artwork.BACKGROUNDS.items():
        assert share(render(replace(PLAIN, background=colour), 128), code) > 0.3
    for kind, (colour, code) in itertools.product(VALUES["facial_hair"][1:], artwork.HAIR_COLOURS.items()):
        assert share(render(replace(PLAIN, facial_hair=kind, facial_hair_colour=colour), 128), code) > 0.003


def test_what_is_not_visible_changes_no_or_few_pixels_and_what_is_changes_some() -> None:
    for index in range(60):
        avatar = sample(index)
        for name, values in VALUES.items():
            pictures = [render(replace(avatar, **{name: value}), 96).astype(int) for value in values]
            change = max((np.abs(pictures[0] - picture).max(axis=2) > 30).sum() for picture in pictures)
            if name in avatar.visible():
                assert change > 5, (index, name)
            elif name.endswith("_colour") and name != "clothing_colour":
                assert change == 0, (index, name)


def test_prints_show_on_every_shirt() -> None:
    for colour in VALUES["clothing_colour"]:
        shirt = replace(PLAIN, clothing="graphic", clothing_colour=colour)
        bear, skull = (render(replace(shirt, graphic=graphic), 128).astype(int) for graphic in ("bear", "skull"))
        assert (np.abs(bear - skull).max(axis=2) > 60).sum() > 40
