"""Colors read inside masks: the same where renders are whole, others where two renders are put together."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from imagebart.imaging.masks import preset_array
from imagebart.worlds.attribute_classifier import load_classifier
from imagebart.worlds.avatars import PLAIN, VALUES, Attributes
from recipes.avatars import READER
from recipes.avatars.artwork import region_mask, rendered
from recipes.avatars.boundary_consistency import COLORS, SIDE, boundary_consistency, read_within, shows
from recipes.avatars.dataset import sample
from recipes.avatars.evaluation import SHARED

COUNT = 24
EVERYWHERE = np.ones((SIDE, SIDE), bool)


@pytest.fixture(scope="module")
def avatars() -> list[Attributes]:
    return [sample(i, 777, "all") for i in range(COUNT)]


@pytest.fixture(scope="module")
def others() -> list[Attributes]:
    return [sample(10**6 + i, 777, "all") for i in range(COUNT)]


def other_value(name: str, value: str, step: int) -> str:
    values = VALUES[name]
    return values[(values.index(value) + 1 + step % (len(values) - 1)) % len(values)]


def pasted(upper: list[Attributes], lower: list[Attributes], size: int = 128) -> Tensor:
    """The upper half of some avatars over the lower half of others."""
    return torch.where(torch.from_numpy(preset_array("upper half", size)), rendered(upper, size), rendered(lower, size))


def consistency(images: Tensor, lower: list[Attributes], names: tuple[str, ...] = SHARED) -> list[dict[str, bool]]:
    masks = np.stack([preset_array("upper half", images.shape[-1])] * len(lower))
    return boundary_consistency(
        images, masks, lower, load_classifier(READER).read(images).attributes, [names] * len(lower)
    )


@pytest.mark.parametrize(("size", "names"), [(128, COLORS), (256, SHARED), (64, SHARED)])
def test_whole_renders_are_consistent(avatars: list[Attributes], size: int, names: tuple[str, ...]) -> None:
    answers = consistency(rendered(avatars, size), avatars, names)
    assert all(set(SHARED) <= set(found) for found in answers)
    assert sum("hair_color" in found for found in answers) > 5 or names == SHARED
    assert all(all(found.values()) for found in answers)


def test_another_avatar_of_the_same_colors_is_consistent(avatars: list[Attributes], others: list[Attributes]) -> None:
    upper = [replace(o, skin=a.skin, background=a.background) for a, o in zip(avatars, others, strict=True)]
    answers = consistency(pasted(upper, avatars), avatars)
    assert sum(sum(found.values()) for found in answers) >= 2 * COUNT - 1


@pytest.mark.parametrize("name", SHARED)
@pytest.mark.parametrize("alike", [True, False])
def test_halves_of_different_colors_are_not_consistent(
    name: str, alike: bool, avatars: list[Attributes], others: list[Attributes]
) -> None:
    upper = [
        replace(a if alike else replace(o, skin=a.skin, background=a.background), **{name: other})
        for i, (a, o) in enumerate(zip(avatars, others, strict=True))
        for other in [other_value(name, getattr(a, name), i)]
    ]
    answers = consistency(pasted(upper, avatars), avatars)
    (same,) = set(SHARED) - {name}
    assert not any(found[name] for found in answers)
    assert sum(found[same] for found in answers) >= COUNT - 1


def test_a_band_of_another_skin_over_the_eyes_is_seen() -> None:
    mask = region_mask("eyes", 128)
    band = torch.where(torch.from_numpy(mask), rendered([replace(PLAIN, skin="dark")], 128), rendered([PLAIN], 128))
    assert boundary_consistency(band, mask[None], [PLAIN], [PLAIN], [SHARED]) == [{"skin": False, "background": True}]
    assert boundary_consistency(rendered([PLAIN], 128), mask[None], [PLAIN], [PLAIN], [["skin"]]) == [{"skin": True}]


def test_what_shows_on_one_side_only_is_left_out() -> None:
    images = rendered([replace(PLAIN, top="wavy", hair_color="red")], 128)
    upper = preset_array("upper half", 128)[None]
    wavy, short = replace(PLAIN, top="wavy", hair_color="black"), replace(PLAIN, hair_color="black")
    assert boundary_consistency(images, upper, [wavy], [wavy], [["hair_color"]]) == [{"hair_color": False}]
    assert boundary_consistency(images, upper, [short], [wavy], [["hair_color"]]) == [{}], "no hair outside"
    hat = replace(wavy, top="hat")
    assert boundary_consistency(images, upper, [wavy], [hat], [["hair_color"]]) == [{}], "a hat inside"
    assert not shows(PLAIN, "clothing_color", upper[0])


def test_the_reading_s_own_color_does_not_matter() -> None:
    image = ((rendered([PLAIN], SIDE)[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    for name in ("skin", "background", "hair_color", "clothing_color"):
        for value in VALUES[name]:
            reading = replace(PLAIN, **{name: value})
            assert read_within(image, EVERYWHERE, reading, name) == getattr(PLAIN, name)
    assert read_within(image, ~EVERYWHERE, PLAIN, "skin") is None
    assert read_within(image, EVERYWHERE, PLAIN, "hat_color") is None
