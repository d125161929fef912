"""Edits of masks as people paint them: how often they give what was asked for.

    python -m recipes.avatars evaluate painted --samples 300 --seed 81 --out figures.json --grid FILE

A brush of 6 to 24 pixels goes to and fro over the place of a part, roughly, and words ask for another one. Then the
same words with a stroke over another place, and with a ready mask there. All settings are those the page begins with.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from imagebart.evaluation.metrics import Measure, measure, median_of, share_of
from imagebart.fitting import EditOptions
from imagebart.imaging.files import to_tensor
from imagebart.pipeline import Pipeline, PipelineEvent
from imagebart.worlds.attribute_classifier import AttributeClassifier
from recipes import generator
from recipes.avatars.artwork import render
from recipes.avatars.blemishes import find_faults
from recipes.avatars.cases import Change, changes, found
from recipes.avatars.evaluation import SERIES, total
from recipes.strokes import edit_grid, zigzag

SIZE = 256
PAGE_SCALES, PAGE_FEATHER = 4, 4  # what the page begins with
VISIBLE = 30  # levels that a pixel differs by, summed over the channels
APART = 6  # cases from one to another that is about another part
LEAST = 60  # pixels that a change is seen in


@dataclass(frozen=True)
class Case:
    """A change that is asked for, and a stroke over the place of the part."""

    change: Change
    mask: Image.Image

    @property
    def image(self) -> Image.Image:
        return Image.fromarray(render(self.change.before, SIZE))


def brush_case(number: int, seed: int) -> Case:
    """The case of a number: the attributes in turn, strokes up to a quarter smaller than the part and off its place."""
    random = generator(number, seed, 21)
    for change in changes(number, SERIES + seed, 3):
        difference = np.abs(render(change.before, SIZE).astype(int) - render(change.after, SIZE)).sum(2) > VISIBLE
        if difference.sum() >= LEAST:
            break
    rows, columns = np.flatnonzero(difference.any(1)), np.flatnonzero(difference.any(0))
    across, down = columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]
    x = columns[0] + across * (0.5 + random.normal(0, 0.06))
    y = rows[0] + down * (0.5 + random.normal(0, 0.06))
    half = random.uniform(0.75, 1.1, 2) * (across, down) / 2
    bounds = (x - half[0], y - half[1], x + half[0], y + half[1])
    return Case(change, zigzag(bounds, random.uniform(6, 24), (SIZE, SIZE), random))


def others(change: Change) -> set[str]:
    """The attributes that are to stay: those that show before and after, and are not asked for."""
    return set(change.before.visible() & change.after.visible()) - {change.attribute} - set(change.prompt.claims)


def edit(pipe: Pipeline, case: Case, seed: int, exact: bool) -> PipelineEvent:
    """The result of a case."""
    settings = pipe.defaults.replace(scales=PAGE_SCALES)
    words = case.change.prompt.text
    *_, last = pipe.edit(case.image, case.mask, words, seed=seed, settings=settings, feather=PAGE_FEATHER, exact=exact)
    return last


def measures(
    pipe: Pipeline, reader: AttributeClassifier, samples: int, seed: int, exact: bool, grids: dict[str, Image.Image]
) -> Iterator[Measure]:
    """The measures; exact: of the same strokes where only what is painted may change. grids: forty, unchosen."""
    cases = [brush_case(number, seed) for number in range(samples)]
    results = [edit(pipe, case, seed + number, exact) for number, case in enumerate(cases)]
    images = torch.cat([to_tensor(last.image) for last in results])
    read = reader.read(images).attributes
    masks = np.stack([np.asarray(last.mask) > 0 for last in results])
    asked = [{"asked": all(found(a, c.change.prompt.claims).values())} for a, c in zip(read, cases, strict=True)]
    yield total("strokes: as asked", asked, "≥ 97 %")
    stay = [found(a, c.change.before.values_of(others(c.change))) for a, c in zip(read, cases, strict=True)]
    yield total("strokes: others' attributes stay", stay, "≥ 99 %")
    starts = [[case.change.before, case.change.after] for case in cases]
    faults = find_faults(images, reader, masks, starts)
    yield measure("strokes: with a patch", share_of((faults.areas > 0).int().tolist()), samples, "%", "floor + 2 %")
    renders = torch.cat([to_tensor(Image.fromarray(render(case.change.after, SIZE))) for case in cases])
    with torch.no_grad():
        first_stage = pipe.model.first_stage
        decoded = torch.cat([first_stage.decode(first_stage.encode(one[None])) for one in renders]).clamp(-1, 1)
    floor = find_faults(decoded, reader, masks, [[case.change.after] for case in cases])
    yield measure("reconstructions: with a patch, the floor", share_of((floor.areas > 0).int().tolist()), samples, "%")
    kept = [
        bool((np.asarray(last.image)[~mask] == np.asarray(case.image)[~mask]).all())
        for last, mask, case in zip(results, masks, cases, strict=True)
    ]
    yield measure("no pixel changed outside the mask", share_of(kept), samples, "%", "100 %")
    yield measure("share of the image that changes", median_of([float(mask.mean()) for mask in masks]), samples)
    yield measure("time of an edit, median", median_of([last.elapsed for last in results]), samples, "s")
    if not exact:
        yield from elsewhere(pipe, reader, cases, seed)
    shown = zip(cases[:40], results[:40], strict=True)
    grids["strokes"] = edit_grid([(case.image, case.mask, case.change.prompt.text, last) for case, last in shown])


def elsewhere(pipe: Pipeline, reader: AttributeClassifier, cases: list[Case], seed: int) -> Iterator[Measure]:
    """Each prompt with the stroke of another case: a painted one stays and that is said, one of no person's moves."""
    said, followed, times = [], [], []
    for number, case in enumerate(cases):
        mask, words = cases[number - APART].mask, case.change.prompt.text
        began = time.perf_counter()
        fitted = pipe.fit_mask(case.image, mask, words)
        times.append(time.perf_counter() - began)
        if fitted.elsewhere is None:  # the places touch: the words' place is in the mask
            continue
        said.append(bool(fitted.notes))
        options = EditOptions(movable=True)
        moved = pipe.fit_mask(case.image, mask, words, options=options)
        inside = np.asarray(moved.mask) > 0
        followed.append(bool((inside == (np.asarray(fitted.elsewhere) > 0)).all()))
    yield measure("words about another place: said", share_of(said), len(said), "%", "100 %")
    yield measure("… of a mask that nobody painted: followed", share_of(followed), len(followed), "%", "100 %")
    yield measure("time of fit_mask, median", median_of(times), len(times), "s", "≤ 0.35 s")
