"""What a model is asked to do: prompts with what they claim, avatars with one attribute to change, the page's examples.

Everything is a function of a number and the seed of a series of avatars, so that two models get the same cases.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from PIL import Image

from imagebart.worlds.avatars import HAIR, HAIR_TOPS, PLAIN, VALUES, Attributes, Claims
from recipes import generator
from recipes.avatars import data_file
from recipes.avatars.artwork import background_mask, region_mask, render
from recipes.avatars.captions import Caption, describe
from recipes.avatars.dataset import HELD_OUT_PAIRS, held_out, read_values, sample
from recipes.evaluation import Case

SIZE = 256  # pixels a side
MOST_NAMED = 6
PARTS = {
    "hair": ("top", "hair_color", "hat_color"),
    "chin": ("facial_hair", "facial_hair_color"),
    "eyes": ("accessory", "eyes", "eyebrows"),
    "mouth": ("mouth",),
    "clothes": ("clothing", "clothing_color", "graphic"),
    "background": ("background",),
}
EDITED = {attribute: part for part, attributes in PARTS.items() for attribute in attributes}
"""The part of an image in which an attribute shows. Skin shows everywhere, so no mask changes it alone."""


@dataclass(frozen=True)
class Change:
    """An avatar, the same with one attribute changed, and a prompt that asks for it."""

    before: Attributes
    after: Attributes
    attribute: str
    prompt: Caption

    @property
    def kept(self) -> Claims:
        """What is to stay: the attributes that show before and after and are not asked for, as they are."""
        names = (self.before.visible() & self.after.visible()) - {self.attribute} - self.prompt.claims.keys()
        return {name: frozenset({getattr(self.before, name)}) for name in names}


def found(reading: Attributes, claims: Claims) -> dict[str, bool]:
    """Whether what is claimed of each attribute shows in an image, given what is read in it.

    A hidden value does not count: the color of hair under a hat.
    """
    shown, values = reading.visible(), vars(reading)
    return {name: name in shown and values[name] in allowed for name, allowed in claims.items()}


def seen_prompt(number: int, series: int) -> Caption:
    """A caption as in training, of another avatar: one to six attributes named, in turn."""
    return describe(sample(number, series, "train"), generator(number, series, 1), 1 + number % MOST_NAMED)


def held_out_prompt(number: int, series: int) -> Caption:
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
            return said
    raise ValueError(f"no caption of {count} attributes names {pair}; the grammar or the pair has to change")


def changes(number: int, series: int, stream: int) -> Iterator[Change]:
    """Changes of the attribute of `EDITED` whose turn it is; stream: of random numbers.

    The prompt is true of the changed avatar and not of the one before, and names nothing that shows elsewhere; the new
    value shows. Neither avatar has a held-out pair.
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
        asked = attribute in said.claims and vars(before)[attribute] not in said.claims[attribute]
        if asked and said.claims.keys() <= nearby:
            yield Change(before, after, attribute, said)
    raise ValueError(f"no caption asks for another {attribute}; the grammar has to name its values")


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


def typed_prompts() -> list[Caption]:
    """Prompts as people type them who do not know what the model knows, written before words in them were taught.

    A color that the artwork lacks claims the nearest that it has; a prompt may claim nothing. Lines of the data are
    such as `a red hat: top=hat, hat_color=red`; a key of `WORDS` may be a value.
    """
    cases = []
    for line in data_file("prompts_typed.txt").strip().splitlines():
        text, claimed = line.split(":")
        pairs = [claim.split("=") for claim in filter(None, claimed.strip().split(", "))]
        # "hat" and "moustache" are words and values: as a word, any of its kind will do.
        claims = {name: frozenset(WORDS.get(value, value).split("|")) for name, value in pairs}
        cases.append(Caption(text, claims))
    return cases


BORDER = 8  # pixels at the left and right that are kept, so that the background keeps its color


def examples() -> Iterator[tuple[str, Case]]:
    """Avatars, what differs from `PLAIN` in a line of the data, and below it the region to mask and the words."""
    lines = data_file("edits_examples.txt").splitlines()
    for first, second in zip(lines[::2], lines[1::2], strict=True):
        name, values = first.split(": ")
        region, words = second.strip().split(": ")
        avatar = replace(PLAIN, **read_values(values))
        background = background_mask(avatar, SIZE)
        mask = background if region == "background" else region_mask(region, SIZE)
        if region == "hair":  # with the background around it
            mask = mask | background
            mask[:, :BORDER] = mask[:, -BORDER:] = False
        if region == "chin":  # a beard's sides, but not the eyes between them
            mask[: SIZE // 2, SIZE // 3 : 2 * SIZE // 3] = False
        yield name, Case(Image.fromarray(render(avatar, SIZE)), Image.fromarray(mask), words)
