"""Masked edits: whether what was asked for appears, what lies outside stays, and what is drawn fits what is kept."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from imagebart.evaluation.cases import EDITED, edit_case, found
from imagebart.evaluation.drawing import rendered
from imagebart.evaluation.fit import COLOURS, fits
from imagebart.evaluation.intervals import share_of
from imagebart.evaluation.report import Measure, fit_measures, measure, plainly
from imagebart.evaluation.study import Study


def edits(study: Study) -> Iterator[Measure]:
    """Edits of the attributes of `EDITED` in turn."""
    cases = [edit_case(i, study.series, study.artist.size) for i in range(study.samples)]
    cases.sort(key=lambda case: EDITED[case.attribute])  # a batch draws what any of its masks paints
    avatars, masks = [case.before for case in cases], np.stack([case.mask for case in cases])
    prompts = [case.prompt.text for case in cases]
    after = study.artist.edit(rendered(avatars, study.artist.size), masks, prompts, study.seed)
    read = study.reader.read(after).attributes
    changed = [all(found(a, case.prompt.claims).values()) for a, case in zip(read, cases, strict=True)]
    stayed, others = [], []
    for attributes, case in zip(read, cases, strict=True):
        values = case.before.as_dict()
        kept = found(attributes, {name: frozenset({values[name]}) for name in case.outside})
        stayed.append(sum(kept.values()))
        others.append(len(kept))
    yield measure("edits: changed as asked", share_of(changed, [1] * len(cases)), len(cases), "%", "≥ 97 %")
    yield measure("edits: others stayed", share_of(stayed, others), len(cases), "%", "≥ 99 %")
    silent = [[name for name in COLOURS if name not in case.prompt.claims] for case in cases]
    fit = fits(after, masks, avatars, read, silent)
    yield from fit_measures("edits: inside = outside where the prompt is silent", fit, "edits, inside = outside")
    for name in EDITED:
        answers = [c for c, case in zip(changed, cases, strict=True) if case.attribute == name]
        if answers:
            share = share_of(answers, [1] * len(answers))
            yield measure(plainly(name), share, len(answers), "%", group="edits, by attribute")
