from __future__ import annotations

import pytest

from imagebart.sampling.packed_linear import Cost
from imagebart.sampling.speculative import WIDTHS, Adaptive

ALL = [True] * 256


def settle(lengths: Adaptive, drawn: dict[int, float], passes: int = 60) -> int:
    """The width after some passes that draw as many tokens as given for a width."""
    steps = 0
    for _ in range(passes):
        steps = lengths.steps(1, ALL)
        lengths.learn(drawn[steps])
    return steps


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 100])
@pytest.mark.parametrize("known", [0, 1, 3])
def test_begins_with_what_draws_most_a_second_by_the_square_root(rows: int, known: int) -> None:
    """By brute force over widths: known tokens after each unknown one take steps, but draw nothing."""
    cost = Cost(16.0, 1.0)
    steps = {width: (known + 1) * (width - 1) + 1 for width in WIDTHS}
    best = max(WIDTHS, key=lambda width: width**0.5 / cost.seconds(rows * steps[width]))
    found = Adaptive(cost.seconds, rows).steps(1, ([True] + [False] * known) * 256)
    assert found == steps[best] + steps[best] % 2  # in even numbers


def test_free_rows_make_the_longest_draft() -> None:
    assert Adaptive(Cost(1.0, 0.0).seconds, 1).steps(1, ALL) == 64


def test_finds_the_width_that_draws_most_a_second() -> None:
    """Whatever the law: nothing but the next token, all of them, and a law with a best width in the middle."""
    cost = Cost(16.0, 1.0).seconds
    never, always = dict.fromkeys(WIDTHS, 1.0), {w: float(w) for w in WIDTHS}
    assert settle(Adaptive(cost, 1), never) == 4
    assert settle(Adaptive(cost, 1), always) == 64
    some = {4: 2.2, 6: 2.9, 8: 3.5, 12: 5.2, 16: 7.0, 24: 7.6, 32: 8.0, 64: 8.1}
    best = max(some, key=lambda w: some[w] / (16.0 + w))
    assert settle(Adaptive(cost, 1), some) == best


def test_one_bad_pass_shortens_the_draft_but_not_to_the_shortest() -> None:
    lengths = Adaptive(Cost(16.0, 1.0).seconds, 1)
    assert lengths.steps(1, ALL) == 16
    lengths.learn(1.0)
    assert 4 < lengths.steps(1, ALL) < 16


def test_a_few_passes_that_draw_everything_lengthen_it() -> None:
    lengths = Adaptive(Cost(8.0, 1.0).seconds, 1)
    for _ in range(4):
        lengths.learn(lengths.steps(1, ALL))
    assert lengths.steps(1, ALL) > 16


@pytest.mark.parametrize(("left", "needed"), [(1, 1), (3, 1), (5, 20), (7, 101)])
def test_ends_with_the_tokens_in_even_lengths_of_four_and_more(left: int, needed: int) -> None:
    lengths = Adaptive(Cost(16.0, 1.0).seconds, 1)
    for _ in range(3):
        steps = lengths.steps(needed, [True] * left)
        assert steps % 2 == 0 and steps >= 4
        assert needed - 1 + left <= steps <= max(needed + left, 4)
        lengths.learn(1.0)
    assert lengths.drawn == {}  # too few tokens say nothing of a whole width
