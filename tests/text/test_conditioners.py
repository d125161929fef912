"""From prompts and classes to tokens, and what is said to who wrote them."""

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
from imagebart.text.prompts import ColoredThing, PromptRules, Substitution, pieces_of

CAPTIONS = ["a woman with long red hair, no glasses", "A bearded man's sunglasses", "zigzag hoodie"]
TEXT = TextConditioner.from_captions(CAPTIONS)
CLASSES = ClassConditioner(names=("Tabby cat", "crane", "crane", "hen"), offset=100)
EVERY: list[Conditioner] = [
    TextConditioner.from_captions(CAPTIONS, 20, understood=["big", "red"]),
    ClipTextConditioner(),
    CLASSES.replace(null_class=True),
    NoConditioner(),
]


def clip_ids(prompt: str) -> list[int]:
    return [token for piece in pieces_of(prompt) for token in piece.ids]


def read(conditioner: TextConditioner, prompt: str) -> list[int]:
    """A prompt's tokens as CLIP's ids."""
    return [conditioner.tokens[i - 1] for i in conditioner.encode([prompt]).tokens[0].tolist() if i]


@pytest.mark.parametrize("conditioner", EVERY, ids=lambda c: type(c).__name__)
def test_tokens_have_the_promised_shape_and_range(conditioner: Conditioner) -> None:
    prompts: list[str | int | None] = ["hen", "", None, " \t\n\u3000"]
    encoded = conditioner.encode(prompts).tokens
    for tokens in (encoded, conditioner.unconditional(3), conditioner.unconditional(0)):
        assert tokens.dtype == torch.int64 and tokens.shape[1:] == (conditioner.length,)
        assert ((tokens >= 0) & (tokens < conditioner.vocab_size)).all()
    assert encoded.shape[0] == 4 and torch.equal(encoded[1:], conditioner.unconditional(3))
    adapter: TypeAdapter[Conditioner] = TypeAdapter(Conditioner)
    assert adapter.validate_json(conditioner.model_dump_json()) == conditioner


def test_captions_are_known_to_the_last_token() -> None:
    assert TEXT.encode([caption.upper() for caption in CAPTIONS]).notes == []
    assert [read(TEXT, caption.upper()) for caption in CAPTIONS] == [clip_ids(caption) for caption in CAPTIONS]
    assert TEXT.vocab_size == 1 + len({token for caption in CAPTIONS for token in clip_ids(caption)})
    words = "a bearded glasses hair hoodie long man no red sunglasses with woman zigzag"
    assert TEXT.words == tuple(words.split())


MISSPELLED = '"sunglases" was read as "sunglasses", "hiar" as "hair".'
CUT = 'The prompt was cut at 77 tokens: from "{}" on it was ignored.'


def unknown(*words: str) -> str:
    named = ", ".join(f'"{word}"' for word in words)
    return f"This model does not know: {named}. {'They were' if len(words) > 1 else 'It was'} ignored."


def test_words_that_a_scorer_understands_are_known_and_left_out() -> None:
    more = TextConditioner.from_captions(CAPTIONS, understood=["red", "several", "woman"])
    assert (more.words, more.understood) == (TEXT.words, ("several",))
    encoded = more.encode(["severl 12 red sunglases and 2b"])
    assert encoded.notes == ['"severl" was read as "several", "sunglases" as "sunglasses".', unknown("and", "2b")]
    assert torch.equal(encoded.tokens, TEXT.encode(["red sunglasses"]).tokens)
    assert more.corrected_words("Severl 12 red-sunglases!") == ["several", "12", "red", "sunglasses"]
    assert TEXT.unknown_words("several 12 red") == ["several", "12"]


def test_words_are_left_out_corrected_or_cut() -> None:
    for prompt, meant, notes in (
        ("a Zebra with red hair, quickly!", "a with red hair,", [unknown("Zebra", "quickly")]),
        ("zebra ZEBRA", "", [unknown("zebra")]),
        ("red zigs hair", "red hair", [unknown("zigs")]),  # of known and unknown tokens
        ("red zag", "red", [unknown("zag")]),  # of known tokens, but only ever a part of a word
        ("red; hair!!! (long) …", "red hair long", []),
        ("red 😎 hair, очки, हिन्दी", "red hair, ,", [unknown("😎", "очки", "हिन्दी")]),
        ("red " * 75, "red " * 75, []),
        ("red " * 75 + "sunglasses hair", "red " * 75, [CUT.format("sunglasses")]),
        ("zebra " * 75 + "red", "", [CUT.format("red"), unknown("zebra")]),
        ("Sunglases, reed hiar", "sunglasses, hair", [MISSPELLED, unknown("reed")]),
    ):
        assert read(TEXT, prompt) == clip_ids(meant)
        assert TEXT.encode([prompt, prompt]).notes == notes
    short, prompt = TextConditioner.from_captions(CAPTIONS, length=3), "a zebra with red sunglasses"
    assert read(short, prompt) == clip_ids("a with red")
    assert short.encode([prompt]).notes[0] == CUT.format("sunglasses").replace("77", "3")


