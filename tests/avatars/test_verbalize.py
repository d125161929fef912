"""What is told of avatars: the plain words, checked by the grammar's own tables."""

from __future__ import annotations

from dataclasses import replace

import pytest

from imagebart.avatars.attributes import PLAIN, SHOWING, VALUES
from imagebart.avatars.judge import verbalize
from recipes.avatars.captions import all_words
from recipes.avatars.dataset import sample

TOLD = (
    "short brown hair, no beard, a blue t-shirt, no glasses, open eyes, normal eyebrows, a big smile, fair skin, "
    "a green background"
)


def test_all_that_shows_is_told_in_plain_words() -> None:
    assert verbalize(PLAIN) == TOLD
    assert verbalize(replace(PLAIN, clothing="graphic", graphic="bat")) == TOLD.replace("t-shirt", "shirt with a bat")
    hidden = verbalize(replace(PLAIN, top="hijab", accessory="sunglasses"))
    assert hidden == "a blue hijab, no beard, black sunglasses, a big smile, fair skin, a green background"


def test_only_what_is_named_is_told_and_colours_with_what_has_them() -> None:
    assert verbalize(PLAIN, ["mouth", "skin"]) == "a big smile, fair skin"
    assert verbalize(PLAIN, ["top"]) == "short hair"
    assert verbalize(PLAIN, ["top", "hair_colour"]) == "short brown hair"
    assert verbalize(PLAIN, ["graphic", "hat_colour"]) == verbalize(PLAIN, []) == ""
    assert verbalize(replace(PLAIN, background="orange"), ["background"]) == "an orange background"


def test_a_colour_alone_is_told_of_as_little_as_has_it() -> None:
    assert verbalize(PLAIN, ["hair_colour", "clothing_colour"]) == "brown hair, blue clothes"
    assert verbalize(replace(PLAIN, top="beanie"), ["hat_colour"]) == "a blue hat"
    goatee = replace(PLAIN, facial_hair="goatee")
    assert verbalize(goatee, ["facial_hair_colour", "skin"]) == "brown facial hair, fair skin"


@pytest.mark.parametrize("name", VALUES)
def test_every_value_is_told_differently_and_in_words_of_captions(name: str) -> None:
    avatars = [replace(PLAIN, **{**SHOWING.get(name, {}), name: value}) for value in VALUES[name]]
    texts = [verbalize(avatar) for avatar in avatars]
    assert len(set(texts)) == len(VALUES[name])
    known = set(all_words())
    assert not [word for text in texts for word in text.replace(",", "").replace("-", " ").split() if word not in known]


def test_the_words_of_two_avatars_differ_as_the_avatars_do() -> None:
    for number in range(0, 60, 2):
        one, other = sample(number, 4), sample(number + 1, 4)
        same = one.visible() == other.visible() and all(
            one.as_dict()[name] == other.as_dict()[name] for name in one.visible()
        )
        assert (verbalize(one) == verbalize(other)) is same
