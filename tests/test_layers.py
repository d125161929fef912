"""Layers: color and opacity that are laid on an image, which stays as it is where they are empty."""

import colorsys
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from pixel_things import BLOCK, LEMON, NAMES, SCORER, drawn
from tiny_models import tiny_first_stage, tiny_model
from torch import Tensor

from imagebart.core.errors import InputError
from imagebart.imaging.blending import fill
from imagebart.imaging.crop import Box, paste_back
from imagebart.imaging.files import to_images, to_layers
from imagebart.models.vqgan import NOTHING, FirstStage
from imagebart.pipeline import Edit, Pipeline
from imagebart.worlds.things import COLORS, recolored


def photograph(size: tuple[int, int], mode: str = "RGB", seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4), np.uint8)
    return Image.fromarray(pixels, "RGBA").convert(mode)


def half_empty(tokens: Tensor) -> Tensor:
    """A layer for any tokens: its left half is empty, then its opacity rises; red, all of which takes a color."""
    layers = torch.zeros(len(tokens), 5, 32, 32)
    layers[:, 3, :, 16:] = torch.linspace(0.2, 1, 16)
    layers[:, 0], layers[:, 4] = layers[:, 3], 1.0
    return layers


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    model = tiny_model(layers=True)
    monkeypatch.setattr(model.first_stage, "decode", half_empty)
    return Pipeline(model, scorer=SCORER)


def painted(size: tuple[int, int], box: Sequence[int]) -> Image.Image:
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).ellipse(tuple(box), 255)
    return mask


def test_nothing_is_exactly_nothing() -> None:
    torch.manual_seed(0)
    first = FirstStage(tiny_first_stage(decoder="alpha"))
    tokens = torch.randint(1, 24, (2, 64))
    torch.nn.init.normal_(first.decoder.conv_out.weight)
    assert (first.decode(tokens) != 0).any(1).all()
    tokens[:, 8:24] = NOTHING  # the second and third row of patches
    layers = first.decode(tokens)
    assert layers.shape == (2, 5, 32, 32)
    assert (layers[:, :, 4:12] == 0).all() and (layers[:, :, :4] != 0).any()


@pytest.mark.parametrize("color", ["red", "yellow", "green", "blue", "purple"])
def test_what_takes_a_color_has_its_hue_and_keeps_its_lightness(color: str) -> None:
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.uniform(0.1, 1, (1, 3, 8, 8))).float()
    ones = torch.ones(1, 1, 8, 8)
    (colored,) = recolored(torch.cat([pixels, ones, ones], 1), [color])
    expected = colorsys.rgb_to_hsv(*COLORS[color][0])[0]
    for before, after in zip(pixels[0].flatten(1).T.tolist(), colored[:3].flatten(1).T.tolist(), strict=True):
        hue, _, value = colorsys.rgb_to_hsv(*after)
        assert abs((hue - expected + 0.5) % 1 - 0.5) < 0.01
        assert value == pytest.approx(max(before) * COLORS[color][1] * max(COLORS[color][0]), abs=1e-5)


def test_a_color_is_that_of_opacity_too_and_leaves_what_takes_none() -> None:
    own = torch.rand(1, 3, 6, 6)
    opacity, paint = torch.rand(1, 1, 6, 6), (torch.rand(1, 1, 6, 6) > 0.5).float()
    whole = recolored(torch.cat([own, torch.ones(1, 1, 6, 6), paint], 1), ["blue"])
    thin = recolored(torch.cat([own * opacity, opacity, paint], 1), ["blue"])
    assert torch.allclose(thin[:, :3], whole[:, :3] * opacity, atol=1e-6) and torch.equal(thin[:, 3:], opacity)
    kept = (paint == 0).expand(-1, 3, -1, -1)
    assert torch.equal(whole[:, :3][kept], own[kept]) and not torch.allclose(whole[:, :3][~kept], own[~kept])
    assert torch.equal(recolored(torch.cat([own, opacity, paint], 1), [""]), torch.cat([own, opacity], 1))


@pytest.mark.parametrize("side", [32, 71])
def test_a_layer_is_laid_on_an_image_by_its_opacity(side: int) -> None:
    layers = torch.rand(1, 4, 32, 32)
    layers[:, :3] *= layers[:, 3:]
    layers[:, :, :, :10] = 0
    upload, box, all_of_it = photograph((90, 80)), Box(12, 5, side), Image.new("L", (90, 80), 255)
    result = np.asarray(paste_back(upload, to_layers(layers)[0], all_of_it, box), float)
    before = np.asarray(upload, float)
    empty = 12 + 7 * side // 32  # past what resampling reaches
    assert (result[:, :empty] == before[:, :empty]).all()
    if side == 32:
        inside, (layer,) = np.s_[5:37, 12:44], layers.permute(0, 2, 3, 1).double().numpy()
        expected = before.copy()
        expected[inside] = 255 * layer[..., :3] + before[inside] * (1 - layer[..., 3:])
        assert abs(result - expected).max() < 2
    assert (result[:, 12 + side :] == before[:, 12 + side :]).all() and (result != before).any()


