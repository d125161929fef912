"""Spelling corrections, against a brute-force edit distance; and substitutions."""

from __future__ import annotations

import random
from collections.abc import Iterable
from functools import cache

import pytest

from imagebart.text.prompts import LONG, ColoredThing, Correction, PromptRules, SpellChecker, Substitution, pieces_of
from recipes.avatars.captions import all_words, prompt_rules

WORDS = ["sunglasses", "glasses", "blonde", "hair", "beard", "bearded", "black", "back", "white", "wide", "with", "hat"]
WORDS += ["skull", "spiky", "straight", "goatee", "red", "man", "bun", "eyebrow", "brow", "dreadlocks"]
WORDS += ["t", "shirt", "angry", "an", "grey"]
OTHERS = "re bu q haz bed rod rad led bar pal hug sit cot tie pin ten bum had ham rid bad rat mat hit pig"


@pytest.fixture(scope="module")
def speller() -> SpellChecker:
    return SpellChecker(frozenset(WORDS))


def corrected(speller: SpellChecker, text: str) -> tuple[str, list[Correction]]:
    found, corrections = speller.correct(list(pieces_of(text)))
    return " ".join(piece.text for piece in found), corrections


@cache
def distance(a: str, b: str) -> int:
    """Edits from a to b, by trying each at the first letter; two that change places are one edit, and stay so."""
    if not a or not b:
        return len(a) + len(b)
    choices = [distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0])]
    if len(a) > 1 and len(b) > 1 and a[0] == b[1] and a[1] == b[0]:
        choices.append(distance(a[2:], b[2:]) + 1)
    return min(choices)


def test_a_word_is_taken_for_a_nearest_one_within_its_edits() -> None:
    chance = random.Random(0)
    vocabulary = ["".join(chance.choices("qxzj", k=chance.randint(5, 8))) for _ in range(30)]
    speller = SpellChecker(frozenset(vocabulary))
    outcomes = set()
    for _ in range(400):
        typed = "".join(chance.choices("qxzj", k=chance.randint(4, 9)))
        if typed in vocabulary or len(next(pieces_of(typed)).ids) == 1:
            continue
        distances = {word: distance(typed, word) for word in vocabulary}
        nearest = min(distances.values())
        meant = speller.correction(typed)
        if nearest <= (1 if len(typed) < LONG else 2):
            assert meant is not None and distances[meant] == nearest, typed
        else:
            assert meant is None, typed
        outcomes.add((meant is None, nearest))
    assert {(False, 1), (False, 2), (True, 2), (True, 3)} <= outcomes


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        *[("sunglases", "sunglasses"), ("blone", "blonde"), ("beared", "beard"), ("balck", "black"), ("wite", "white")],
        *[("hatt", "hat"), ("skul", "skull"), ("spikey", "spiky"), ("streight", "straight"), ("gogatee", "goatee")],
        *[("redhair", "red hair"), ("angrey", "angry")],
        *[("manbun", "man bun"), ("skulls", "skull"), ("beards", "beard")],
    ],
)
def test_what_was_meant(speller: SpellChecker, typed: str, meant: str) -> None:
    assert speller.correction(typed) == meant
    assert corrected(speller, typed.upper()) == (meant, [Correction(typed.upper(), meant)])


@pytest.mark.parametrize("word", ["witch", "beer", "whit", "boat", "zebra", "strait", "qwertyuiop", "hatter", "b3ard"])
def test_words_of_their_own_and_words_like_none_stay(speller: SpellChecker, word: str) -> None:
    assert speller.correction(word) is None
    assert corrected(speller, word)[1] == []


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        *[("blu hair", "blue hair"), ("pnk hair", "pink hair"), ("grn background", "green background")],
        *[("rde hta", "red hat"), ("a gry hat", "a grey hat"), ("gren eys", "green eyes"), ("wht", "white")],
    ],
)
def test_short_words_are_read_as_what_people_mean_by_them(typed: str, meant: str) -> None:
    found, corrections = corrected(SpellChecker(frozenset(all_words()), prompt_rules().misspellings), typed)
    assert found == meant
    assert [(one.typed, one.meant) for one in corrections] == [
        pair for pair in zip(typed.split(), meant.split(), strict=True) if pair[0] != pair[1]
    ]


