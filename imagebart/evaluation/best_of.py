"""What ranking variants by a scorer is worth: how often the best of 1, 2, 4 and 8 is as asked.

ImageBART, section 4.2 and Table 2, where a classifier or CLIP ranks. The scorer must not be the network that measures:
ranked by its own errors, a picture that only it takes for right would count as right. Both are readers of one kind and
learnt from the same sort of drawings, so that they may still err alike. Two more rankings stand beside the scorer's:
one by the reader that measures, which flatters itself, and one that is never wrong, which nothing can exceed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from imagebart.avatars.judge import AvatarScorer
from imagebart.evaluation.cases import EditCase, PromptCase, edit_case, found, held_out_prompt
from imagebart.evaluation.drawing import rendered
from imagebart.evaluation.metrics import share_of
from imagebart.evaluation.report import Measure, measure
from imagebart.evaluation.study import Study

COUNTS = (1, 2, 4, 8)
MOST = max(COUNTS)  # variants of each case
CHUNK = 8  # cases that are drawn and judged at once

Draw = Callable[[Sequence[int], int], Tensor]  # variants of cases by number, from a seed on


@dataclass(frozen=True)
class Trial:
    """One case: of each variant whether it is as asked, and the scores by which they are ranked."""

    right: list[bool]
    judged: list[float]
    measured: list[float]  # by the reader that says what is right


def best_of(study: Study, scorer: AvatarScorer) -> Iterator[Measure]:
    """The best of n, for prompts of held-out pairs and for edits: the share of cases in which all that is asked shows.

    Of `MOST` variants of a case, each n that follow each other are a choice of their own.
    """
    prompts = [held_out_prompt(i, study.series) for i in range(study.samples)]
    asked = [edit_case(i, study.series, study.artist.size) for i in range(study.samples)]
    yield from _measures("held-out pairs", _trials(study, scorer, prompts, _drawn(study, prompts)))
    yield from _measures("edits", _trials(study, scorer, [case.prompt for case in asked], _edited(study, asked)))


def pictures(study: Study) -> int:
    """How many pictures `best_of` has the model draw."""
    return 2 * MOST * study.samples


def chosen(right: Sequence[bool], scores: Sequence[float], count: int) -> list[bool]:
    """Of variants in groups of `count`, whether the one of the highest score is right; of equal scores, the first."""
    groups = [range(start, start + count) for start in range(0, len(right) - count + 1, count)]
    return [right[max(group, key=lambda i: scores[i])] for group in groups]


def _drawn(study: Study, cases: Sequence[PromptCase]) -> Draw:
    return lambda rows, seed: study.artist.generate([cases[i].text for i in rows], seed)


def _edited(study: Study, cases: Sequence[EditCase]) -> Draw:
    def draw(rows: Sequence[int], seed: int) -> Tensor:
        chunk = [cases[i] for i in rows]
        before = rendered([case.before for case in chunk], study.artist.size)
        masks = np.stack([case.mask for case in chunk])
        return study.artist.edit(before, masks, [case.prompt.text for case in chunk], seed)

    return draw


def _trials(study: Study, scorer: AvatarScorer, cases: Sequence[PromptCase], draw: Draw) -> list[Trial]:
    own = replace(scorer, reader=study.reader)
    trials = []
    for start in range(0, len(cases), CHUNK):
        rows = [i for i in range(start, min(start + CHUNK, len(cases))) for _ in range(MOST)]
        images = draw(rows, study.seed + start * MOST)
        for i, variants in zip(range(start, len(cases)), images.split(MOST), strict=False):
            read = study.reader.read(variants).attributes
            right = [all(found(attributes, cases[i].claims).values()) for attributes in read]
            scores = [j.score(variants, cases[i].text).tolist() for j in (scorer, own)]
            trials.append(Trial(right, *scores))
    return trials


def _measures(name: str, trials: Sequence[Trial]) -> Iterator[Measure]:
    rankings: dict[str, Callable[[Trial], Sequence[float]]] = {
        "": lambda trial: trial.judged,
        "ranked by the reader that measures (circular)": lambda trial: trial.measured,
        "ranked without error": lambda trial: torch.tensor(trial.right).float().tolist(),
    }
    for group, scores in rankings.items():
        for count in COUNTS:
            picks = [chosen(trial.right, scores(trial), count) for trial in trials]
            share = share_of([sum(p) for p in picks], [len(p) for p in picks])
            yield measure(f"{name}: as asked, best of {count}", share, len(trials) * MOST, "%", group=group)
