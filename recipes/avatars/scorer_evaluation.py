"""What a model's scorer is worth: for ranking variants, for masks suggested by a prompt, and for descriptions.

Ranking: how often the best of 1, 2, 4 and 8 is as asked (ImageBART, section 4.2 and Table 2, where a classifier or CLIP
ranks). The scorer must not be the reader that measures: ranked by its own errors, an image that only it takes for right
would count as right. Both were trained on the same kind of renders, so that they may still err alike. Two more rankings
stand beside the scorer's: one by the reader that measures, which is circular, and one without errors, which nothing can
exceed.

Masks: an avatar is asked to change in one attribute. The tokens in which the renders before and after differ are what a
mask suggested by this prompt should hold. The suggested mask is then edited, as on the page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from imagebart.errors import InputError
from imagebart.evaluation.metrics import Measure, mean_of, measure, median_of, share_of
from imagebart.fitting import COMPLETE_PROMPT_GUIDANCE
from imagebart.ranking import complete_prompt, contrast
from imagebart.sampling.mask_suggestion import suggest_mask
from imagebart.worlds.attribute_classifier import AvatarScorer, verbalize
from recipes.avatars.artwork import render, rendered
from recipes.avatars.cases import EDITED, Change, PromptCase, changes, edit_case, found, held_out_prompt
from recipes.avatars.evaluation import SHOWN, Study, by_attribute, in_words, total

COUNTS = (1, 2, 4, 8)
MOST = max(COUNTS)  # variants of each case
CHUNK = 8  # cases of which variants are generated at once

Generate = Callable[[list[int], int], Tensor]  # variants of cases by number, from a seed on


@dataclass(frozen=True)
class Trial:
    """One case: of each variant whether it is as asked, and the scores by which they are ranked."""

    right: list[bool]
    scores: list[float]
    reader_scores: list[float]  # by the reader that says what is right


def best_of(study: Study, scorer: AvatarScorer) -> Iterator[Measure]:
    """The best of n, for prompts of held-out pairs and for edits: the share of cases in which all that is asked shows.

    Of `MOST` variants of a case, each n that follow each other are a choice of their own.
    """
    size, prompts = study.sampler.size, [held_out_prompt(i, study.series) for i in range(study.samples)]
    asked = [edit_case(i, study.series, size) for i in range(study.samples)]
    before = rendered([case.before for case in asked], size)
    masks, texts = np.stack([case.mask for case in asked]), [case.prompt.text for case in asked]

    def generate(rows: list[int], seed: int) -> Tensor:
        return study.sampler.generate([prompts[i].text for i in rows], seed)

    def edit(rows: list[int], seed: int) -> Tensor:
        return study.sampler.edit(before[rows], masks[rows], [texts[i] for i in rows], seed)

    yield from ranked_shares("held-out pairs", _trials(study, scorer, prompts, generate))
    yield from ranked_shares("edits", _trials(study, scorer, [case.prompt for case in asked], edit))


def images_of_best_of(study: Study) -> int:
    """How many images `best_of` takes."""
    return 2 * MOST * study.samples


def chosen(right: Sequence[bool], scores: Sequence[float], count: int) -> list[bool]:
    """Of variants in groups of `count`, whether the one of the highest score is right; of equal scores, the first."""
    groups = [range(start, start + count) for start in range(0, len(right) - count + 1, count)]
    return [right[max(group, key=lambda i: scores[i])] for group in groups]


def _trials(study: Study, scorer: AvatarScorer, cases: Sequence[PromptCase], generate: Generate) -> list[Trial]:
    own = replace(scorer, classifier=study.reader)
    trials = []
    for start in range(0, len(cases), CHUNK):
        rows = [i for i in range(start, min(start + CHUNK, len(cases))) for _ in range(MOST)]
        images = generate(rows, study.seed + start * MOST)
        for i, variants in zip(range(start, len(cases)), images.split(MOST), strict=False):
            read = study.reader.read(variants).attributes
            right = [all(found(attributes, cases[i].claims).values()) for attributes in read]
            scores = [one.score(variants, cases[i].text).tolist() for one in (scorer, own)]
            trials.append(Trial(right, *scores))
    return trials


def ranked_shares(name: str, trials: Sequence[Trial]) -> Iterator[Measure]:
    """The shares of best ones that are as asked, as the scorer ranks them, and as the other two rankings do."""
    rankings: dict[str, Callable[[Trial], Sequence[float]]] = {
        "": lambda trial: trial.scores,
        "ranked by the reader that measures (circular)": lambda trial: trial.reader_scores,
        "ranked without error": lambda trial: torch.tensor(trial.right).float().tolist(),
    }
    for group, scores in rankings.items():
        for count in COUNTS:
            picks = [chosen(trial.right, scores(trial), count) for trial in trials]
            share = share_of([sum(p) for p in picks], [len(p) for p in picks])
            yield measure(f"{name}: as asked, best of {count}", share, len(trials) * MOST, "%", group=group)


@dataclass(frozen=True)
class MaskCase(Change):
    """A change whose mask is to be suggested by its prompt alone."""

    def differing(self, grid: int, size: int) -> np.ndarray:
        """The tokens in which the renders before and after differ, bool [grid, grid]; `size` pixels a side."""
        pixels = (render(self.before, size) != render(self.after, size)).any(2)
        tokens: np.ndarray = pixels.reshape(grid, size // grid, grid, size // grid).any((1, 3))
        return tokens

    @property
    def others(self) -> dict[str, frozenset[str]]:
        """What has to stay: all that shows before and after and that the prompt does not ask for."""
        return self.before.values_of(self.before.visible() & self.after.visible() - {self.attribute})


def mask_case(number: int, series: int) -> MaskCase:
    """One of the changes whose attribute shows before and after."""
    shown = (change for change in changes(number, series, 4) if change.attribute in change.before.visible())
    return MaskCase(**vars(next(shown)))


def evaluate_masks(study: Study, scorer: AvatarScorer) -> Iterator[Measure]:
    """All measures of a model and its scorer, each as soon as it is known."""
    cases = [mask_case(i, study.series) for i in range(study.samples)]
    images = rendered([case.before for case in cases], study.sampler.size)
    masks = np.stack([suggested(study, scorer, images[i : i + 1], case) for i, case in enumerate(cases)])
    yield from mask_iou(cases, masks, study.sampler.size)
    yield from edited(study, scorer, cases, images, masks)
    yield described(study, scorer)


def suggested(study: Study, scorer: AvatarScorer, image: Tensor, case: MaskCase) -> np.ndarray:
    """The tokens of the suggested mask, bool [grid, grid]; none where the model suggests none."""
    try:
        text = case.prompt.text
        return suggest_mask(study.sampler.model, image, text, contrast(scorer, image, text)).numpy()
    except InputError:
        side = study.sampler.model.first_stage.config.side
        return np.zeros((side, side), bool)


def mask_iou(cases: Sequence[MaskCase], masks: np.ndarray, size: int) -> Iterator[Measure]:
    """Intersection over union of suggested masks, bool [B, grid, grid], and of the tokens that differ."""
    true = np.stack([case.differing(masks.shape[1], size) for case in cases])
    shares = ((masks & true).sum((1, 2)) / (masks | true).sum((1, 2))).tolist()
    yield measure("suggested masks: IoU, median", median_of(shares), len(cases), goal="≥ 0.75")
    yield measure("suggested masks: IoU, mean", mean_of(shares), len(cases))
    for name in EDITED:
        own = [share for share, case in zip(shares, cases, strict=True) if case.attribute == name]
        if own:
            yield measure(in_words(name), mean_of(own), len(own), group="IoU, mean by attribute")


def edited(
    study: Study, scorer: AvatarScorer, cases: Sequence[MaskCase], images: Tensor, masks: np.ndarray
) -> Iterator[Measure]:
    """Edits of suggested masks, as the page does them: what was asked for has to show, and all else has to stay."""
    patch = study.sampler.size // masks.shape[1]
    pixels = masks.repeat(patch, 1).repeat(patch, 2)
    rows = np.flatnonzero(masks.any((1, 2)))  # where no mask was suggested, nothing changes
    after = images.clone()
    if len(rows):
        prompts = [complete_prompt(scorer, images[row : row + 1], cases[row].prompt.text) for row in rows.tolist()]
        settings = study.sampler.settings
        settings = settings.replace(guidance=min(settings.guidance, COMPLETE_PROMPT_GUIDANCE))
        sampler = replace(study.sampler, settings=settings)
        after[rows] = sampler.edit(images[rows], pixels[rows], prompts, study.seed)
    read = study.reader.read(after).attributes
    pairs = list(zip(read, cases, strict=True))
    asked = [{case.attribute: all(found(a, case.prompt.claims).values())} for a, case in pairs]
    yield total("edits of suggested masks: as asked", asked, "≥ 95 %")
    yield total("edits of suggested masks: others stayed", [found(a, case.others) for a, case in pairs], "≥ 97 %")
    yield from by_attribute(asked, "edits of suggested masks, by attribute", EDITED)


def described(study: Study, scorer: AvatarScorer) -> Measure:
    """Of the phrases that describe fresh renders, the share that is true; none is where there is no description."""
    right, asked = [], []
    for avatar in study.avatars(SHOWN):
        true = verbalize(avatar).split(", ")
        phrases = (scorer.describe(rendered([avatar], study.sampler.size)) or "").split(", ")
        right.append(sum(phrase in true for phrase in phrases))
        asked.append(len(phrases))
    return measure("descriptions: phrases right", share_of(right, asked), len(asked), "%", "≥ 99 %")
