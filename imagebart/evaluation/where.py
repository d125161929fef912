"""Masks found by words, edits by them, and descriptions: of rendered avatars, of which all is known.

An avatar is asked to change in one attribute. Its render and that of the changed avatar tell in which tokens they
differ: what a mask for this prompt should hold. Nobody paints: what is found is what is redrawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from imagebart.avatars.artwork import render
from imagebart.avatars.judge import AvatarScorer, tell
from imagebart.errors import InputError
from imagebart.evaluation.cases import EDITED, Change, changes, found
from imagebart.evaluation.drawing import rendered
from imagebart.evaluation.metrics import mean_of, median_of, share_of
from imagebart.evaluation.report import Measure, by_attribute, in_all, measure, plainly
from imagebart.evaluation.study import SHOWN, Study
from imagebart.pipeline import cap_guidance, complete_prompt, suggest_mask


@dataclass(frozen=True)
class WhereCase(Change):
    """A change whose place is to be found by its words alone."""

    def differing(self, grid: int, size: int) -> np.ndarray:
        """The tokens in which the renders before and after differ, bool [grid, grid]; `size` pixels a side."""
        pixels = (render(self.before, size) != render(self.after, size)).any(2)
        cell = size // grid
        tokens: np.ndarray = pixels.reshape(grid, cell, grid, cell).any((1, 3))
        return tokens

    @property
    def others(self) -> dict[str, frozenset[str]]:
        """What has to stay: all that shows before and after and that the prompt does not ask for."""
        return self.before.values_of(self.before.visible() & self.after.visible() - {self.attribute})


def where_case(number: int, series: int) -> WhereCase:
    """One of the changes whose attribute shows before and after."""
    shown = (change for change in changes(number, series, 4) if change.attribute in change.before.visible())
    return WhereCase(**vars(next(shown)))


def where(study: Study, scorer: AvatarScorer) -> Iterator[Measure]:
    """All measures of a model and its scorer, each as soon as it is known."""
    cases = [where_case(i, study.series) for i in range(study.samples)]
    images = rendered([case.before for case in cases], study.artist.size)
    masks = np.stack([find(study, scorer, images[i : i + 1], case) for i, case in enumerate(cases)])
    yield from overlaps(cases, masks, study.artist.size)
    yield from edited(study, scorer, cases, images, masks)
    yield described(study, scorer)


def find(study: Study, scorer: AvatarScorer, image: Tensor, case: WhereCase) -> np.ndarray:
    """The tokens that the model finds, bool [grid, grid]; none where it says that there are none."""
    try:
        return suggest_mask(study.artist.model, scorer, image, case.prompt.text).numpy()
    except InputError:
        side = study.artist.model.first_stage.config.side
        return np.zeros((side, side), bool)


def overlaps(cases: Sequence[WhereCase], masks: np.ndarray, size: int) -> Iterator[Measure]:
    """How far what was found, bool [B, grid, grid], is what differs: intersection over union."""
    true = np.stack([case.differing(masks.shape[1], size) for case in cases])
    shares = ((masks & true).sum((1, 2)) / (masks | true).sum((1, 2))).tolist()
    yield measure("found by words: IoU, median", median_of(shares), len(cases), goal="≥ 0.75")
    yield measure("found by words: IoU, mean", mean_of(shares), len(cases))
    for name in EDITED:
        own = [share for share, case in zip(shares, cases, strict=True) if case.attribute == name]
        if own:
            yield measure(plainly(name), mean_of(own), len(own), group="IoU, mean by attribute")


def edited(
    study: Study, scorer: AvatarScorer, cases: Sequence[WhereCase], images: Tensor, masks: np.ndarray
) -> Iterator[Measure]:
    """Edits of what was found, as the page does them: what was asked for has to be there, and all else has to stay."""
    cell = study.artist.size // masks.shape[1]
    painted = masks.repeat(cell, 1).repeat(cell, 2)
    rows = np.flatnonzero(masks.any((1, 2)))  # where nothing was found, nothing changes
    after = images.clone()
    if len(rows):
        prompts = [complete_prompt(scorer, images[row : row + 1], cases[row].prompt.text) for row in rows.tolist()]
        artist = replace(study.artist, settings=cap_guidance(study.artist.settings))
        after[rows] = artist.edit(images[rows], painted[rows], prompts, study.seed)
    read = study.reader.read(after).attributes
    pairs = list(zip(read, cases, strict=True))
    asked = [{case.attribute: all(found(a, case.prompt.claims).values())} for a, case in pairs]
    yield in_all("edits without painting: as asked", asked, "≥ 95 %")
    yield in_all("edits without painting: others stayed", [found(a, case.others) for a, case in pairs], "≥ 97 %")
    yield from by_attribute(asked, "edits without painting, by attribute", EDITED)


def described(study: Study, scorer: AvatarScorer) -> Measure:
    """Of the phrases that describe fresh renders, the share that is true; none is where none is told."""
    right, told = [], []
    for avatar in study.avatars(SHOWN):
        true = tell(avatar).split(", ")
        words = (scorer.describe(rendered([avatar], study.artist.size)) or "").split(", ")
        right.append(sum(word in true for word in words))
        told.append(len(words))
    return measure("what is here: words right", share_of(right, told), len(told), "%", "≥ 99 %")
