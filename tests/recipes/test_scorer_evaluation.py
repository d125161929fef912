"""What a scorer is worth: the best of n, suggested masks, and descriptions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from model_with_scorer import save_model_with_scorer
from oracle_sampler import oracle

from imagebart.evaluation.image_sampler import ImageSampler
from imagebart.model import ImageBART
from imagebart.ranking import bundled_scorer, complete_prompt
from imagebart.settings import SamplingSettings
from imagebart.worlds.attribute_classifier import AvatarScorer, load_classifier
from recipes.avatars import READER
from recipes.avatars.artwork import rendered
from recipes.avatars.cases import EDITED, EditCase, PromptCase, found
from recipes.avatars.dataset import held_out
from recipes.avatars.evaluation import Study
from recipes.avatars.scorer_evaluation import (
    COUNTS,
    MOST,
    MaskCase,
    Trial,
    best_of,
    chosen,
    described,
    edited,
    evaluate_masks,
    images_of_best_of,
    mask_case,
    mask_iou,
    ranked_shares,
)

SIZE, GRID = 128, 16
CASES = [mask_case(i, 77) for i in range(26)]
TRUE = np.stack([case.differing(GRID, SIZE) for case in CASES])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scored")


@pytest.fixture(scope="module")
def model(folder: Path) -> ImageBART:
    return save_model_with_scorer(folder)


@pytest.fixture(scope="module")
def scorer(folder: Path, model: ImageBART) -> AvatarScorer:
    loaded = bundled_scorer(folder, model)
    assert isinstance(loaded, AvatarScorer)
    return loaded


def test_the_chosen_are_the_best_of_each_group() -> None:
    right = [False, True, True, False]
    scores = [0.1, 0.2, 0.3, 0.3]
    assert chosen(right, scores, 1) == right
    assert chosen(right, scores, 2) == [True, True]
    assert chosen(right, scores, 4) == [True], "of equal scores, the first"
    assert chosen(right, [-s for s in scores], 2) == [False, True]


def test_a_perfect_ranking_gains_what_independent_tries_give_and_a_random_one_nothing() -> None:
    random = np.random.default_rng(0)
    right = random.random((400, MOST)) < 0.6
    trials = [Trial(list(map(bool, row)), random.random(MOST).tolist(), [0.0] * MOST) for row in right]
    measures = list(ranked_shares("x", trials))
    found = {(m.group, m.name): m for m in measures}
    assert len(found) == 3 * len(COUNTS)
    for count in COUNTS:
        perfect = found["ranked without error", f"x: as asked, best of {count}"]
        groups = right.reshape(400, MOST // count, count).any(2)
        assert perfect.value == pytest.approx(groups.mean())
        assert perfect.value == pytest.approx(1 - 0.4**count, abs=0.03)
        blind = found["", f"x: as asked, best of {count}"]
        assert blind.low < 0.6 < blind.high


def test_every_case_is_sampled_and_ranked(model: ImageBART, scorer: AvatarScorer) -> None:
    counts: list[int] = []
    study = Study(ImageSampler(model, SamplingSettings(), 64, counts.append), load_classifier(READER), 20)
    measures = list(best_of(study, scorer))
    assert sum(counts) == images_of_best_of(study) == 20 * 2 * MOST
    assert [m.name for m in measures if not m.group] == [
        f"{kind}: as asked, best of {n}" for kind in ("held-out pairs", "edits") for n in COUNTS
    ]
    values = {(m.group, m.name): m.value for m in measures}
    assert all(value <= values["ranked without error", name] for (_, name), value in values.items())


def test_a_case_asks_for_one_change_that_both_avatars_show() -> None:
    assert [case.attribute for case in CASES] == [*EDITED, *EDITED]
    for case in CASES:
        values = case.before.as_dict()
        assert replace(case.before, **{case.attribute: getattr(case.after, case.attribute)}) == case.after
        assert not held_out(case.before) and not held_out(case.after)
        assert all(found(case.after, case.prompt.claims).values())
        assert values[case.attribute] not in case.prompt.claims[case.attribute]
        assert case.attribute not in case.others and all(found(case.before, case.others).values())
    assert CASES[:3] == [mask_case(i, 77) for i in range(3)] != [mask_case(i, 78) for i in range(3)]


def test_tokens_differ_where_pixels_do() -> None:
    for case, tokens in list(zip(CASES, TRUE, strict=True))[::5]:
        before, after = rendered([case.before, case.after], SIZE)
        for row in range(GRID):
            for column in range(GRID):
                cell = np.s_[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
                assert tokens[row, column] == (not torch.equal(before[cell], after[cell]))


def test_overlap_is_all_for_what_differs_half_for_half_of_it_and_none_for_the_rest() -> None:
    for masks, value in ((TRUE, 1.0), (~TRUE, 0.0)):
        median, mean, *others = mask_iou(CASES, masks, SIZE)
        assert median.value == median.low == median.high == mean.value == value
        assert len(others) == len(EDITED) and {m.value for m in others} == {value}
    half = TRUE.copy()
    for tokens in half:
        rows, columns = np.nonzero(tokens)
        tokens[rows[::2], columns[::2]] = False
    median = next(mask_iou(CASES, half, SIZE))
    assert 0.4 < median.low <= median.value <= median.high <= 0.5


def asked(case: MaskCase, mask: np.ndarray, scorer: AvatarScorer) -> EditCase:
    """What the sampler is to be asked: with all else that the scorer sees."""
    prompt = PromptCase(complete_prompt(scorer, rendered([case.before], SIZE), case.prompt.text), case.prompt.claims)
    return EditCase(case.before, case.after, case.attribute, prompt, mask, frozenset(case.others))


@pytest.mark.parametrize("masked", [True, False])
def test_a_perfect_sampler_changes_what_is_asked_where_it_is_masked(scorer: AvatarScorer, masked: bool) -> None:
    cases = [case for case in CASES if all(len(values) == 1 for values in case.prompt.claims.values())]
    masks = np.full((len(cases), GRID, GRID), masked)
    pixels = masks.repeat(SIZE // GRID, 1).repeat(SIZE // GRID, 2)
    sampler = oracle(edits=[asked(case, mask, scorer) for case, mask in zip(cases, pixels, strict=True)])
    images = rendered([case.before for case in cases], SIZE)
    changed, stayed, *_ = edited(Study(sampler, load_classifier(READER), 20), scorer, cases, images, masks)
    assert (changed.value, stayed.value) == (1.0 if masked else 0.0, 1.0)
    assert changed.images == len(cases) >= 5


def test_descriptions_are_right_and_an_unsure_scorer_gives_none(
    scorer: AvatarScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(oracle(), scorer.classifier, 20)
    assert described(study, scorer).value > 0.98
    monkeypatch.setattr("imagebart.worlds.attribute_classifier.MIN_PROBABILITY", 1.1)
    assert described(study, scorer).value == 0


def test_the_whole_runs_on_a_tiny_model(model: ImageBART, scorer: AvatarScorer) -> None:
    measures = list(
        evaluate_masks(Study(ImageSampler(model, SamplingSettings(), 64), load_classifier(READER), 20), scorer)
    )
    assert [m.name for m in measures if not m.group] == [
        "suggested masks: IoU, median",
        "suggested masks: IoU, mean",
        "edits of suggested masks: as asked",
        "edits of suggested masks: others stayed",
        "descriptions: phrases right",
    ]
