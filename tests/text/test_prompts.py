"""Tokens against ids recorded from open_clip 3.3.0; spelling against a brute-force edit distance; substitutions."""

import json
import random
import time
from functools import cache
from pathlib import Path

import pytest

from imagebart.text.prompts import ColoredThing, Correction, PromptRules, SpellChecker, Substitution, pieces_of
from recipes.avatars.captions import all_words

RECORDED = json.loads((Path(__file__).parents[1] / "fixtures" / "clip_tokens.json").read_text(encoding="utf-8"))


def test_ids_equal_those_of_clip() -> None:
    for row in RECORDED:
        ids = [token for piece in pieces_of(row["prompt"]) for token in piece.ids]
        assert [49406, *ids[:75], 49407] == row["ids"], row["prompt"]


def test_text_is_split_into_words_and_kept_as_typed() -> None:
    for text, words in (
        ("A red-haired woman, 80s style!", "a red haired woman 80s style"),
        *[("don't", "don"), ("cool😎!hat", "cool 😎 hat"), ("हिन्दी", "हिन्दी"), ("... -- !?", "")],
        *[("cafe\u0301", "café"), ("<|endoftext|>", "endoftext")],
        *[("a \ud83d\ude00 hat", "a 😀 hat"), ("a \ud83d hat", "a � hat")],  # a page's JSON can hold surrogates
    ):
        assert [piece.word for piece in pieces_of(text) if piece.word] == words.split()
    assert [piece.text for piece in pieces_of("A Zebra’s DON'T!")] == ["A", "Zebra’s", "’s", "DON'T", "'T", "!"]
    assert [piece.text for piece in pieces_of("hat'!")] == ["hat", "'!"]


@pytest.mark.parametrize("text", ["qz" * 5_000, "a!" * 5_000, "😎" * 10_000, "x" * 5_000_000])
def test_long_chunks_are_quick(text: str) -> None:
    list(pieces_of("warm up"))
    start = time.process_time()
    list(pieces_of(text))
    assert time.process_time() - start < 2


WORDS = ["sunglasses", "glasses", "blonde", "hair", "beard", "bearded", "black", "back", "white", "wide", "with", "hat"]
WORDS += ["skull", "spiky", "straight", "goatee", "red", "man", "bun", "eyebrow", "brow", "dreadlocks"]
WORDS += ["t", "shirt", "angry", "an", "grey"]
SPELLER = SpellChecker(frozenset(WORDS), {"hta": "hat"})


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
        if nearest <= (1 if len(typed) < 6 else 2):
            assert meant is not None and distances[meant] == nearest, typed
        else:
            assert meant is None, typed
        outcomes.add((meant is None, nearest))
    assert {(False, 1), (False, 2), (True, 2), (True, 3)} <= outcomes


def test_what_was_meant() -> None:
    for typed, meant in (
        *[("sunglases", "sunglasses"), ("blone", "blonde"), ("beared", "beard"), ("balck", "black"), ("wite", "white")],
        *[("hatt", "hat"), ("skul", "skull"), ("spikey", "spiky"), ("streight", "straight"), ("gogatee", "goatee")],
        *[("redhair", "red hair"), ("angrey", "angry"), ("hta", "hat")],
        *[("manbun", "man bun"), ("anhat", "an hat"), ("skulls", "skull"), ("beards", "beard")],
    ):
        assert SPELLER.correction(typed) == meant
        assert corrected(SPELLER, typed.upper()) == (meant, [Correction(typed.upper(), meant)])


def test_words_of_their_own_and_words_like_none_stay() -> None:
    for word in ("witch", "beer", "whit", "boat", "zebra", "strait", "qwertyuiop", "hatter", "b3ard", "bwn"):
        assert corrected(SPELLER, word) == (word, [])


def test_words_in_one_and_in_two_pieces() -> None:
    for words, typed, meant in (
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
    ):
        corrections = corrected(SpellChecker(frozenset(words)), typed)[1]
        assert {one.typed: one.meant for one in corrections} == meant


def test_every_known_word_stays() -> None:
    speller = SpellChecker(frozenset(all_words()))
    for text in (*all_words(), " ".join(all_words())):
        for typed in (text, text.upper(), text.capitalize()):
            assert corrected(speller, typed) == (typed, [])


# Substitutions.

NEAREST = {"purple": "pink", "mauve": "pink", "neon": ""}
HAIR = ColoredThing(name="hair", words=("hair", "afro"), colors=("red", "pink", "black", "blonde"), nearest=NEAREST)
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
OTHERS = "grey hat bald hair afro shirt hoodie wall red pink black purple is long curly"
KNOWN = frozenset((*OTHERS.split(), *RULES.stop_words))


def rewritten(text: str) -> tuple[str, list[str]]:
    read = RULES.apply(list(pieces_of(text)), KNOWN)
    return " ".join(piece.text for piece in read.pieces), read.notes


def test_a_color_belongs_to_what_stands_by_it() -> None:
    for typed, meant in (
        ("purple afro", "pink afro"),
        ("a Purple long-curly hair", "a pink long - curly hair"),
        ("purple" + " curly" * 5 + " hair", "pink" + " curly" * 5 + " hair"),
        ("purple hair and mauve shirt", "pink hair and purple shirt"),
        ("purple and black hair", "pink and black hair"),
        ("hair in purple", "hair in pink"),
        ("hair , long and purple", "hair , long and pink"),
        ("red hair in mauve", "red hair in purple"),
        ("hair wearing mauve", "hair wearing purple"),
        ("hair , in mauve", "hair , in purple"),
        ("hair in purple with a hat", "hair in pink with a hat"),
        ("hair on red", "hair on purple"),
    ):
        assert rewritten(typed)[0] == meant


def test_known_colors_and_those_of_nothing_stay() -> None:
    far = "purple" + " curly" * 6 + " hair"
    near = ("purple shirt", "red hair , purple", "mauve in", "hair in purple wizards", "purple with hair")
    for text in (far, *near, "shirt , purple , red hair", "purple , hair", ""):
        assert rewritten(text)[0] == text


def test_notes_name_each_unknown_color_once() -> None:
    assert rewritten("Mauve hair, mauve hair")[1] == ["There is no mauve hair here; pink is the nearest."]
    assert rewritten("neon hair") == ("hair", ["There is no neon hair here; the color was left out."])
    assert rewritten("red hair, purple shirt")[1] == []


def test_the_color_of_an_unknown_thing_goes_with_it() -> None:
    """But for one that is a single thing's color, which names it."""
    read = RULES.apply(list(pieces_of("red Lips, red hair, blonde lady")), KNOWN)
    assert [piece.word for piece in read.pieces] == ["red lips", "", "red", "hair", "", "blonde", "lady"]
    assert rewritten("purple wizard shirt")[0] == "purple wizard shirt"


def test_words_are_substituted_but_for_exceptions() -> None:
    read = RULES.apply(list(pieces_of("Very old bowler, very old")), KNOWN)
    assert " ".join(piece.text for piece in read.pieces) == "grey hat , grey"
    assert read.corrections == [("Very old", "grey"), ("very old", "grey"), ("bowler", "hat")]
    assert rewritten("old")[0] == "old" and rewritten("very old, hair, red shirt")[0].startswith("grey")
    for otherwise in ("bald", "red hair", "hair in purple"):
        assert rewritten(f"very old, {otherwise}")[0].startswith("very old")
    words = list(pieces_of("purple hair with a red bowler"))
    assert PromptRules().apply(words, KNOWN).pieces == words