def test_a_layer_on_transparent_ground_is_seen_as_far_as_it_is_opaque() -> None:
    layers = torch.zeros(1, 4, 32, 32)
    layers[:, 0, :, 16:], layers[:, 3, :, 16:] = 0.5, 0.5  # red, half opaque
    upload = Image.new("RGBA", (32, 32), (0, 0, 255, 0))
    upload.paste((0, 0, 255, 255), (0, 0, 32, 16))
    result = np.asarray(paste_back(upload, to_layers(layers)[0], Image.new("L", (32, 32), 255), Box(0, 0, 32)))
    assert (result[:, :16] == np.asarray(upload)[:, :16]).all()
    assert abs(result[:16, 16:].astype(int) - (128, 0, 128, 255)).max() <= 1  # over blue
    assert abs(result[16:, 16:].astype(int) - (255, 0, 0, 128)).max() <= 1  # over nothing


@pytest.mark.parametrize(("mode", "size"), [("RGB", (100, 80)), ("RGBA", (64, 300)), ("RGB", (700, 900))])
def test_the_image_stays_where_a_layer_is_empty_in_previews_too(
    pipe: Pipeline, mode: str, size: tuple[int, int]
) -> None:
    upload = photograph(size, mode)
    mask = painted(size, (10, 12, 50, 52))
    events = [*pipe.edit(upload, mask, "a green block", seed=3)]
    before = np.asarray(upload).astype(int)
    for event in events:
        changed = (np.asarray(event.image) != before).any(-1)
        assert (event.image.mode, event.image.size) == (mode, size)
        assert not changed[np.asarray(event.mask) == 0].any()
        left, top, right, bottom = event.mask.getbbox()
        columns = np.flatnonzero(changed.any(0))
        side = right - left
        empty = [columns < left + 0.42 * side, columns > right - 0.42 * side]  # mirrored or not
        assert changed.any() and (~empty[0]).all() != (~empty[1]).all()
        if mode == "RGB":  # what is nearly opaque is green
            green = np.asarray(event.image)[changed].astype(int)
            assert (green[:, 1] - green[:, [0, 2]].max(1) > 100).mean() > 0.15
    assert len(events) > 2 and events[-1].kind == "result"


def test_variants_are_mirrored_by_their_seed(pipe: Pipeline) -> None:
    upload, mask = photograph((64, 64)), painted((64, 64), (8, 8, 56, 56))
    *_, result = pipe.edit(upload, mask, "a block", seed=0, variants=8)
    changed = [np.flatnonzero((np.asarray(i) != np.asarray(upload)).any((0, 2))).mean() > 32 for i in result.images]
    assert True in changed and False in changed
    *_, again = pipe.edit(upload, mask, "a block", seed=0, variants=8)
    assert [i.tobytes() for i in result.images] == [i.tobytes() for i in again.images]


def test_what_is_removed_is_filled_with_its_ground_and_nothing_is_drawn(pipe: Pipeline) -> None:
    (upload,) = to_images(drawn([(BLOCK, "red", Box(1, 1, 4)), (LEMON, "", Box(5, 5, 2))])[None])
    mask = painted(upload.size, (14, 14, 34, 34))
    events = [*pipe.edit(upload, mask, remove=True, seed=0)]
    before, after = np.asarray(upload).astype(int), np.asarray(events[-1].image).astype(int)
    shown = np.asarray(events[-1].mask) > 0
    assert [event.kind for event in events] == ["start", "result"]
    assert (after[~shown] == before[~shown]).all() and abs(after[shown] - 250).max() <= 4
    assert shown[8:40, 8:40].all() and not shown[42:, 42:].any()
    (again,) = pipe.edit_batch([Edit(upload, mask, seed=0)], remove=True)
    assert again.image.tobytes() == events[-1].image.tobytes()


def test_a_thing_over_another_is_drawn_after_that_is_gone(pipe: Pipeline) -> None:
    def yellow(pixels: np.ndarray) -> np.ndarray:
        return pixels[..., :2].min(-1) > pixels[..., 2] + 60

    (upload,) = to_images(drawn([(LEMON, "", Box(2, 2, 4))])[None])
    *_, result = pipe.edit(upload, painted(upload.size, (18, 18, 46, 46)), "a red block", seed=0)
    pixels = np.asarray(result.image).astype(int)
    assert not yellow(pixels).any() and (pixels[..., 0] > pixels[..., 1] + 100).any()
    rough = np.asarray(upload, int) + np.where(np.arange(64)[:, None, None] % 2, 8, -8)
    photo = Image.fromarray(rough.clip(0, 255).astype(np.uint8))
    *_, result = pipe.edit(photo, painted(upload.size, (14, 12, 46, 38)), "a red block", seed=0)
    assert yellow(np.asarray(result.image, int)).any(), "it may be no drawing, and is not wholly covered"


