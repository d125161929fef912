"""Attributes of avatars, and the words for their values."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from imagebart.avatars import attributes as phrases
from imagebart.avatars.attributes import HAIR_TOPS, HAT_TOPS, VALUES, Attributes, Phrase
from recipes.avatars.dataset import HELD_OUT_PAIRS, held_out, sample

COUNT = 5000


@pytest.fixture(scope="module")
def drawn() -> list[Attributes]:
    return [sample(index) for index in range(COUNT)]


def test_every_value_is_reached_about_as_often_as_its_siblings(drawn: list[Attributes]) -> None:
    for name, values in VALUES.items():
        counts = Counter(getattr(attributes, name) for attributes in drawn)
        assert set(counts) == set(values)
        assert min(counts.values()) > COUNT / len(values) / 4


def test_every_value_shows_somewhere(drawn: list[Attributes]) -> None:
    shown = {(name, getattr(avatar, name)) for avatar in drawn for name in avatar.visible()}
    assert shown == {(name, value) for name, values in VALUES.items() for value in values}


def test_most_faces_are_free(drawn: list[Attributes]) -> None:
    assert 0.35 < sum(avatar.facial_hair == "none" for avatar in drawn) / COUNT < 0.6
    assert 0.35 < sum(avatar.accessory == "none" for avatar in drawn) / COUNT < 0.6


def test_attributes_are_independent_but_for_held_out_pairs() -> None:
    everything = [sample(index, split="all") for index in range(COUNT)]
    beard_given_pink = Counter(avatar.facial_hair == "none" for avatar in everything if avatar.hair_colour == "pink")
    beard = Counter(avatar.facial_hair == "none" for avatar in everything)
    assert beard_given_pink[True] / sum(beard_given_pink.values()) == pytest.approx(beard[True] / COUNT, abs=0.06)


def test_held_out_pairs_are_never_drawn_for_training_and_all_are_otherwise(drawn: list[Attributes]) -> None:
    def pairs(avatars: list[Attributes]) -> Counter[int]:
        # Said apart from `held_out`, which the drawing itself uses.
        return Counter(
            number
            for avatar in avatars
            for number, ((a, x), (b, y)) in enumerate(HELD_OUT_PAIRS)
            if getattr(avatar, a) == x and getattr(avatar, b) == y
        )

    assert not pairs(drawn)
    assert set(pairs([sample(index, split="all") for index in range(COUNT)])) == set(range(len(HELD_OUT_PAIRS)))
    assert not any(held_out(avatar) for avatar in drawn)


def test_held_out_pairs_name_known_values_of_two_attributes() -> None:
    assert len(set(HELD_OUT_PAIRS)) == len(HELD_OUT_PAIRS) == 40
    for (a, x), (b, y) in HELD_OUT_PAIRS:
        assert a != b and x in VALUES[a] and y in VALUES[b]


def test_an_index_means_the_same_in_another_process() -> None:
    code = "from recipes.avatars.dataset import sample; print([sample(i, seed=3) for i in (0, 7, 10**8)])"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == str([sample(i, seed=3) for i in (0, 7, 10**8)])
    assert sample(7, seed=3) != sample(7, seed=4)


def test_wrong_values_are_named() -> None:
    values = sample(0).as_dict()
    with pytest.raises(ValueError, match="'green hair' is not a value of the attribute 'top'"):
        Attributes(**{**values, "top": "green hair"})
    with pytest.raises(ValueError, match="'test'"):
        sample(0, split="test")
    with pytest.raises(ValueError, match="-1"):
        sample(-1)


def test_values_are_named_or_those_that_are_not() -> None:
    colours = phrases.phrases("colours")
    assert colours["top"][0] == Phrase("top", frozenset(HAIR_TOPS) - {"bald"}, "noun", "{c} hair")
    assert colours["facial_hair"][0].values == frozenset(VALUES["facial_hair"]) - {"none"}
    assert phrases.phrases("negations")["top"][0].values == frozenset(VALUES["top"]) - frozenset(HAT_TOPS)


def test_signs_say_how_a_phrase_stands() -> None:
    hair = phrases.phrases("colours")["hair_colour"]
    said = {phrase.text: phrase.kind for phrase in [*hair, *phrases.phrases("wordings")["skin"]]}
    assert (said["ginger"], said["blondie"], said["white"], said["fair skin"]) == (
        *("adjective", "loose", "epithet", "noun"),
    )


def test_each_background_is_named_by_its_own_word() -> None:
    found = phrases.phrases("wordings")["background"]
    assert {phrase.values for phrase in found} == {frozenset({value}) for value in VALUES["background"]}
    for phrase in found:
        (value,) = phrase.values
        assert value in phrase.text.split()


def test_prints_are_of_all_shirts() -> None:
    skulls = [p.text for p in phrases.phrases("wordings")["graphic"] if p.values == {"skull"}]
    assert "a {c} shirt with a skull" in skulls and "a skull print" in skulls and "a {c} skeleton shirt" in skulls
    assert len(skulls) == 15


def test_what_is_not_there_is_said_as_its_value_is() -> None:
    bare = [p for p in phrases.phrases("wordings")["facial_hair"] if p.values == {"none"}]
    assert phrases.phrases("negations")["facial_hair"] == bare


def test_nothing_of_the_file_is_left_in_the_phrases() -> None:
    for kind in ("wordings", "colours", "negations"):
        for table in phrases.phrases(kind).values():
            for phrase in table:
                left = phrase.text.replace("{c}", "red")
                assert left and left == left.strip() and not set(left) & set("{}*$;=+~\n"), phrase
                assert phrase.values and phrase.values <= set(VALUES[phrase.attribute])
