from __future__ import annotations

import pytest
import torch
from pydantic import TypeAdapter

from imagebart.core.errors import InputError
from imagebart.text.conditioners import (
    ClassConditioner,
    ClipTextConditioner,
    Conditioner,
    NoConditioner,
    TextConditioner,
)
from imagebart.text.prompts import VOCAB_SIZE, ColoredThing, PromptRules, Substitution, pieces_of

CONFIG: TypeAdapter[Conditioner] = TypeAdapter(Conditioner)
CAPTIONS = ["a woman with long red hair, no glasses", "A bearded man's sunglasses", "zigzag hoodie"]


@pytest.fixture(scope="module")
def text() -> TextConditioner:
    return TextConditioner.from_captions(CAPTIONS)


def clip_ids(prompt: str) -> list[int]:
    return [token for piece in pieces_of(prompt) for token in piece.ids]


def back_to_clip(conditioner: TextConditioner, row: torch.Tensor) -> list[int]:
    return [conditioner.tokens[i - 1] for i in row.tolist() if i]


def every_conditioner() -> list[Conditioner]:
    classes = ClassConditioner(names=("tabby cat", "hen"), offset=16, null_class=True)
    text = TextConditioner.from_captions(CAPTIONS, 20, understood=["big", "red"])
    return [text, ClipTextConditioner(), classes, NoConditioner()]


@pytest.mark.parametrize("conditioner", every_conditioner(), ids=lambda c: type(c).__name__)
class TestEveryConditioner:
    def test_tokens_have_the_promised_shape_and_range(self, conditioner: Conditioner) -> None:
        prompts: list[str | int | None] = ["hen", "", None, "   "]
        for tokens in (conditioner.encode(prompts).tokens, conditioner.unconditional(4), conditioner.unconditional(0)):
            assert tokens.dtype == torch.int64
            assert tokens.shape[1:] == (conditioner.length,)
            assert ((tokens >= 0) & (tokens < conditioner.vocab_size)).all()
        assert conditioner.encode(prompts).tokens.shape[0] == 4

    def test_absent_prompts_equal_null(self, conditioner: Conditioner) -> None:
        assert torch.equal(conditioner.encode([None, "", " \t\n\u3000"]).tokens, conditioner.unconditional(3))

    def test_config_brings_it_back(self, conditioner: Conditioner) -> None:
        assert CONFIG.validate_json(conditioner.model_dump_json()) == conditioner


def test_captions_are_known_to_the_last_token(text: TextConditioner) -> None:
    encoded = text.encode([caption.upper() for caption in CAPTIONS])
    assert encoded.notes == []
    for caption, row in zip(CAPTIONS, encoded.tokens, strict=True):
        assert back_to_clip(text, row) == clip_ids(caption)


def test_words_that_a_scorer_understands_are_known_and_left_out(text: TextConditioner) -> None:
    more = TextConditioner.from_captions(CAPTIONS, understood=["red", "several", "woman"])
    assert (more.words, more.understood) == (text.words, ("several",))
    encoded = more.encode(["severl 12 red sunglases and 2b"])
    assert encoded.notes == ['"severl" was read as "several", "sunglases" as "sunglasses".', unknown("and", "2b")]
    assert torch.equal(encoded.tokens, text.encode(["red sunglasses"]).tokens)
    assert more.corrected_words("Severl 12 red-sunglases!") == ["several", "12", "red", "sunglasses"]
    assert text.unknown_words("several 12 red") == ["several", "12"]


def test_vocabulary_is_compact(text: TextConditioner) -> None:
    used = {token for caption in CAPTIONS for token in clip_ids(caption)}
    assert text.vocab_size == 1 + len(used)
    words = "a bearded glasses hair hoodie long man no red sunglasses with woman zigzag"
    assert text.words == tuple(words.split())


CUT = 'The prompt was cut at 77 tokens: from "{}" on it was ignored.'


def unknown(*words: str) -> str:
    named = ", ".join(f'"{word}"' for word in words)
    return f"This model does not know: {named}. {'They were' if len(words) > 1 else 'It was'} ignored."


@pytest.mark.parametrize(
    ("prompt", "read", "notes"),
    [
        ("a Zebra with red hair, quickly!", "a with red hair,", [unknown("Zebra", "quickly")]),
        ("zebra ZEBRA", "", [unknown("zebra")]),
        ("red zigs hair", "red hair", [unknown("zigs")]),  # of known and unknown tokens
        ("red zag", "red", [unknown("zag")]),  # of known tokens, but only ever a part of a word
        ("red; hair!!! (long) …", "red hair long", []),
        ("red 😎 hair, очки, हिन्दी", "red hair, ,", [unknown("😎", "очки", "हिन्दी")]),
        ("red " * 75, "red " * 75, []),
        ("red " * 75 + "sunglasses hair", "red " * 75, [CUT.format("sunglasses")]),
        ("zebra " * 75 + "red", "", [CUT.format("red"), unknown("zebra")]),
    ],
)
def test_unknown_words_are_left_out_and_long_prompts_cut(
    text: TextConditioner, prompt: str, read: str, notes: list[str]
) -> None:
    encoded = text.encode([prompt])
    assert back_to_clip(text, encoded.tokens[0]) == clip_ids(read)
    assert encoded.notes == notes


def test_the_tokens_of_unknown_words_may_be_known(text: TextConditioner) -> None:
    assert {token in text.tokens for token in clip_ids("zigs")} == {True, False}
    assert set(clip_ids("zag")) <= set(text.tokens)


def test_a_short_model_cuts_at_its_own_length() -> None:
    short = TextConditioner.from_captions(CAPTIONS, length=3)
    encoded = short.encode(["a zebra with red sunglasses"])
    assert back_to_clip(short, encoded.tokens[0]) == clip_ids("a with red")
    assert encoded.notes[0] == CUT.format("sunglasses").replace("77", "3")


