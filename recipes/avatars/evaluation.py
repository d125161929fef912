"""How good the model of avatars is: the figures of its card; and the page's examples.

    python -m recipes.avatars evaluate --samples 300 --seed 81 --grids FOLDER

A brush of 6 to 24 pixels goes to and fro over the place of a part, roughly, and words ask for another one. Then the
same words with a stroke over another place, whole images, and descriptions. All settings are those that the page begins
with. A small network, which was trained on renders alone, says what images show. Cases are a function of a number and
the seed of a series of avatars, so that two models get the same ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from imagebart.evaluation.metrics import Measure, share_of
from imagebart.imaging.files import normalize, to_images, to_tensor
from imagebart.imaging.masks import MASK_SUFFIX
from imagebart.pipeline import Pipeline
from imagebart.weights.folder import EXAMPLES
from imagebart.worlds.attribute_classifier import likeliest, load_classifier
from imagebart.worlds.avatars import PLAIN, VALUES, Attributes, Claims, verbalize
from recipes import evaluation as shared
from recipes import generator
from recipes.avatars import CLASSIFIER, data_file
from recipes.avatars.artwork import render
from recipes.avatars.captions import Caption, describe
from recipes.avatars.dataset import HELD_OUT_PAIRS, held_out, read_values, sample

SHIPPED = Path("checkpoints/avatars")
SIZE = 256  # pixels a side
SERIES = 900_000  # of avatars, plus the seed; training has other series
DESCRIBED = 3 * 10**8  # the number of the first avatar that is described
VISIBLE = 30  # levels that a pixel differs by, summed over the channels
APART = 6  # cases from one to another that is about another part
MIN_CHANGE = 60  # pixels that a change is seen in
PATCH_DIFFERENCE, PATCH_OPENING, PATCH_AREA = 48, 4, 96  # levels in a channel, pixels a side, pixels
MOST_NAMED = 6
EDITED = (  # attributes by where they show; skin shows everywhere, so that no mask changes it alone
    *(("top", "hair_color", "hat_color"), ("facial_hair", "facial_hair_color"), ("accessory", "eyes", "eyebrows")),
    *(("mouth",), ("clothing", "clothing_color", "graphic"), ("background",)),
)


def found(reading: Attributes, claims: Claims) -> dict[str, bool]:
    """Whether what is claimed of each attribute shows in an image, given what is read in it.

    A hidden value does not count: the color of hair under a hat.
    """
    shown, values = reading.visible(), vars(reading)
    return {name: name in shown and values[name] in allowed for name, allowed in claims.items()}


def seen_prompt(number: int, series: int) -> Caption:
    """A caption as in training, of another avatar: one to six attributes named, in turn."""
    return describe(sample(number, series), generator(number, series, 1), 1 + number % MOST_NAMED)


def held_out_prompt(number: int, series: int) -> Caption:
    """A caption that names a pair of values that no training image shows together, the pairs in turn."""
    pair = HELD_OUT_PAIRS[number % len(HELD_OUT_PAIRS)]
    count = 2 + number % (MOST_NAMED - 1)
    for index in range(10_000 * number, 10_000 * (number + 1)):
        attributes = replace(sample(index, series, "all"), **pair)
        if pair.keys() <= attributes.visible():
            said = describe(attributes, generator(index, series, 2), count)
            if all(said.claims.get(name) == {value} for name, value in pair.items()):
                return said
    raise ValueError(f"no caption of {count} attributes names {pair}; the grammar or the pair has to change")


@dataclass(frozen=True, kw_only=True)
class BrushCase(shared.Case):
    """An avatar, a caption that asks for the same with one attribute changed, and a stroke over its place."""

    after: Attributes
    asked: Claims
    kept: Claims  # what is to stay: attributes that show before and after and are not asked for, as they are


def brush_case(number: int, seed: int) -> BrushCase:
    """The case of a number: the attributes in turn, strokes up to a quarter smaller than the part and off its place.

    The caption is true of the changed avatar and not of the one before, and names nothing that shows elsewhere; the new
    value shows. Neither avatar has a held-out pair.
    """
    attribute, nearby = [(name, part) for part in EDITED for name in part][number % sum(map(len, EDITED))]
    for index in range(10_000 * number, 10_000 * (number + 1)):
        random = generator(index, SERIES + seed, 3)
        before = sample(index, SERIES + seed)
        after = replace(before, **{attribute: VALUES[attribute][random.integers(len(VALUES[attribute]))]})
        if attribute not in after.visible() or held_out(after):
            continue
        said = describe(after, random, 1)
        asked = attribute in said.claims and vars(before)[attribute] not in said.claims[attribute]
        if asked and said.claims.keys() <= set(nearby):
            image, changed = render(before, SIZE), render(after, SIZE)
            difference = np.abs(image.astype(int) - changed).sum(2) > VISIBLE
            if difference.sum() >= MIN_CHANGE:
                break
    else:
        raise ValueError(f"no caption asks for another {attribute}; the grammar has to name its values")
    random = generator(number, seed, 21)
    left, top, across, down = cv2.boundingRect(difference.astype(np.uint8))
    x = left + across * (0.5 + random.normal(0, 0.06))
    y = top + down * (0.5 + random.normal(0, 0.06))
    half = random.uniform(0.75, 1.1, 2) * (across, down) / 2
    bounds = (x - half[0], y - half[1], x + half[0], y + half[1])
    mask = shared.zigzag(bounds, random.uniform(6, 24), (SIZE, SIZE), random)
    names = (before.visible() & after.visible()) - {attribute} - said.claims.keys()
    kept = {name: frozenset({vars(before)[name]}) for name in names}
    return BrushCase(Image.fromarray(image), mask, said.text, after=after, asked=said.claims, kept=kept)


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
    yield descriptions(pipe, samples, seed)


def strokes(pipe: Pipeline, cases: list[BrushCase], seed: int, grids: dict[str, Image.Image]) -> Iterator[Measure]:
    """Whether strokes give what is asked for, leave other attributes, and draw what a render shows."""
    results = shared.edit_all(pipe, cases, seed)
    grids["painted"] = shared.edit_grid(cases, results)
    read = read_all([last.image for last in results])
    asked = [all(found(a, case.asked).values()) for a, case in zip(read, cases, strict=True)]
    yield Measure("strokes: as asked", *share_of(asked), len(cases), "%", "≥ 97 %")
    stay = [found(a, case.kept) for a, case in zip(read, cases, strict=True)]
    yield _share("strokes: others' attributes stay", stay, "≥ 99 %")
    patched, floor = [], []
    for case, last, seen in zip(cases, results, read, strict=True):
        mask, kept = shared.changed_pixels(last), {name: value for name, (value,) in case.kept.items()}
        patched.append(has_patch(np.asarray(last.image), render(replace(seen, **kept), SIZE), mask))
        truth = render(case.after, SIZE)
        with torch.no_grad():
            tokens = pipe.model.first_stage.encode(normalize(torch.from_numpy(truth).permute(2, 0, 1)[None]))
            decoded = pipe.model.first_stage.decode(tokens)
        floor.append(has_patch(np.asarray(to_images(decoded)[0]), truth, mask))
    yield Measure("strokes: with a patch", *share_of(patched), len(cases), "%", "floor + 2 %")
    yield Measure("reconstructions: with a patch, the floor", *share_of(floor), len(cases), "%")
    yield from shared.common_measures(cases, results)


def words_elsewhere(pipe: Pipeline, cases: list[BrushCase]) -> Iterator[Measure]:
    """Each prompt with the stroke of another case: whether the page says that the words are about another place."""
    fitted = [pipe.fit_mask(case.image, cases[n - APART].mask, case.words) for n, case in enumerate(cases)]
    said = [bool(mask.notes) for mask in fitted if mask.elsewhere is not None]  # else the stroke touches their place
    if said:
        yield Measure("words about another place: said", *share_of(said), len(said), "%", "100 %")


def whole_images(pipe: Pipeline, samples: int, seed: int, grids: dict[str, Image.Image]) -> Iterator[Measure]:
    """Whether images show what captions name, also pairs of values that training never showed."""
    kinds = {"captions": (seen_prompt, "≥ 98 %"), "held-out pairs": (held_out_prompt, "≥ 97 %")}
    for name, (prompt_of, goal) in kinds.items():
        prompts = [prompt_of(number, SERIES + seed) for number in range(samples)]
        images = shared.generate_all(pipe, [prompt.text for prompt in prompts], seed)
        answers = [found(a, prompt.claims) for a, prompt in zip(read_all(images), prompts, strict=True)]
        yield _share(f"whole images, {name}: named attributes found", answers, goal)
    grids["prompts"] = shared.prompt_grid(images, [prompt.text for prompt in prompts])


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


def examples() -> Iterator[tuple[str, shared.Case]]:
    """Avatars, by what differs from `PLAIN` in a line of the data, and the words below; masks are those that ship."""
    lines = data_file("edits_examples.txt").splitlines()
    for first, words in zip(lines[::2], lines[1::2], strict=True):
        name, values = first.split(": ")
        avatar = replace(PLAIN, **read_values(values))
        mask = Image.open(SHIPPED / EXAMPLES / f"{name}{MASK_SUFFIX}")
        yield name, shared.Case(Image.fromarray(render(avatar, SIZE)), mask, words.strip())