def test_a_thing_that_is_named_is_drawn_in_place_of_the_one_that_is_there(pipe: Pipeline) -> None:
    (upload,) = to_images(drawn([(BLOCK, "red", Box(2, 2, 4))])[None])
    *_, result = pipe.edit(upload, None, "a green block", seed=0)
    pixels = np.asarray(result.image).astype(int)
    assert not (pixels[..., 0] > pixels[..., 1] + 60).any() and (pixels[..., 1] > pixels[..., 0] + 60).any()
    (full,) = to_images(drawn([(BLOCK, "red", Box(left, top, 4)) for left in (0, 4) for top in (0, 4)])[None])
    with pytest.raises(InputError, match='no room for "a lemon"'):
        pipe.edit(full, None, "a lemon")
    with pytest.raises(InputError, match="Without words there is no place"):
        pipe.edit(upload, None)
    dots = Image.new("L", (64, 64))
    for left in (0, 61):
        dots.paste(255, (left, 30, left + 3, 33))
    with pytest.raises(InputError, match="Nothing of it would be seen"):
        pipe.edit(Image.new("RGB", (64, 64)), dots, "a block", exact=True)


def test_nothing_changes_outside_of_what_is_painted_exactly(pipe: Pipeline) -> None:
    upload, mask = photograph((90, 70)), painted((90, 70), (20, 10, 70, 60))
    *_, result = pipe.edit(upload, mask, "a block", seed=1, exact=True)
    changed = (np.asarray(result.image) != np.asarray(upload)).any(-1)
    assert changed.any() and not changed[np.asarray(mask) == 0].any()


def test_a_removal_where_no_thing_is_known_fills_what_is_painted(pipe: Pipeline) -> None:
    upload, mask = Image.new("RGB", (80, 80), (10, 90, 200)), painted((80, 80), (20, 10, 60, 60))
    holed = upload.copy()
    holed.paste((200, 200, 0), (0, 0), mask)
    *_, result = pipe.edit(holed, mask, remove=True, seed=1)
    assert np.abs(np.asarray(result.image, int) - (10, 90, 200)).max() <= 4
    assert result.mask is not None and result.mask.tobytes() == mask.tobytes()


@pytest.mark.parametrize(
    ("words", "said"), [("a zebra", 'no thing in "a zebra"'), ("", "no thing that this model knows where you painted")]
)
def test_what_is_no_thing_is_a_sentence(pipe: Pipeline, words: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        pipe.edit(Image.new("RGB", (64, 64), "gray"), painted((64, 64), (8, 8, 56, 56)), words or None)
    with pytest.raises(InputError, match="no variations"):
        pipe.vary(Image.new("RGB", (64, 64), "gray"), 0.5)


def test_a_new_image_is_its_ground_and_layers_on_it(pipe: Pipeline) -> None:
    *_, result = pipe.generate("a green block, white wall, blue floor", seed=4)
    pixels = np.asarray(result.image).astype(int)
    assert (pixels[0, 0] == NAMES.grounds["white"]).all() and (pixels[-1, 0] == NAMES.grounds["blue"]).all()
    green = pixels[..., 1] - pixels[..., [0, 2]].max(-1) > 100
    assert green.any() and green.mean() < 0.3
    *_, empty = pipe.generate("blue background", seed=4)
    assert empty.image.getcolors() == [(empty.image.width * empty.image.height, NAMES.grounds["blue"])]


def test_filling_keeps_everything_else_and_goes_on_with_a_plain_ground() -> None:
    mask = painted((900, 700), (200, 100, 850, 600))
    for color in ((10, 200, 90), (250, 250, 250)):
        plain = Image.new("RGB", (900, 700), color)
        holed = plain.copy()
        holed.paste((255, 0, 0), (0, 0), mask)
        assert np.abs(np.asarray(fill(holed, mask), int) - color).max() <= 1
    noisy = photograph((900, 700), "RGBA")
    filled = np.asarray(fill(noisy, mask))
    outside = np.asarray(mask) == 0
    assert (filled[outside] == np.asarray(noisy)[outside]).all()
    assert (filled[..., 3] == np.asarray(noisy)[..., 3]).all()
    assert fill(noisy, Image.new("L", (900, 700))) is noisy
