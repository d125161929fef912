"""How good the model of avatars is: the figures of its card.

    python -m recipes.avatars evaluate --samples 300 --seed 81 --grids FOLDER

A brush of 6 to 24 pixels goes to and fro over the place of a part, roughly, and words ask for another one. Then the
same words with a stroke over another place, whole images, places found by words, and descriptions. All settings are
those that the page begins with. A small network, which was trained on renders alone, says what images show.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from PIL import Image

from imagebart.evaluation.metrics import Measure, median_of, share_of
from imagebart.imaging.files import to_images, to_tensor
from imagebart.pipeline import Pipeline
from imagebart.worlds.attribute_classifier import likeliest, load_classifier
from imagebart.worlds.avatars import Attributes, verbalize
from recipes import evaluation as shared
from recipes import generator
from recipes.avatars import CLASSIFIER
from recipes.avatars.artwork import render, rendered
from recipes.avatars.captions import Caption
from recipes.avatars.cases import SIZE, Change, changes, found, held_out_prompt, seen_prompt, typed_prompts
from recipes.avatars.dataset import sample

SERIES = 900_000  # of avatars, plus the seed; training has other series
DESCRIBED = 3 * 10**8  # the number of the first avatar that is described
VISIBLE = 30  # levels that a pixel differs by, summed over the channels
APART = 6  # cases from one to another that is about another part
MIN_CHANGE = 60  # pixels that a change is seen in
PATCH_DIFFERENCE, PATCH_OPENING, PATCH_AREA = 48, 4, 96  # levels in a channel, pixels a side, pixels


@dataclass(frozen=True, kw_only=True)
class BrushCase(shared.Case):
    """A change that is asked for, and a stroke over the place of the part."""

    change: Change


def brush_case(number: int, seed: int) -> BrushCase:
    """The case of a number: the attributes in turn, strokes up to a quarter smaller than the part and off its place."""
    random = generator(number, seed, 21)
    for change in changes(number, SERIES + seed, 3):
        difference = np.abs(render(change.before, SIZE).astype(int) - render(change.after, SIZE)).sum(2) > VISIBLE
        if difference.sum() >= MIN_CHANGE:
            break
    rows, columns = np.flatnonzero(difference.any(1)), np.flatnonzero(difference.any(0))
    across, down = columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]
    x = columns[0] + across * (0.5 + random.normal(0, 0.06))
    y = rows[0] + down * (0.5 + random.normal(0, 0.06))
    half = random.uniform(0.75, 1.1, 2) * (across, down) / 2
    bounds = (x - half[0], y - half[1], x + half[0], y + half[1])
    mask = shared.zigzag(bounds, random.uniform(6, 24), (SIZE, SIZE), random)
    return BrushCase(Image.fromarray(render(change.before, SIZE)), mask, change.prompt.text, change=change)


def has_patch(image: np.ndarray, reference: np.ndarray, mask: np.ndarray) -> bool:
    """Whether a person sees at once that a masked region is not as in a render: uint8 [H, W, 3], bool [H, W].

    Pixels that differ by more than 48 levels are opened with a square of 4 x 4, so that anti-aliased edges and thin
    lines do not count; what is left is seen from 96 connected pixels on.
    """
    different = ((cv2.absdiff(image, reference).max(2) > PATCH_DIFFERENCE) & mask).astype(np.uint8)
    opened = cv2.morphologyEx(different, cv2.MORPH_OPEN, np.ones((PATCH_OPENING, PATCH_OPENING), np.uint8))
    _, _, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=8)
    return bool((stats[1:, cv2.CC_STAT_AREA] >= PATCH_AREA).any())  # the first is the background


def read_all(images: Sequence[Image.Image]) -> list[Attributes]:
    """What the attribute classifier sees in images."""
    classifier, pixels = load_classifier(CLASSIFIER), torch.cat([to_tensor(image) for image in images])
    return [attributes for part in pixels.split(64) for attributes in likeliest(classifier(part))]


def measures(pipe: Pipeline, samples: int, seed: int, grids: dict[str, Image.Image]) -> Iterator[Measure]:
    """All measures of a model, each of so many cases; grids: takes images to look at, unchosen."""
    cases = [brush_case(number, seed) for number in range(samples)]
    yield from strokes(pipe, cases, seed, grids)
    yield from words_elsewhere(pipe, cases)
    yield from whole_images(pipe, samples, seed, grids)
    yield from places_by_words(pipe, cases)
    yield descriptions(pipe, samples, seed)


def strokes(pipe: Pipeline, cases: list[BrushCase], seed: int, grids: dict[str, Image.Image]) -> Iterator[Measure]:
    """Whether strokes give what is asked for, leave other attributes, and draw what a render shows."""
    results = shared.edit_all(pipe, cases, seed)
    grids["painted"] = shared.edit_grid(cases, results)
    read = read_all([last.image for last in results])
    asked = [all(found(a, case.change.prompt.claims).values()) for a, case in zip(read, cases, strict=True)]
    yield Measure("strokes: as asked", *share_of(asked), len(cases), "%", "≥ 97 %")
    stay = [found(a, case.change.kept) for a, case in zip(read, cases, strict=True)]
    yield _share("strokes: others' attributes stay", stay, "≥ 99 %")
    patched, floor = [], []
    for case, last, seen in zip(cases, results, read, strict=True):
        mask, kept = shared.changed_pixels(last), {name: value for name, (value,) in case.change.kept.items()}
        patched.append(has_patch(np.asarray(last.image), render(replace(seen, **kept), SIZE), mask))
        original = rendered([case.change.after], SIZE)
        with torch.no_grad():
            decoded = pipe.model.first_stage.decode(pipe.model.first_stage.encode(original))
        floor.append(has_patch(np.asarray(to_images(decoded)[0]), render(case.change.after, SIZE), mask))
    yield Measure("strokes: with a patch", *share_of(patched), len(cases), "%", "floor + 2 %")
    yield Measure("reconstructions: with a patch, the floor", *share_of(floor), len(cases), "%")
    yield from shared.common_measures(cases, results)


def words_elsewhere(pipe: Pipeline, cases: list[BrushCase]) -> Iterator[Measure]:
    """Each prompt with the stroke of another case: a painted one stays and that is said, one of no person's moves."""
    said, followed = [], []
    for number, case in enumerate(cases):
        mask = cases[number - APART].mask
        fitted = pipe.fit_mask(case.image, mask, case.words)
        if fitted.elsewhere is None:  # the places touch: the words' place is in the mask
            continue
        said.append(bool(fitted.notes))
        moved = pipe.fit_mask(case.image, mask, case.words, movable=True)
        inside = np.asarray(moved.mask) > 0
        followed.append(bool((inside == (np.asarray(fitted.elsewhere) > 0)).all()))
    if said:
        yield Measure("words about another place: said", *share_of(said), len(said), "%", "100 %")
        yield Measure("… of a mask that nobody painted: followed", *share_of(followed), len(said), "%", "100 %")