def test_words_are_named_as_typed_each_once() -> None:
    assert TEXT.unknown_words("a zebra with Glasses, a ZEBRA with no zebra 😎") == ["zebra", "ZEBRA", "😎"]
    assert TEXT.unknown_words("") == TEXT.unknown_words("a man, with glasses!") == []
    assert TEXT.corrections("Sunglases zebra hiar hiar") == [("Sunglases", "sunglasses"), ("hiar", "hair")]


def test_prompt_rules_are_applied_and_saved() -> None:
    hair = ColoredThing(name="hair", words=("hair",), colors=("red",), nearest={"purple": "red"})
    rules = PromptRules(substitutions=(Substitution(words="old", replacement="long"),), things=(hair,))
    other = TextConditioner.from_captions(CAPTIONS, rules=rules)
    assert read(other, "Old purple hiar") == clip_ids("long red hair")
    assert other.encode(["Old purple hiar"]).notes == [
        "There is no purple hair here; red is the nearest.",
        '"hiar" was read as "hair", "old" as "long".',
    ]
    assert other.unknown_words("old purple hair") == []
    config = other.model_dump_json()
    assert TextConditioner.from_json(config) == other != TEXT
    with pytest.raises(ValueError, match=r"prompt_rules\.things\[0\]\.nearest is 3, expected an object"):
        TextConditioner.from_json(config.replace('{"purple":"red"}', "3"))


def test_notes_on_many_and_long_words_are_short() -> None:
    (note,) = TEXT.encode([" ".join(f"hoodi{chr(97 + i)}" for i in range(14))]).notes
    assert note.endswith('"hoodik" as "hoodie", and 3 more likewise.')
    (note,) = TEXT.encode([" ".join(f"word{chr(97 + i)}" for i in range(14))]).notes
    assert note.endswith('"wordj" and 4 more. They were ignored.')
    (note,) = TEXT.encode(["hair" * 12]).notes
    assert len(note) < 110
    for prompt in ("x" * 10_000, "😎" * 10_000, "red, " * 2_000):
        (note,) = TEXT.encode([prompt]).notes
        assert note.startswith("The prompt was cut at 77 tokens: from ") and len(note) < 150


def test_clip_layout_and_cut() -> None:
    clip = ClipTextConditioner()
    assert clip.vocab_size == 49408
    assert clip.encode(["a"]).tokens[0].tolist() == [49406, 320, 49407] + [0] * 74
    encoded = clip.encode(["a " * 75 + "hat"])
    assert encoded.tokens.tolist() == [[49406] + [320] * 75 + [49407]] and encoded.notes == [CUT.format("hat")]


def test_classes_have_numbers_names_and_perhaps_their_absence() -> None:
    """Of two with a name, it is the first's; the null class follows the last."""
    assert CLASSES.encode([0, "3", " tabby CAT ", "Crane"]).tokens.tolist() == [[100], [103], [100], [101]]
    assert CLASSES.vocab_size == 104
    assert CLASSES.replace(null_class=True).unconditional(2).tolist() == [[104], [104]]
    with pytest.raises(InputError, match="guidance"):
        CLASSES.unconditional(2)


def test_what_a_model_cannot_take_is_said() -> None:
    for conditioner, prompt, said in (
        *((CLASSES, number, f"no class {number}: this model's classes are 0 to 3") for number in (4, "-1", "9" * 20)),
        (CLASSES, "Tabbi cat", 'no class "Tabbi cat". Did you mean "tabby cat"'),
        (CLASSES, "quickly", 'no class "quickly". Choose one'),
        (CLASSES, "  ", "guidance"),
        (TEXT, 3, "not class 3"),
        (ClipTextConditioner(vocab_size=9), "a", "knows 9 tokens"),
    ):
        with pytest.raises(InputError, match=said):
            conditioner.encode([prompt])
    assert NoConditioner().encode([None, ""]).notes == []
    assert NoConditioner().encode(["hat", 3]).notes == ["This model takes no prompt: what you wrote was ignored."]
