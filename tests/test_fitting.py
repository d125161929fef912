"""What an edit changes: whole patches, the place that the words need, squares for things."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from fake_models import HAT_TOKENS, FixedDescriber, LightnessScorer, hat_model
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from tiny_models import TOKENS, tiny_model, tiny_pipeline, tiny_staged_model
from torch import Tensor

from imagebart import ImageBART, InputError, Pipeline
from imagebart.fitting import COMPLETE_PROMPT_GUIDANCE, MIN_COVERAGE, MIN_SIDE, shape_of, square, squares_in
from imagebart.imaging.masks import preset
from imagebart.sampling.inpainting import NEIGHBOR_WEIGHT, THRESHOLD, distances, threshold

CELL, GRID, SIZE = 4, 8, 32  # of the tiny model
PIPE = tiny_pipeline()
HAT = Pipeline(hat_model(), scorer=FixedDescriber("red hair", "red hair"))
GRAY = Image.new("RGB", (SIZE, SIZE), "gray")


def painted(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (SIZE, SIZE), value: int = 255) -> Image.Image:
    """Left, top, right and bottom of what is painted, the last two exclusive."""
    mask = Image.new("L", size)
    for box in boxes:
        mask.paste(value, box)
    return mask


def patches(mask: Image.Image) -> np.ndarray:
    """A mask of whole patches as these: its values [GRID, GRID]."""
    values = np.asarray(mask)
    side = mask.width // GRID
    first = values[::side, ::side]
    assert (values == first.repeat(side, 0).repeat(side, 1)).all()
    return first


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_a_patch_that_is_painted_by_a_tenth_is_regenerated_whole(seed: int) -> None:
    random = np.random.default_rng(seed)
    mask = np.where(random.random((SIZE, SIZE)) < random.choice([0.01, 0.1, 0.5]), np.uint8(255), np.uint8(0))
    mask[tuple(random.integers(0, SIZE, 2))] = 255
    share = (mask > 0).reshape(GRID, CELL, GRID, CELL).mean((1, 3))
    expected = share >= min(MIN_COVERAGE, share.max())
    fitted = PIPE.fit_mask(GRAY, Image.fromarray(mask))
    assert ((patches(fitted.mask) > 0) == expected).all()
    assert PIPE.fit_mask(GRAY, fitted.mask).mask.tobytes() == fitted.mask.tobytes(), "what is shown is what runs"
    assert next(PIPE.edit(GRAY, Image.fromarray(mask), seed=0)).total == expected.sum()


def test_a_soft_brush_keeps_its_strengths_the_largest_of_each_patch() -> None:
    mask = painted((0, 0, 9, 8), value=90)
    mask.paste(120, (0, 0, 2, 2))
    expected = np.zeros((GRID, GRID), np.uint8)
    expected[:2, :3] = 90
    expected[0, 0] = 120
    assert (patches(PIPE.fit_mask(GRAY, mask).mask) == expected).all()


@pytest.mark.parametrize("size", [(300, 40), (40, 800), (33, 47), (16, 16)])
def test_at_least_one_patch_changes_whatever_is_painted(size: tuple[int, int]) -> None:
    for x, y in ((0, 0), (size[0] - 1, size[1] - 1)):
        mask = painted((x, y, x + 1, y + 1), size=size)
        assert PIPE.fit_mask(Image.new("RGB", size), mask, "red hair").mask.getbbox()


def test_the_place_of_the_words_joins_what_is_painted_where_both_touch() -> None:
    hat = HAT_TOKENS.numpy()
    for box, joined in (((8, 8, 16, 20), True), ((8, 12, 16, 20), True), ((8, 16, 16, 24), False)):
        mask = painted(box)
        own = np.asarray(mask)[::CELL, ::CELL] > 0
        fitted, moved = (HAT.fit_mask(GRAY, mask, "a hat", movable=movable) for movable in (False, True))
        assert ((patches(fitted.mask) > 0) == (own | hat if joined else own)).all()
        assert ((patches(moved.mask) > 0) == (own | hat if joined else hat)).all() and not moved.notes
        assert fitted.passes[0].prompt == "a hat, red hair", "completed by what else the image shows"
        assert bool(fitted.notes) == (not joined)
        assert (fitted.elsewhere and fitted.elsewhere.tobytes()) == (None if joined else moved.mask.tobytes())


def test_nothing_painted_means_the_place_of_the_words() -> None:
    for mask in (None, painted()):
        assert ((patches(HAT.fit_mask(GRAY, mask, "a hat").mask) > 0) == HAT_TOKENS.numpy()).all()
        with pytest.raises(InputError):
            HAT.fit_mask(GRAY, mask, None)


def test_exact_changes_what_is_painted_alone_and_takes_the_words_as_they_are() -> None:
    mask = painted((5, 9, 22, 15))
    fitted = HAT.fit_mask(GRAY, mask, "a hat", exact=True)
    assert fitted.mask.tobytes() == mask.tobytes() and fitted.passes[0].prompt == "a hat"
    of_class = tiny_pipeline("class").fit_mask(GRAY, mask, "dog")
    assert of_class.passes[0].prompt == "dog" and (patches(of_class.mask) > 0).sum() == 10


# Squares for things.


@given(st.floats(-50, 500), st.floats(-50, 500), st.floats(0, 700), st.integers(24, 400), st.integers(24, 400))
@settings(deadline=None)
def test_a_square_lies_inside_the_image_where_it_can(x: float, y: float, side: float, width: int, height: int) -> None:
    box = square(x, y, side, (width, height))
    assert box.side >= MIN_SIDE and box.side % 2 == 0 and box.side <= max(min(width, height), MIN_SIDE)
    assert 0 <= box.left <= width - box.side and 0 <= box.top <= height - box.side


def test_a_square_is_as_large_as_the_box_around_a_stroke_with_gaps() -> None:
    mask, dot = Image.new("L", (200, 200)), Image.new("L", (20_000, 20))
    ImageDraw.Draw(mask).line([(60, 60), (120, 60), (60, 90), (120, 90), (60, 120), (120, 120)], 255, 8)
    left, top, right, bottom = mask.getbbox() or (0, 0, 0, 0)
    side = math.sqrt((right - left) * (bottom - top))
    assert shape_of(mask) == (pytest.approx(90, abs=3), pytest.approx(90, abs=3), pytest.approx(side))
    large = shape_of(mask.resize((2000, 2000), Image.Resampling.NEAREST))
    assert [length / 10 for length in large] == pytest.approx(shape_of(mask), abs=1)
    dot.putpixel((12_345, 7), 1)
    assert abs(shape_of(dot)[0] - 12_345) < 40, "the thinnest stroke on the largest image is not lost"


def test_several_things_lie_side_by_side_or_in_a_part_of_the_mask_each() -> None:
    wide, high, even, parts = [(20, 50, 180, 100)], [(50, 20, 100, 180)], [(20, 20, 120, 120)], [(120, 20, 160, 60)]
    for boxes, count, relation, centers in (
        (wide, 2, "", [(60, 75), (140, 75)]),
        (high, 3, "", [(75, 47), (75, 100), (75, 153)]),
        (even, 4, "", [(45, 45), (95, 45), (45, 95), (95, 95)]),
        (even, 2, "above", [(70, 45), (70, 95)]),
        (even, 2, "below", [(70, 95), (70, 45)]),
        (even, 2, "right", [(95, 70), (45, 70)]),
        ([*parts, (20, 100, 80, 160)], 2, "", [(50, 130), (140, 40)]),
    ):
        found = squares_in(painted(*boxes, size=(200, 200)), count, relation)
        for box, (x, y) in zip(found, centers, strict=True):
            assert abs(box.left + box.side / 2 - x) <= 1 and abs(box.top + box.side / 2 - y) <= 1


def test_a_scorer_says_where_a_result_misses_the_words() -> None:
    class Strict(FixedDescriber):
        def shows(self, squares: torch.Tensor, prompt: str) -> list[bool]:
            return [prompt != "a hat"] * len(squares)

    pipe = Pipeline(tiny_model("text"), scorer=Strict("red hair"))
    for words, missed in (("a hat", True), ("red hair", False), (None, False)):
        *_, last = pipe.edit(GRAY, painted((0, 0, 16, 16)), words, seed=0)
        assert last.missed == missed and any("does not seem to show" in note for note in last.notes) == missed


# The place that words are about.

DENOISER: Any = PIPE.model.denoiser
KNOWN = torch.randint(24, (1, TOKENS), generator=torch.Generator().manual_seed(1))


def test_the_same_words_are_no_distance_apart_and_others_are_both_ways() -> None:
    def apart(asked: str, instead: str, seed: int = 0) -> Tensor:
        cond, other = (PIPE.model.conditioner.encode([prompt]).tokens for prompt in (asked, instead))
        return distances(DENOISER, KNOWN, cond, other, seed)

    assert apart("red hair", "red hair").max() < 1e-3
    there = apart("red hair", "a hat")
    assert there.shape == (TOKENS,) and 0.01 < there.max() <= 1
    assert torch.allclose(there, apart("a hat", "red hair"), atol=1e-3)
    assert torch.equal(there, apart("red hair", "a hat")) and not torch.allclose(there, apart("red hair", "a hat", 4))


def test_a_distance_is_hellingers() -> None:
    """Of two predictions that are known: uniform over all 24 codes, and over the first 12."""

    class Known:
        config = DENOISER.config

        def logits(self, x_s: Tensor, x_t: Tensor, noise_t: Tensor, noise_s: Tensor, cond: Tensor) -> Tensor:
            assert (noise_t > 0).all() and torch.equal(x_s, x_t)
            half = torch.where(torch.arange(24) < 12, 0.0, -1e9)
            return torch.where(cond[:, :1, None] > 0, half, 0.0).expand(len(x_s), TOKENS, 24)

    found = distances(Known(), KNOWN, torch.ones(1, 2).long(), torch.zeros(1, 2).long())  # type: ignore[arg-type]
    assert found.tolist() == pytest.approx([(1 - 0.5**0.5) ** 0.5] * TOKENS, abs=1e-4)


def test_a_place_is_where_distances_and_those_beside_them_are_large() -> None:
    distance = torch.rand(9, 7) * 2 * THRESHOLD
    around = np.array([NEIGHBOR_WEIGHT, 1, NEIGHBOR_WEIGHT])
    weights, padded = np.outer(around, around) / around.sum() ** 2, np.pad(distance.numpy(), 1, mode="edge")
    expected = [[(padded[y : y + 3, x : x + 3] * weights).sum() > THRESHOLD for x in range(7)] for y in range(9)]
    assert threshold(distance).tolist() == expected and 0 < np.mean(expected) < 1


class HatInLight(LightnessScorer):
    """Sees a hat in light images, and nothing for sure in dark ones; to a prompt it adds what else there is."""

    def __init__(self, rest: str = "") -> None:
        super().__init__()
        self.rest = rest

    def describe(self, image: Tensor) -> str | None:
        return "a hat" if image.mean() > 0 else None

    def contrast(self, image: Tensor, prompt: str) -> tuple[str, str] | None:
        return None if image.mean() <= 0 else (prompt + self.rest, "a hat")


LIGHT, DARK = Image.new("RGB", (32, 32), "white"), Image.new("RGB", (32, 32))
HATS = Pipeline(hat_model(), scorer=HatInLight())


@pytest.mark.parametrize("size", [(32, 32), (45, 61), (1000, 1003)], ids=str)
def test_the_mask_redraws_the_tokens_found_and_no_others(size: tuple[int, int]) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8))
    mask, side = Pipeline(hat_model()).suggest_mask(image, "a hat"), max(size)
    # In the square around the whole image a pixel is painted where all patches that it touches are.
    edges, hat = torch.arange(side + 1) * 8 / side, HAT_TOKENS
    first, last = edges[:-1].floor().long(), edges[1:].ceil().long() - 1
    wide = hat[first][:, first] & hat[first][:, last] & hat[last][:, first] & hat[last][:, last]
    left, top = ((side - length) // 2 for length in size)
    expected = wide[top : top + size[1], left : left + size[0]].numpy() * 255
    assert mask.mode == "L" and np.array_equal(np.asarray(mask), expected)


def test_words_are_set_against_what_the_image_shows() -> None:
    assert HATS.suggest_mask(LIGHT, "red hair").tobytes() == HATS.suggest_mask(DARK, "a hat").tobytes()


def test_words_without_a_place_are_a_sentence() -> None:
    for image, prompt, said in (
        (LIGHT, "a hat", 'nothing that "a hat" would change'),  # it shows one
        (DARK, "red hair", "nothing that"),
        (DARK, "  ", "Without words"),
        (DARK, "zzqx 3", "no word of"),
    ):
        with pytest.raises(InputError, match=said):
            HATS.suggest_mask(image, prompt)


def test_a_prompt_is_completed_where_the_scorer_is_sure_of_the_rest() -> None:
    pipe = Pipeline(hat_model(), scorer=HatInLight(", red hair"))
    best, mask = pipe.defaults.replace(guidance=3.0), preset("everything", LIGHT.size)
    pipe.model.about = pipe.model.about.replace(sampling=best)
    fitted = pipe.fit_mask(LIGHT, mask, "a hat")
    assert (fitted.passes[0].prompt, fitted.settings.guidance) == ("a hat, red hair", COMPLETE_PROMPT_GUIDANCE)
    for other in (pipe.fit_mask(DARK, mask, "a hat"), tiny_pipeline().fit_mask(LIGHT, mask, "a hat", settings=best)):
        assert (other.passes[0].prompt, other.settings) == ("a hat", best)
    assert pipe.fit_mask(LIGHT, mask, None).passes[0].prompt is None
    wanted = best.replace(guidance=5.0)  # somebody wants it so
    assert pipe.fit_mask(LIGHT, mask, "a hat", settings=wanted).settings == wanted


def test_an_image_is_described_where_the_scorer_is_sure() -> None:
    assert HATS.describe(LIGHT) == "a hat"
    for pipe, said in ((HATS, "knows nothing only and cannot say for sure"), (PIPE, "cannot say what an image shows")):
        with pytest.raises(InputError, match=said):
            pipe.describe(DARK)


@pytest.mark.parametrize("model", [tiny_model("class"), tiny_model("none"), tiny_staged_model("text")])
def test_models_that_read_no_words_or_have_no_denoiser_cannot_find_a_place(model: ImageBART) -> None:
    with pytest.raises(InputError, match="cannot find a place by words"):
        Pipeline(model).suggest_mask(DARK, "dog" if model.conditioner.kind == "class" else "a hat")
