"""What avatars lack, and what is read in its place."""

from __future__ import annotations

import pytest

from imagebart.text.conditioners import TextConditioner
from imagebart.text.prompts import pieces_of
from recipes.avatars.captions import all_words, avatar_conditioner, prompt_rules
from recipes.avatars.dataset import caption


@pytest.fixture(scope="module")
def conditioner() -> TextConditioner:
    return avatar_conditioner(77)


def test_captions_are_read_as_they_are(conditioner: TextConditioner) -> None:
    plainly = TextConditioner(tokens=conditioner.tokens, words=conditioner.words, length=conditioner.length)
    texts = [caption(number).text for number in range(1500)]
    read = conditioner.encode(texts)
    assert read.notes == [] and (read.tokens == plainly.encode(texts).tokens).all()
    for text in texts:
        assert conditioner.corrections(text) == []


def test_every_replacement_is_of_known_words() -> None:
    words = set(all_words())
    for entry in prompt_rules().substitutions:
        assert {piece.word for piece in pieces_of(entry.replacement)} - {""} <= words, entry
    for subject in prompt_rules().things:
        assert {"tan", "fair", *subject.colors} >= set(subject.nearest.values()) - {""}, subject.name
        assert not set(subject.colors) & set(subject.nearest)
        assert words >= set(subject.colors) | set(subject.nearest.values()) - {""}


def test_each_subject_has_its_own_words() -> None:
    named = [word for subject in prompt_rules().things for word in subject.words]
    assert len(named) == len(set(named))


@pytest.mark.parametrize(
    ("prompt", "notes"),
    [
        ("purple afro", ["There is no purple hair here; pink is the nearest."]),
        ("v neck, orange", ["There is no orange clothing here; yellow is the nearest."]),
        ("brown background", ["There is no brown background here; orange is the nearest."]),
        ("blue eyes", ["There is no blue eye color here; the color was left out."]),
        ("old", ['"old" was read as "grey-haired".']),
        ("old man with a red beanie", ['This model does not know: "old". It was ignored.']),
        ("old woman with black hair", ['This model does not know: "old". It was ignored.']),
        ("sunglases", ['"sunglases" was read as "sunglasses".']),
        ("blone har", ['"blone" was read as "blonde", "har" as "hair".']),
        ("green mohawk", ['This model does not know: "green mohawk". It was ignored.']),
        *[(prompt, []) for prompt in ("specs", "ginger woman with a bob", "batman t shirt", "frizzy hair")],
        *[(prompt, []) for prompt in ("purple wall", "T-Shirt", "v neck", "vneck", "v-neck", "orange hair")],
        ("white guy in a suit", []),
    ],
)
def test_prompts_of_new_users(conditioner: TextConditioner, prompt: str, notes: list[str]) -> None:
    assert conditioner.encode([prompt]).notes == notes


@pytest.mark.parametrize(
    ("prompt", "same"),
    [
        *[("purple afro", "pink afro"), ("old", "grey-haired"), ("Sunglases", "sunglasses")],
        *[("blone hair", "blonde hair"), ("hoodie in purple", "hoodie in pink"), ("red lips", "")],
        ("big blue eyes", "big eyes"),
    ],
)
def test_they_are_read_as_known_words(conditioner: TextConditioner, prompt: str, same: str) -> None:
    read = conditioner.encode([prompt, same]).tokens
    assert (read[0] == read[1]).all()