@pytest.mark.parametrize(
    ("words", "typed", "meant"),
    [
        (WORDS, "dread locks and hair", {"dread locks": "dreadlocks"}),
        (WORDS, "eye-brow", {"eye-brow": "eyebrow"}),
        (WORDS, "dread, locks", {}),
        (WORDS, "man bun", {}),
        (WORDS, "t-shirt, dread", {}),
        (["zig", "zop", "zigzop"], "zig zop", {}),  # both are known
        (["zig", "zop", "zigzop"], "zi gzop", {"zi gzop": "zigzop"}),
        (["zig", "zozop", "zigzo", "zop"], "zigzozop", {"zigzozop": "zigzo zop"}),  # the first as long as possible
        (["dark", "back"], "dack", {"dack": "dark"}),  # though "back" is the commoner word
        *((reversed(WORDS), typed, {typed: meant}) for typed, meant in (("blak", "black"), ("beared", "beard"))),
    ],
)
def test_words_in_one_and_in_two_pieces(words: Iterable[str], typed: str, meant: dict[str, str]) -> None:
    corrections = corrected(SpellChecker(frozenset(words)), typed)[1]
    assert {one.typed: one.meant for one in corrections} == meant


def test_every_known_word_stays() -> None:
    words = all_words()
    speller = SpellChecker(frozenset(words))
    for word in OTHERS.split():
        assert word in speller.words or speller.correction(word) is None
    for word in words:
        for typed in (word, word.upper(), word.capitalize()):
            assert corrected(speller, typed) == (typed, [])
    text = " ".join(words)
    assert corrected(speller, text) == (text, [])


# Substitutions


NEAREST = {"purple": "pink", "mauve": "pink", "neon": ""}
HAIR = ColoredThing(name="hair", words=("hair", "afro"), colors=("red", "pink", "black"), nearest=NEAREST)
CLOTHES = ColoredThing(
    name="clothing",
    words=("shirt", "hoodie"),
    colors=("red", "pink", "purple"),
    nearest={"mauve": "purple"},
    lead_words=("in", "wearing"),
)
WALL = ColoredThing(name="wall", words=("wall",), colors=("purple",), nearest={"red": "purple"}, lead_words=("on",))
OLD = Substitution(words="very old", replacement="grey", unless=("bald",), unless_colored="hair")
RULES = PromptRules(
    substitutions=(OLD, Substitution(words="bowler", replacement="hat")),
    things=(HAIR, CLOTHES, WALL),
    stop_words=("with", "and", "in", "on", "a"),
    link_words=("in", "is", "and", "long"),
)
KNOWN = frozenset(
    {"grey", "hat", "bald", "hair", "afro", "shirt", "hoodie", "wall", "red", "pink", "black", "purple"}
    | {"with", "and", "in", "on", "a", "is", "long", "curly"}
)


def rewritten(text: str) -> tuple[str, list[str]]:
    rewritten_ = RULES.apply(list(pieces_of(text)), KNOWN)
    return " ".join(piece.text for piece in rewritten_.pieces), rewritten_.notes


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
def test_a_color_belongs_to_what_stands_by_it(typed: str, meant: str) -> None:
    assert rewritten(typed)[0] == meant


def test_notes_name_each_unknown_color_once() -> None:
    assert rewritten("Mauve hair, mauve hair")[1] == ["There is no mauve hair here; pink is the nearest."]
    assert rewritten("neon hair") == ("hair", ["There is no neon hair here; the color was left out."])
    assert rewritten("red hair, purple shirt")[1] == []


def test_the_color_of_an_unknown_thing_goes_with_it() -> None:
    rewritten_ = RULES.apply(list(pieces_of("red Lips, red hair")), KNOWN)
    assert [piece.word for piece in rewritten_.pieces] == ["red lips", "", "red", "hair"]
    assert rewritten("purple wizard shirt")[0] == "purple wizard shirt"
    blonde = PromptRules(things=(ColoredThing(name="hair", words=("hair",), colors=("blonde",)),)).apply(
        list(pieces_of("blonde lady")), KNOWN
    )
    assert [piece.word for piece in blonde.pieces] == ["blonde", "lady"]


def test_words_are_substituted() -> None:
    rewritten_ = RULES.apply(list(pieces_of("Very old bowler, very old")), KNOWN)
    assert " ".join(piece.text for piece in rewritten_.pieces) == "grey hat , grey"
    assert rewritten_.corrections == [
        Correction("Very old", "grey"), Correction("very old", "grey"), Correction("bowler", "hat")
    ]  # fmt: skip
    assert rewritten("old")[0] == "old"
    words = list(pieces_of("purple hair with a red bowler"))
    assert PromptRules().apply(words, KNOWN).pieces == words


@pytest.mark.parametrize("otherwise", ["bald", "red hair", "hair in purple"])
def test_substitutions_have_exceptions(otherwise: str) -> None:
    assert rewritten(f"very old, {otherwise}")[0].startswith("very old")
    assert rewritten("very old, hair, red shirt")[0].startswith("grey")
