"""Attributes of avatars, and the words for their values."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256

import pytest

from imagebart.worlds.avatars import HAIR_TOPS, HAT_TOPS, VALUES, Attributes, Phrase, phrases
from recipes.avatars.dataset import HELD_OUT_PAIRS, held_out, sample

COUNT = 3000


@pytest.fixture(scope="module")
def sampled() -> list[Attributes]:
    return [sample(index) for index in range(COUNT)]


@pytest.fixture(scope="module")
def everything() -> list[Attributes]:
    """With held-out pairs."""
    return [sample(index, split="all") for index in range(COUNT)]


def test_every_value_is_reached_about_as_often_as_its_siblings(sampled: list[Attributes]) -> None:
    for name, values in VALUES.items():
        counts = Counter(getattr(attributes, name) for attributes in sampled)
        assert set(counts) == set(values)
        assert min(counts.values()) > COUNT / len(values) / 4
    for name in ("facial_hair", "accessory"):
        assert 0.35 < sum(getattr(avatar, name) == "none" for avatar in sampled) / COUNT < 0.6


def test_every_value_shows_somewhere(sampled: list[Attributes]) -> None:
    shown = {(name, getattr(avatar, name)) for avatar in sampled for name in avatar.visible()}
    assert shown == {(name, value) for name, values in VALUES.items() for value in values}


def test_attributes_are_independent_but_for_held_out_pairs(everything: list[Attributes]) -> None:
    beard_given_pink = Counter(avatar.facial_hair == "none" for avatar in everything if avatar.hair_color == "pink")
    beard = Counter(avatar.facial_hair == "none" for avatar in everything)
    assert beard_given_pink[True] / sum(beard_given_pink.values()) == pytest.approx(beard[True] / COUNT, abs=0.06)


def test_held_out_pairs_are_never_sampled_for_training_and_all_are_otherwise(
    sampled: list[Attributes], everything: list[Attributes]
) -> None:
    def pairs(avatars: list[Attributes]) -> Counter[int]:
        return Counter(
            number
            for avatar in avatars
            for number, pair in enumerate(HELD_OUT_PAIRS)
            if all(getattr(avatar, name) == value for name, value in pair.items())
        )

    assert not pairs(sampled)
    assert set(pairs(everything)) == set(range(len(HELD_OUT_PAIRS)))
    assert not any(held_out(avatar) for avatar in sampled)


def test_held_out_pairs_name_known_values_of_two_attributes() -> None:
    assert len({frozenset(pair.items()) for pair in HELD_OUT_PAIRS}) == len(HELD_OUT_PAIRS) == 40
    for pair in HELD_OUT_PAIRS:
        assert len(pair) == 2 and all(value in VALUES[name] for name, value in pair.items())


def test_an_index_means_the_same_everywhere() -> None:
    avatars = str([sample(i, seed=3) for i in (0, 7, 10**8)])
    assert sha256(avatars.encode()).hexdigest()[:16] == "896020d503ec91f7"
    assert sample(7, seed=3) != sample(7, seed=4)


def test_values_are_named_or_those_that_are_not() -> None:
    colors = phrases("colors")
    assert colors["top"][0] == Phrase("top", frozenset(HAIR_TOPS) - {"bald"}, "noun", "{c} hair")
    assert colors["facial_hair"][0].values == frozenset(VALUES["facial_hair"]) - {"none"}
    assert phrases("negations")["top"][0].values == frozenset(VALUES["top"]) - frozenset(HAT_TOPS)


def test_signs_say_how_a_phrase_stands() -> None:
    hair = phrases("colors")["hair_color"]
    said = {phrase.text: phrase.kind for phrase in [*hair, *phrases("wordings")["skin"]]}
    assert (said["ginger"], said["blondie"], said["white"], said["fair skin"]) == (
        *("adjective", "loose", "epithet", "noun"),
    )


def test_each_background_is_named_by_its_own_word() -> None:
    found = phrases("wordings")["background"]
    assert {phrase.values for phrase in found} == {frozenset({value}) for value in VALUES["background"]}
    for phrase in found:
        (value,) = phrase.values
        assert value in phrase.text.split()


def test_prints_are_of_all_shirts() -> None:
    skulls = [p.text for p in phrases("wordings")["graphic"] if p.values == {"skull"}]
    assert "a {c} shirt with a skull" in skulls and "a skull print" in skulls and "a {c} skeleton shirt" in skulls
    assert len(skulls) == 15


def test_negations_are_the_wordings_of_none() -> None:
    bare = [p for p in phrases("wordings")["facial_hair"] if p.values == {"none"}]
    assert phrases("negations")["facial_hair"] == bare


def test_nothing_of_the_file_is_left_in_the_phrases() -> None:
    for kind in ("wordings", "colors", "negations"):
        for table in phrases(kind).values():
            for phrase in table:
                left = phrase.text.replace("{c}", "red")
                assert left and left == left.strip() and not set(left) & set("{}*$;=+~\n"), phrase
                assert phrase.values and phrase.values <= set(VALUES[phrase.attribute])