def test_unknown_words_are_those_that_encode_names(text: TextConditioner) -> None:
    prompt = "a zebra with Glasses, a ZEBRA with no zebra 😎"
    assert text.unknown_words(prompt) == ["zebra", "ZEBRA", "😎"]
    assert text.unknown_words("") == text.unknown_words("a man, with glasses!") == []


def test_misspelt_words_are_read_and_named(text: TextConditioner) -> None:
    encoded = text.encode(["Sunglases, zebra, reed hiar", "sunglases"])
    assert back_to_clip(text, encoded.tokens[0]) == clip_ids("sunglasses, , hair")
    assert encoded.notes == [
        '"sunglases" was read as "sunglasses", "hiar" as "hair".',
        'This model does not know: "zebra", "reed". They were ignored.',
    ]
    assert text.unknown_words("Sunglases, zebra, hiar") == ["zebra"]
    assert [(one.typed, one.meant) for one in text.corrections("Sunglases zebra hiar hiar")] == [
        ("Sunglases", "sunglasses"),
        ("hiar", "hair"),
    ]


def test_prompt_rules_are_applied_and_saved(text: TextConditioner) -> None:
    hair = ColoredThing(name="hair", words=("hair",), colors=("red",), nearest={"purple": "red"})
    rules = PromptRules(substitutions=(Substitution(words="old", replacement="long"),), things=(hair,))
    other = TextConditioner.from_captions(CAPTIONS, rules=rules)
    encoded = other.encode(["Old purple hiar"])
    assert back_to_clip(other, encoded.tokens[0]) == clip_ids("long red hair")
    assert encoded.notes == [
        "There is no purple hair here; red is the nearest.",
        '"hiar" was read as "hair", "old" as "long".',
    ]
    assert other.unknown_words("old purple hair") == []
    config = other.model_dump_json()
    assert TextConditioner.from_json(config) == other != text
    with pytest.raises(ValueError, match=r"prompt_rules\.things\[0\]\.nearest is 3, expected an object"):
        TextConditioner.from_json(config.replace('{"purple":"red"}', "3"))


def test_notes_on_many_words_are_short(text: TextConditioner) -> None:
    (note,) = text.encode([" ".join(f"hoodi{chr(97 + i)}" for i in range(14))]).notes
    assert note.endswith('"hoodik" as "hoodie", and 3 more likewise.')
    (note,) = text.encode([" ".join(f"word{chr(97 + i)}" for i in range(14))]).notes
    assert note.endswith('"wordj" and 4 more. They were ignored.')
    (note,) = text.encode(["hair" * 12]).notes
    assert len(note) < 110


@pytest.mark.parametrize("prompt", ["x" * 10_000, "😎" * 10_000, "red, " * 2_000, "女" * 10_000])
def test_ten_thousand_characters(text: TextConditioner, prompt: str) -> None:
    (note,) = text.encode([prompt]).notes
    assert note.startswith("The prompt was cut at 77 tokens: from ") and len(note) < 150


def test_class_for_a_text_model_is_refused(text: TextConditioner) -> None:
    with pytest.raises(InputError, match="not class 3"):
        text.encode([3])


def test_clip_layout_and_cut() -> None:
    clip = ClipTextConditioner()
    assert clip.vocab_size == VOCAB_SIZE
    row = clip.encode(["a"]).tokens[0].tolist()
    assert row == [49406, 320, 49407] + [0] * 74
    encoded = clip.encode(["a " * 75 + "hat"])
    assert encoded.tokens[0].tolist() == [49406] + [320] * 75 + [49407]
    assert encoded.notes == ['The prompt was cut at 77 tokens: from "hat" on it was ignored.']


class TestClasses:
    classes = ClassConditioner(names=("Tabby cat", "crane", "crane", "hen"), offset=100)

    @pytest.mark.parametrize(("prompt", "index"), [(0, 0), ("3", 3), (" tabby CAT ", 0), ("Crane", 1)])
    def test_names_and_numbers(self, prompt: str | int, index: int) -> None:
        assert self.classes.encode([prompt, 2]).tokens.tolist() == [[100 + index], [102]]
        assert self.classes.vocab_size == 104

    @pytest.mark.parametrize("prompt", [4, -1, "4", "-1", "99999999999999999999"])
    def test_number_outside_is_named(self, prompt: str | int) -> None:
        with pytest.raises(InputError, match=f"no class {prompt}: this model's classes are 0 to 3"):
            self.classes.encode([prompt])

    def test_unknown_name_is_named_with_a_hint(self) -> None:
        with pytest.raises(InputError, match='no class "Tabbi cat". Did you mean "tabby cat"'):
            self.classes.encode(["Tabbi cat"])
        with pytest.raises(InputError, match='no class "quickly". Choose one'):
            self.classes.encode(["quickly"])

    @pytest.mark.parametrize("prompt", [None, "", "  "])
    def test_absent_class_needs_a_model_trained_for_it(self, prompt: str | None) -> None:
        with pytest.raises(InputError, match="guidance"):
            self.classes.encode([prompt])
        with pytest.raises(InputError, match="guidance"):
            self.classes.unconditional(2)

    def test_null_class_follows_the_last(self) -> None:
        classes = ClassConditioner(names=("cat", "hen"), offset=5, null_class=True)
        assert classes.unconditional(2).tolist() == [[7], [7]] and classes.vocab_size == 8


def test_prompt_for_an_unconditional_model_is_ignored_and_said() -> None:
    assert NoConditioner().encode([None, ""]).notes == []
    (note,) = NoConditioner().encode(["hat", 3]).notes
    assert note == "This model takes no prompt: what you wrote was ignored."
