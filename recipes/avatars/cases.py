"""What a model is asked to do: prompts with what they claim, and edits of rendered avatars.

Everything is a function of a number and the seed of a series of avatars, so that two models get the same cases.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import torch

from imagebart.text.conditioners import Conditioner
from imagebart.worlds.attribute_classifier import GROUPS, CaptionReader
from imagebart.worlds.avatars import HAIR, HAIR_TOPS, VALUES, Attributes, Claims
from recipes import generator
from recipes.avatars import data_file
from recipes.avatars.artwork import background_mask, region_mask, render
from recipes.avatars.captions import describe
from recipes.avatars.dataset import HELD_OUT_PAIRS, held_out, sample

MOST_NAMED = 6
SMALL = 64  # pixels a side of the renders by which an attribute's place is found
MOSTLY = 0.8  # the share of an edit that its mask has to hold: a hijab reaches far out of the mask for hair

EDITED = {
    "top": "hair",
    "hair_color": "hair",
    "hat_color": "hair",
    "facial_hair": "chin",
    "facial_hair_color": "chin",
    "accessory": "eyes",
    "eyes": "eyes",
    "eyebrows": "eyes",
    "mouth": "mouth",
    "clothing": "clothes",
    "clothing_color": "clothes",
    "graphic": "clothes",
    "background": "background",
}
"""The region to mask to change an attribute. Skin shows everywhere, so no mask changes it alone."""


@dataclass(frozen=True)
class PromptCase:
    """A prompt, and of each attribute that it names the values that an image may show."""

    text: str
    claims: Claims


@dataclass(frozen=True)
class Change:
    """An avatar, the same with one attribute changed, and a prompt that asks for it."""

    before: Attributes
    after: Attributes
    attribute: str
    prompt: PromptCase


@dataclass(frozen=True)
class EditCase(Change):
    """A change with its mask, and what lies outside of the mask."""

    mask: np.ndarray  # bool [size, size], True where the model regenerates
    outside: frozenset[str]  # the other attributes, of which most lies outside the mask


def found(reading: Attributes, claims: Claims) -> dict[str, bool]:
    """Whether what is claimed of each attribute shows in an image, given what is read in it.

    A hidden value does not count: the color of hair under a hat.
    """
    shown, values = reading.visible(), reading.as_dict()
    return {name: name in shown and values[name] in allowed for name, allowed in claims.items()}


def seen_prompt(number: int, series: int) -> PromptCase:
    """A caption as in training, of another avatar: one to six attributes named, in turn."""
    attributes = sample(number, series, "train")
    said = describe(attributes, generator(number, series, 1), 1 + number % MOST_NAMED)
    return PromptCase(said.text, said.claims)


def held_out_prompt(number: int, series: int) -> PromptCase:
    """A caption that names a pair of values that no training image shows together, the pairs in turn."""
    pair = HELD_OUT_PAIRS[number % len(HELD_OUT_PAIRS)]
    count = 2 + number % (MOST_NAMED - 1)
    for attempt in range(10_000):
        random = generator(number * 10_000 + attempt, series, 2)
        attributes = replace(sample(number * 10_000 + attempt, series, "all"), **pair)
        if not pair.keys() <= attributes.visible():
            continue
        said = describe(attributes, random, count)
        if all(said.claims.get(name) == {value} for name, value in pair.items()):
            return PromptCase(said.text, said.claims)
    raise ValueError(f"no caption of {count} attributes names {pair}; the grammar or the pair has to change")


def changes(number: int, series: int, stream: int) -> Iterator[Change]:
    """Changes of the attribute of `EDITED` whose turn it is; stream: of random numbers.

    The prompt is true of the changed avatar and not of the one before, and names nothing outside that attribute's
    region; the new value shows. Neither avatar has a held-out pair.
    """
    attribute = tuple(EDITED)[number % len(EDITED)]
    nearby = {name for name, region in EDITED.items() if region == EDITED[attribute]}
    for attempt in range(10_000):
        index = number * 10_000 + attempt
        random = generator(index, series, stream)
        before = sample(index, series, "train")
        value = VALUES[attribute][random.integers(len(VALUES[attribute]))]
        after = replace(before, **{attribute: value})
        if attribute not in after.visible() or held_out(after):
            continue
        said = describe(after, random, 1)
        asked = attribute in said.claims and before.as_dict()[attribute] not in said.claims[attribute]
        if asked and said.claims.keys() <= nearby:
            yield Change(before, after, attribute, PromptCase(said.text, said.claims))
    raise ValueError(f"no caption asks for another {attribute}; the grammar has to name its values")


@lru_cache(maxsize=512)  # several studies have the same cases
def edit_case(number: int, series: int, size: int) -> EditCase:
    """The first of the changes that its mask holds for the most part; its mask is `size` pixels a side."""
    for change in changes(number, series, 3):
        before, attribute = change.before, change.attribute
        difference = np.abs(render(before, SMALL).astype(int) - render(change.after, SMALL)).sum(2)
        small = edit_mask(before, attribute, SMALL)
        if difference[small].sum() / max(difference.sum(), 1) >= MOSTLY:
            break
    stays = before.visible() & change.after.visible() - {attribute}
    outside = frozenset(name for name in stays if share_within(before, name, ~small)[0] >= 0.5)
    mask = edit_mask(before, attribute, size)
    mask.setflags(write=False)
    return EditCase(**vars(change), mask=mask, outside=outside)


def edit_mask(attributes: Attributes, attribute: str, size: int) -> np.ndarray:
    """The mask to change an attribute of an avatar: bool [size, size]."""
    region = EDITED[attribute]
    return background_mask(attributes, size) if region == "background" else region_mask(region, size)


def share_within(attributes: Attributes, name: str, area: np.ndarray) -> tuple[float, float]:
    """How much of an attribute lies within an area, bool [size, size]: the least and the largest share, 0 to 1.

    Of the pixels that another value would change, the share within the area, over all other values; (0, 0) of an
    attribute that does not show.
    """
    image = render(attributes, len(area))
    shares = []
    for value in VALUES[name]:
        changed = (render(replace(attributes, **{name: value}), len(area)) != image).any(2)
        if changed.any():
            shares.append(float(changed[area].sum() / changed.sum()))
    return min(shares, default=0.0), max(shares, default=0.0)


WORDS = {
    "shades": "sunglasses|white sunglasses",
    "specs": "glasses|round glasses",
    "bare eyes": "none|eyepatch",
    "beard": "beard|long beard",
    "moustache": "moustache|curled moustache",
    "smile": "smile|slight smile",
    "long": "straight|wavy",
    "hat": "hat|beanie|earflaps",
    "hair": "|".join(HAIR_TOPS),
    "haired": "|".join(sorted(HAIR)),
}
"""What common words stand for in the files of prompts; other values stand for themselves."""


def plain_prompts() -> list[PromptCase]:
    """Sixty prompts as people type them, in a fixed order."""
    return read_prompts(data_file("prompts_plain.txt"))


def typed_prompts(half: Literal["seen", "held"]) -> list[PromptCase]:
    """Prompts as people type them who do not know what the model knows, in a fixed order.

    Written before the words in them were taught. The first half may be looked at when words are added, the second is
    for reporting. A color that the artwork lacks claims the nearest that it has; a prompt may claim nothing.
    """
    return read_prompts(data_file(f"prompts_typed_{half}.txt"))


def read_prompts(lines: str) -> list[PromptCase]:
    """Prompts with their claims, one a line: `a red hat: top=hat, hat_color=red`; a key of `WORDS` may be a value."""
    cases = []
    for line in lines.strip().splitlines():
        text, claimed = line.split(":")
        claims = {}
        for claim in filter(None, claimed.strip().split(", ")):
            name, value = claim.split("=")
            # "hat" and "moustache" are words and values: as a word, any of its kind will do.
            claims[name] = frozenset(WORDS.get(value, value).split("|"))
            if not claims[name] <= set(VALUES[name]):
                raise ValueError(f"{sorted(claims[name])} in the prompt {text!r} are not all values of {name!r}")
        cases.append(PromptCase(text, claims))
    return cases


@dataclass(frozen=True)
class PromptReading:
    """What a text encoder reads in a prompt: the likeliest value of each attribute that it takes to be named."""

    case: PromptCase
    values: dict[str, str]

    @property
    def right(self) -> int:
        """Claims that are read as they are meant."""
        return sum(self.values.get(name) in allowed for name, allowed in self.case.claims.items())

    @property
    def unasked(self) -> int:
        """Attributes that are read though the prompt claims nothing of them."""
        return len(self.values.keys() - self.case.claims.keys())


@torch.no_grad()
def read_with(reader: CaptionReader, conditioner: Conditioner, cases: Sequence[PromptCase]) -> list[PromptReading]:
    """Reads prompts by the query tokens of a text encoder, without generating: a second for hundreds."""
    logits, _ = reader.eval()(conditioner.encode([case.text for case in cases]).tokens)
    readings = []
    for case, row in zip(cases, logits, strict=True):
        best = [int(part.argmax()) for part in row.split(GROUPS)]
        named = {name: values[i] for i, (name, values) in zip(best, VALUES.items(), strict=True) if i < len(values)}
        readings.append(PromptReading(case, named))
    return readings


def summary(name: str, readings: Sequence[PromptReading]) -> str:
    """How much of prompts is read rightly, in a line."""
    claims, right = sum(len(one.case.claims) for one in readings), sum(one.right for one in readings)
    whole = sum(one.right == len(one.case.claims) for one in readings)
    unasked = sum(one.unasked for one in readings)
    return (
        f"{name}: {right} of {claims} claims read rightly, {whole} of {len(readings)} prompts wholly, "
        f"{unasked} attributes read unasked"
    )
