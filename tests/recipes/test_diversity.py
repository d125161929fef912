"""Entropy of known frequencies, and avatars drawn so that claims are true."""

from dataclasses import replace

import numpy as np
import pytest

from imagebart.avatars.attributes import PLAIN, VALUES
from recipes.avatars.evaluation import OPEN, draw_claimed, entropy, free_entropy


def test_entropy_of_known_frequencies() -> None:
    assert entropy(["a"] * 5) == 0
    assert entropy(list("aabbccdd")) == pytest.approx(2)
    assert entropy(["a", "a", "a", None]) == pytest.approx(0.811278, abs=1e-6)


def test_only_what_is_open_counts_and_hidden_is_a_value() -> None:
    two = [PLAIN, replace(PLAIN, mouth="sad", hat_colour="red")]
    assert free_entropy(two, {}) == pytest.approx(1 / len(VALUES)), "the hat's colour does not show"
    assert free_entropy(two, {"mouth": frozenset({"smile", "sad"})}) == 0
    hidden = [PLAIN, replace(PLAIN, top="bald")]
    assert free_entropy(hidden, {}) == pytest.approx(2 / len(VALUES)), "top, and the colour that does not show"


def test_avatars_are_drawn_true_to_claims_and_as_often_as_among_all() -> None:
    random = np.random.default_rng(0)
    claims = {"facial_hair": frozenset({"none", "goatee"}), "skin": frozenset({"dark"})}
    avatars = [draw_claimed(claims, random) for _ in range(2000)]
    assert {a.skin for a in avatars} == {"dark"}
    # "none" weighs 10/3, a goatee 1; every other attribute keeps all its values.
    assert np.mean([a.facial_hair == "none" for a in avatars]) == pytest.approx(10 / 13, abs=0.04)
    assert {a.mouth for a in avatars} == set(VALUES["mouth"])
    for case in OPEN:
        assert all(getattr(draw_claimed(case.claims, random), n) in v for n, v in case.claims.items())
