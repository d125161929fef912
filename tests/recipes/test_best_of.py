"""The best of n: by brute force, by scorers that are known, and on a tiny model."""

from pathlib import Path

import numpy as np
import pytest
from model_with_scorer import save_model_with_scorer

from imagebart.avatars.judge import AvatarScorer
from imagebart.avatars.reader import load_reader
from imagebart.evaluation.image_sampler import ImageSampler
from imagebart.ranking import bundled_scorer
from imagebart.settings import SamplingSettings
from recipes.avatars import READER
from recipes.avatars.evaluation import Study
from recipes.avatars.scorer_evaluation import COUNTS, MOST, Trial, best_of, chosen, images_drawn, ranked_shares


def test_the_chosen_are_the_best_of_each_group() -> None:
    right = [False, True, True, False]
    scores = [0.1, 0.2, 0.3, 0.3]
    assert chosen(right, scores, 1) == right
    assert chosen(right, scores, 2) == [True, True]
    assert chosen(right, scores, 4) == [True], "of equal scores, the first"
    assert chosen(right, [-s for s in scores], 2) == [False, True]


def test_a_perfect_judge_gains_what_independent_tries_give_and_a_blind_one_nothing() -> None:
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


def test_every_case_is_drawn_and_ranked(tmp_path: Path) -> None:
    model = save_model_with_scorer(tmp_path)
    scorer = bundled_scorer(tmp_path, model)
    assert isinstance(scorer, AvatarScorer)
    drawn: list[int] = []
    study = Study(ImageSampler(model, SamplingSettings(), 64, drawn.append), load_reader(READER), 20)
    measures = list(best_of(study, scorer))
    assert sum(drawn) == images_drawn(study) == 20 * 2 * MOST
    assert [m.name for m in measures if not m.group] == [
        f"{kind}: as asked, best of {n}" for kind in ("held-out pairs", "edits") for n in COUNTS
    ]
    values = {(m.group, m.name): m.value for m in measures}
    assert all(value <= values["ranked without error", name] for (_, name), value in values.items())
