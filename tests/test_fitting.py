"""What an edit changes: whole patches, the place that the words need, frames for things."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fake_models import HAT_TOKENS, FixedDescriber, hat_model
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from tiny_models import tiny_model, tiny_pipeline

from imagebart import InputError, Pipeline, SamplingSettings
from imagebart.fitting import MIN_COVERAGE, MIN_SIDE, shape_of, square, squares_in
from imagebart.imaging.files import to_tensor
from imagebart.pipeline import Edit
from imagebart.worlds.things import ThingScorer

HERE = Path(__file__).parent.parent
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
    upload = Image.new("RGB", size, "gray")
    for x, y in ((0, 0), (size[0] - 1, size[1] - 1)):
        fitted = PIPE.fit_mask(upload, painted((x, y, x + 1, y + 1), size=size), "red hair")
        assert fitted.mask.getbbox()


def test_the_place_of_the_words_joins_what_is_painted_where_both_touch() -> None:
    hat = HAT_TOKENS.numpy()
    for box, joined in (((8, 8, 16, 20), True), ((8, 12, 16, 20), True), ((8, 16, 16, 24), False)):
        own = np.zeros((GRID, GRID), bool)
        own[box[1] // CELL : box[3] // CELL, box[0] // CELL : box[2] // CELL] = True
        fitted = HAT.fit_mask(GRAY, painted(box), "a hat")
        assert ((patches(fitted.mask) > 0) == (own | hat if joined else own)).all()
        assert (fitted.elsewhere is None) == joined and bool(fitted.notes) == (not joined)
        assert fitted.passes[0].prompt == "a hat, red hair", "completed by what else the image shows"
        moved = HAT.fit_mask(GRAY, painted(box), "a hat", movable=True)
        assert ((patches(moved.mask) > 0) == (own | hat if joined else hat)).all() and not moved.notes
        if fitted.elsewhere is not None:
            assert fitted.elsewhere.tobytes() == moved.mask.tobytes()


def test_nothing_painted_means_the_place_of_the_words() -> None:
    for mask in (None, painted()):
        assert ((patches(HAT.fit_mask(GRAY, mask, "a hat").mask) > 0) == HAT_TOKENS.numpy()).all()
        for words in (None, ""):
            with pytest.raises(InputError):
                HAT.fit_mask(GRAY, mask, words)
    for kind in ("class", "none"):
        with pytest.raises(InputError, match="cannot find a place by words"):
            tiny_pipeline(kind).fit_mask(GRAY, None, "dog" if kind == "class" else "a hat")


def test_exact_changes_what_is_painted_alone_and_takes_the_words_as_they_are() -> None:
    mask = painted((5, 9, 22, 15))
    fitted = HAT.fit_mask(GRAY, mask, "a hat", exact=True)
    assert fitted.mask.tobytes() == mask.tobytes() and fitted.passes[0].prompt == "a hat"
    of_class = tiny_pipeline("class").fit_mask(GRAY, mask, "dog")
    assert of_class.passes[0].prompt == "dog" and (patches(of_class.mask) > 0).sum() == 10


# Frames.


@given(st.floats(-50, 500), st.floats(-50, 500), st.floats(0, 700), st.integers(24, 400), st.integers(24, 400))
@settings(deadline=None)
def test_a_square_lies_inside_the_image_where_it_can(x: float, y: float, side: float, width: int, height: int) -> None:
    box = square(x, y, side, (width, height))
    assert box.side >= MIN_SIDE and box.side % 2 == 0 and box.side <= max(min(width, height), MIN_SIDE)
    assert 0 <= box.left <= width - box.side and 0 <= box.top <= height - box.side


def test_a_square_is_as_large_as_the_box_around_a_stroke_with_gaps() -> None:
    mask = Image.new("L", (200, 200))
    ImageDraw.Draw(mask).line([(60, 60), (120, 60), (60, 90), (120, 90), (60, 120), (120, 120)], 255, 8)
    x, y, side = shape_of(mask)
    left, top, right, bottom = mask.getbbox() or (0, 0, 0, 0)
    assert side**2 == pytest.approx((right - left) * (bottom - top))
    assert abs(x - 90) < 3 and abs(y - 90) < 3
    dot = Image.new("L", (20_000, 20))
    dot.putpixel((12_345, 7), 1)
    assert abs(shape_of(dot)[0] - 12_345) < 40, "the thinnest stroke on the largest image is not lost"
    large_x, _, large_side = shape_of(mask.resize((2000, 2000), Image.Resampling.NEAREST))
    assert abs(large_x / 10 - x) < 1 and abs(large_side / 10 - side) < 2


@pytest.mark.parametrize(
    ("boxes", "count", "relation", "centers"),
    [
        ([(20, 50, 180, 100)], 2, "", [(60, 75), (140, 75)]),
        ([(50, 20, 100, 180)], 3, "", [(75, 47), (75, 100), (75, 153)]),
        ([(20, 20, 120, 120)], 4, "", [(45, 45), (95, 45), (45, 95), (95, 95)]),
        ([(20, 20, 120, 120)], 2, "above", [(70, 45), (70, 95)]),
        ([(20, 20, 120, 120)], 2, "below", [(70, 95), (70, 45)]),
        ([(20, 20, 120, 120)], 2, "right", [(95, 70), (45, 70)]),
        ([(120, 20, 160, 60), (20, 100, 80, 160)], 2, "", [(50, 130), (140, 40)]),
    ],
)
def test_several_things_lie_side_by_side_or_in_a_part_of_the_mask_each(
    boxes: list[tuple[int, int, int, int]], count: int, relation: str, centers: list[tuple[int, int]]
) -> None:
    found = squares_in(painted(*boxes, size=(200, 200)), count, relation)
    for box, (x, y) in zip(found, centers, strict=True):
        assert abs(box.left + box.side / 2 - x) <= 1 and abs(box.top + box.side / 2 - y) <= 1


def test_more_things_than_there_is_room_for_are_left_out_and_that_is_said(things: Pipeline) -> None:
    fitted = things.fit_mask(Image.new("RGB", (64, 64), "pink"), painted((0, 0, 64, 64), size=(64, 64)), "12 cats")
    assert 1 < len(fitted.passes) < 12 and "of the 12 things" in fitted.notes[0]


@pytest.fixture(scope="module")
def things() -> Pipeline:
    return Pipeline.from_pretrained(HERE / "checkpoints" / "things")


def thing_in(pipe: Pipeline, image: Image.Image, box: tuple[int, int, int, int]) -> str:
    """The noun that a square of an image shows; "" for nothing."""
    assert isinstance(pipe.scorer, ThingScorer)
    number = int(pipe.scorer.read(to_tensor(image.crop(box).resize((64, 64), Image.Resampling.BICUBIC)))[0].argmax())
    names = pipe.scorer.names.nouns
    return names[number][0] if number < len(names) else ""


def fast(things: Pipeline) -> SamplingSettings:
    return things.defaults.replace(scales=1, corrector_steps=0)


@pytest.mark.shipped
@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((256, 256), (0, 0, 70, 80)),  # a corner
        ((500, 120), (401, 13, 495, 111)),
        ((900, 700), (333, 251, 681, 620)),  # larger than the view
        ((90, 90), (51, 11, 78, 38)),  # nearly the smallest square
    ],
)
def test_a_thing_is_drawn_at_any_place_and_size(
    things: Pipeline, size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    upload, right = Image.new("RGB", size, (247, 181, 202)), 0
    for seed in range(2):
        *_, last = things.edit(upload, painted(box, size=size), "a frog", seed=seed, settings=fast(things))
        assert last.mask is not None and last.missed == (thing_in(things, last.image, last.mask.getbbox()) != "frog")
        kept = np.asarray(last.mask) == 0
        assert (np.asarray(last.image)[kept] == np.asarray(upload)[kept]).all()
        right += not last.missed
    assert right


@pytest.mark.shipped
@pytest.mark.parametrize(
    ("size", "box", "words"),
    [
        ((512, 26), (511, 25, 512, 26), "a cat"),
        ((26, 512), (0, 0, 26, 512), "three apples and a cow"),
        ((30, 600), (29, 599, 30, 600), None),
        ((300, 16), (0, 0, 300, 16), "zzqx"),
    ],
)
def test_odd_images_and_masks_get_a_result(
    things: Pipeline, size: tuple[int, int], box: tuple[int, int, int, int], words: str | None
) -> None:
    upload, mask = Image.new("RGB", size, "white"), painted(box, size=size)
    *_, last = things.edit(upload, mask, words, seed=0, settings=fast(things))
    assert last.image.size == size and last.mask is not None and last.mask.getbbox()


@pytest.mark.shipped
@pytest.mark.slow
def test_a_thing_that_is_painted_in_part_is_completed_and_goes_with_its_shadow(things: Pipeline) -> None:
    ground, box = (130, 200, 134), (64, 64, 192, 192)
    empty = Image.new("RGB", (256, 256), ground)
    *_, drawn = things.edit(empty, painted(box, size=empty.size), "a red car", seed=1)
    assert thing_in(things, drawn.image, box) == "car"
    half = painted((64, 60, 122, 196), size=empty.size)
    for words in (None, "a car"):
        *_, last = things.edit(drawn.image, half, words, seed=2)
        assert thing_in(things, last.image, box) == "car" and things.describe(last.image).startswith("a red car")
    stroke = Image.new("L", empty.size)
    ImageDraw.Draw(stroke).line([(80, 110), (175, 130), (85, 160)], 255, 22)
    *_, gone = things.edit(drawn.image, stroke, "a car", seed=3, remove=True)
    assert np.abs(np.asarray(gone.image).astype(int) - ground).max() <= 8


@pytest.mark.shipped
def test_several_images_with_several_things_each_are_drawn_in_one_chain_as_one_by_one(things: Pipeline) -> None:
    upload, mask = Image.new("RGB", (256, 256), "white"), painted((10, 40, 250, 130), size=(256, 256))
    edits = [Edit(upload, mask, words, 5) for words in ("two frogs", "a house")]
    together = [event.image for event in things.edit_batch(edits, settings=fast(things))]
    for one, image in zip(edits, together, strict=True):
        *_, alone = things.edit(one.image, one.mask, one.prompt, seed=5, settings=fast(things))
        assert np.abs(np.asarray(alone.image).astype(int) - np.asarray(image)).mean() < 1


@pytest.mark.shipped
def test_of_a_group_of_things_each_variant_has_its_own(things: Pipeline) -> None:
    upload, mask = Image.new("RGB", (256, 256), "white"), painted((60, 60, 180, 180), size=(256, 256))
    *_, last = things.edit(upload, mask, "an animal", seed=1, variants=3, settings=fast(things))
    assert len({thing_in(things, image, (60, 60, 180, 180)) for image in last.images}) > 1


def test_a_scorer_says_where_a_result_misses_the_words() -> None:
    class Strict(FixedDescriber):
        def shows(self, squares: torch.Tensor, prompt: str) -> list[bool]:
            return [prompt != "a hat"] * len(squares)

    pipe = Pipeline(tiny_model("text"), scorer=Strict("red hair"))
    for words, missed in (("a hat", True), ("red hair", False), (None, False)):
        *_, last = pipe.edit(GRAY, painted((0, 0, 16, 16)), words, seed=0)
        assert last.missed == missed and any("does not seem to show" in note for note in last.notes) == missed
