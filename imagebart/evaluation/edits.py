"""Masked edits: whether what was asked for appears, what lies outside stays, and what is drawn fits what is kept."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from imagebart.evaluation.cases import EDITED, edit_case, found
from imagebart.evaluation.drawing import rendered
from imagebart.evaluation.fit import COLOURS, fits
from imagebart.evaluation.report import Measure, by_attribute, fit_measures, in_all
from imagebart.evaluation.study import Study


def edits(study: Study) -> Iterator[Measure]:
    """Edits of the attributes of `EDITED` in turn."""
    cases = [edit_case(i, study.series, study.artist.size) for i in range(study.samples)]
    cases.sort(key=lambda case: EDITED[case.attribute])  # a batch draws what any of its masks paints
    avatars, masks = [case.before for case in cases], np.stack([case.mask for case in cases])
    prompts = [case.prompt.text for case in cases]
    after = study.artist.edit(rendered(avatars, study.artist.size), masks, prompts, study.seed)
    read = study.reader.read(after).attributes
    pairs = list(zip(read, cases, strict=True))
    changed = [{case.attribute: all(found(a, case.prompt.claims).values())} for a, case in pairs]
    yield in_all("edits: changed as asked", changed, "≥ 97 %")
    yield in_all("edits: others stayed", [found(a, case.before.values_of(case.outside)) for a, case in pairs], "≥ 99 %")
    silent = [[name for name in COLOURS if name not in case.prompt.claims] for case in cases]
    fit = fits(after, masks, avatars, read, silent)
    yield from fit_measures("edits: inside = outside where the prompt is silent", fit, "edits, inside = outside")
    yield from by_attribute(changed, "edits, by attribute", EDITED)