def whole_images(pipe: Pipeline, samples: int, seed: int, grids: dict[str, Image.Image]) -> Iterator[Measure]:
    """Whether images show what captions name, also pairs of values that training never showed, and what people type."""
    numbers, series = range(samples), SERIES + seed
    kinds: dict[str, tuple[list[Caption], str]] = {
        "captions": ([seen_prompt(number, series) for number in numbers], "≥ 98 %"),
        "held-out pairs": ([held_out_prompt(number, series) for number in numbers], "≥ 97 %"),
        "as people type": ([case for case in typed_prompts() if case.claims], "≥ 97 %"),
    }
    for name, (prompts, goal) in kinds.items():
        images = shared.generate_all(pipe, [prompt.text for prompt in prompts], seed)
        answers = [found(a, prompt.claims) for a, prompt in zip(read_all(images), prompts, strict=True)]
        yield _share(f"whole images, {name}: named attributes found", answers, goal)
    grids["prompts"] = shared.prompt_grid(images, [prompt.text for prompt in prompts])


def places_by_words(pipe: Pipeline, cases: list[BrushCase]) -> Iterator[Measure]:
    """The places that prompts would change, beside the patches in which the renders before and after differ."""
    shares = []
    for case in cases:
        differs = (render(case.change.before, SIZE) != render(case.change.after, SIZE)).any(2)
        side = SIZE // pipe.grid
        patches = differs.reshape(pipe.grid, side, pipe.grid, side).any((1, 3))
        shares.append(shared.suggestion_iou(pipe, case.image, case.words, patches.repeat(side, 0).repeat(side, 1)))
    yield Measure("places by words: IoU, median", *median_of(shares), len(cases), goal="≥ 0.75")


def descriptions(pipe: Pipeline, samples: int, seed: int) -> Measure:
    """Of the phrases that describe fresh renders, the share that is true."""
    answers = []
    for number in range(samples):
        avatar = sample(DESCRIBED + number, SERIES + seed)
        true, said = verbalize(avatar).split(", "), pipe.describe(Image.fromarray(render(avatar, SIZE))).split(", ")
        answers.append({phrase: phrase in true for phrase in said})
    return _share("descriptions: phrases right", answers, "≥ 99 %")


def _share(name: str, answers: Sequence[Mapping[str, bool]], goal: str) -> Measure:
    """The share of answers that are yes, given those of each image; not all images need to have some."""
    right, asked = [sum(row.values()) for row in answers], [len(row) for row in answers]
    return Measure(name, *share_of(right, asked), sum(map(bool, asked)), "%", goal)
