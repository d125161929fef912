"""Sixty prompts as people type them, and what a picture must show to have understood them."""

from __future__ import annotations

from imagebart.avatars.attributes import HAIR_TOPS, VALUES
from imagebart.avatars.phrases import HAIR
from imagebart.evaluation.cases import PromptCase

_WORDS = {
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
"""What common words stand for; other values stand for themselves."""

# A prompt, then what it claims: attribute=value or attribute=word of `_WORDS`.
_PROMPTS = """
shades: accessory=shades
Sunglasses: accessory=shades
SUNGLASSES: accessory=shades
women with sunglasses: accessory=shades, facial_hair=none
put on shades: accessory=shades
glasses: accessory=specs
a pair of glasses: accessory=specs
give her glasses: accessory=specs
round glasses: accessory=round glasses
glasses, round: accessory=round glasses
no glasses: accessory=bare eyes
take off the glasses: accessory=bare eyes
ginger: hair_colour=red
redhead: hair_colour=red
Red haired girl: hair_colour=red, facial_hair=none
blonde: hair_colour=blonde
Long Blonde Hair: top=long, hair_colour=blonde
hair long and black: top=long, hair_colour=black
brunette: hair_colour=brown
pink hair: hair_colour=pink
blue hair and shades: hair_colour=blue, accessory=shades
gray haired man with glasses: hair_colour=grey, accessory=specs
bald man with a beard: top=bald, facial_hair=beard
bearded bald man: top=bald, facial_hair=beard
BALD: top=bald
make him bald: top=bald
curly hair: top=curly
red curly hair: top=curly, hair_colour=red
afro: top=afro
guys with dreadlocks: top=dreadlocks
hair in a bun: top=bun
short hair: top=short
hat: top=hat
girls in hats: top=hat, facial_hair=none
a red hat: top=hat, hat_colour=red
beanie: top=beanie
man in a turban: top=turban
headscarf: top=hijab
no hat: top=hair
beards: facial_hair=beard
add a beard: facial_hair=beard
glasses and a beard: accessory=specs, facial_hair=beard
a beard and glasses: accessory=specs, facial_hair=beard
long beard: facial_hair=long beard
goatee: facial_hair=goatee
mustache: facial_hair=moustache
clean shaven: facial_hair=none
remove the beard: facial_hair=none
hoodie: clothing=hoodie
man in a red hoodie: clothing=hoodie, clothing_colour=red
sweater: clothing=sweater
suit: clothing=blazer
shirt with a skull: clothing=graphic, graphic=skull
smiling: mouth=smile
tongue out: mouth=tongue
winking: eyes=wink
heart eyes: eyes=hearts
crying woman: eyes=crying, facial_hair=none
dark skin: skin=dark
blue background: background=blue
"""


def plain_prompts() -> list[PromptCase]:
    """The sixty prompts, in a fixed order."""
    return read_prompts(_PROMPTS)


def read_prompts(lines: str) -> list[PromptCase]:
    """Prompts with their claims, one a line: `a red hat: top=hat, hat_colour=red`. A prompt may claim nothing."""
    return [_read(line) for line in lines.strip().splitlines()]


def _read(line: str) -> PromptCase:
    text, claimed = line.split(":")
    claims = {}
    for claim in filter(None, claimed.strip().split(", ")):
        name, value = claim.split("=")
        # "hat" and "moustache" are words and values: as a word, any of its kind will do.
        claims[name] = frozenset(_WORDS.get(value, value).split("|"))
        if not claims[name] <= set(VALUES[name]):
            raise ValueError(f"{sorted(claims[name])} in the prompt {text!r} are not all values of {name!r}")
    return PromptCase(text, claims)
