"""What a model cannot draw, and what is read in its place."""

from __future__ import annotations

import pytest

from imagebart.conditioning.prompts import ColouredThing, Correction, PromptRules, Substitution
from imagebart.conditioning.tokenizer import pieces

LACKING = {"purple": "pink", "mauve": "pink", "neon": ""}
HAIR = ColouredThing("hair", ("hair", "afro"), ("red", "pink", "black"), LACKING)
CLOTHES = ColouredThing(
    "clothing", ("shirt", "hoodie"), ("red", "pink", "purple"), {"mauve": "purple"}, ("in", "wearing")
)
WALL = ColouredThing("wall", ("wall",), ("purple",), {"red": "purple"}, ("on",))
TIMID = Substitution("very old", "grey", unless=("bald",), unless_coloured="hair")
REWORDING = PromptRules(
    (TIMID, Substitution("bowler", "hat")),
    (HAIR, CLOTHES, WALL),
    stop_words=("with", "and", "in", "on", "a"),
    link_words=("in", "is", "and", "long"),
)
KNOWN = frozenset(
    {"grey", "hat", "bald", "hair", "afro", "shirt", "hoodie", "wall", "red", "pink", "black", "purple"}
    | {"with", "and", "in", "on", "a", "is", "long", "curly"}
)


def read(text: str) -> tuple[str, list[str]]:
    reworded = REWORDING.apply(list(pieces(text)), KNOWN)
    return " ".join(piece.text for piece in reworded.pieces), reworded.notes


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("purple afro", "pink afro"),
        ("a Purple long curly hair", "a pink long curly hair"),
        ("purple" + " curly" * 5 + " hair", "pink" + " curly" * 5 + " hair"),
        ("purple" + " curly" * 6 + " hair", "purple" + " curly" * 6 + " hair"),
        ("purple shirt", "purple shirt"),
        ("purple hair and mauve shirt", "pink hair and purple shirt"),
        ("purple and black hair", "pink and black hair"),
        ("hair in purple", "hair in pink"),
        ("hair is purple", "hair is pink"),
        ("hair , purple", "hair , pink"),
        ("hair , long and purple", "hair , long and pink"),
        ("red hair in mauve", "red hair in purple"),
        ("red hair , purple", "red hair , purple"),
        ("hair wearing mauve", "hair wearing purple"),
        ("hair on red", "hair on purple"),
        ("shirt , purple , red hair", "shirt , purple , red hair"),
        ("purple", "purple"),
        ("purple , hair", "purple , hair"),
        ("", ""),
    ],
)
def test_a_colour_belongs_to_what_stands_by_it(typed: str, meant: str) -> None:
    assert read(typed)[0] == meant


def test_notes_say_what_is_lacking_once() -> None:
    assert read("Mauve hair, mauve hair")[1] == ["There is no mauve hair here; pink is the nearest."]
    assert read("neon hair") == ("hair", ["There is no neon hair here; the colour was left out."])
    assert read("red hair, purple shirt")[1] == []


def test_the_colour_of_an_unknown_thing_goes_with_it() -> None:
    reworded = REWORDING.apply(list(pieces("red Lips, red hair")), KNOWN)
    assert [piece.word for piece in reworded.pieces] == ["red lips", "", "red", "hair"]
    assert read("purple wizard shirt")[0] == "purple wizard shirt"
    blonde = PromptRules(things=(ColouredThing("hair", ("hair",), ("blonde",)),)).apply(
        list(pieces("blonde lady")), KNOWN
    )
    assert [piece.word for piece in blonde.pieces] == ["blonde", "lady"]


def test_words_for_what_cannot_be_drawn_are_replaced() -> None:
    reworded = REWORDING.apply(list(pieces("Very old bowler, very old")), KNOWN)
    assert " ".join(piece.text for piece in reworded.pieces) == "grey hat , grey"
    assert reworded.corrections == [
        Correction("Very old", "grey"), Correction("very old", "grey"), Correction("bowler", "hat")
    ]  # fmt: skip
    assert read("old")[0] == "old"


@pytest.mark.parametrize("otherwise", ["bald", "red hair", "hair in purple"])
def test_unless_something_says_otherwise(otherwise: str) -> None:
    assert read(f"very old, {otherwise}")[0].startswith("very old")
    assert read("very old, hair, red shirt")[0].startswith("grey")


def test_nothing_is_changed_where_there_is_nothing_to_change() -> None:
    words = list(pieces("purple hair with a red bowler"))
    assert PromptRules().apply(words, KNOWN).pieces == words
