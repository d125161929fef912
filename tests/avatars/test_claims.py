"""What is read in prompts, and what has to be so for it to show."""

from dataclasses import replace

import pytest
import torch

from imagebart.avatars.attributes import PLAIN, VALUES
from imagebart.avatars.claims import claims_vector, read_claims, with_showing
from recipes.avatars.cases import found
from recipes.avatars.dataset import caption, sample


@pytest.mark.parametrize("certainty", [0.8, 0.99])
def test_claims_are_read_off_heads_that_learnt_them(certainty: float) -> None:
    """A head shares its probability among what is claimed, and gives the rest to anything else."""
    for number in range(60):
        claims = caption(number, seed=5).claims
        vector = claims_vector(claims).float()
        groups = vector.split([len(values) + 1 for values in VALUES.values()])
        shares = [certainty * g / g.sum() + (1 - certainty) / len(g) for g in groups]
        assert read_claims(torch.cat(shares).log()) == claims


def test_nothing_is_read_where_nothing_is_said() -> None:
    assert read_claims(claims_vector({}).float() * 20) == {}


def test_what_is_claimed_shows_just_where_everything_wider_is_so() -> None:
    """Against `found`, which looks at what a whole avatar shows, over pairs of captions and avatars."""
    true = 0
    for number in range(100):
        claims = caption(number, seed=6, count=1 + number % 3).claims
        wider = with_showing(claims)
        for avatar in [sample(number, 6), *(sample(10**6 + 10 * number + i, 6, "all") for i in range(10))]:
            values = avatar.as_dict()
            shows = all(found(avatar, claims).values())
            assert all(values[name] in allowed for name, allowed in wider.items()) == shows
            true += shows
    assert 100 <= true < 100 * 10


def test_what_a_prompt_says_itself_comes_first() -> None:
    assert with_showing({"hair_colour": frozenset({"red"})})["top"] == frozenset(VALUES["top"][1:13])
    both = {"hair_colour": frozenset({"red"}), "hat_colour": frozenset({"blue"}), "top": frozenset({"beanie"})}
    assert with_showing(both)["top"] == {"beanie"}
    assert with_showing({}) == {}
    assert replace(PLAIN, top="bald").visible().isdisjoint({"hair_colour"})
