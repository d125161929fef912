"""Prompts as people type them who have not read what the model knows, and what each claims.

Written down before the words in them were taught. The first half may be looked at when words are added, the second
is for reporting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from imagebart.avatars.attributes import VALUES
from imagebart.avatars.claims import GROUPS, CaptionReader
from imagebart.conditioning import Conditioner
from imagebart.evaluation.cases import PromptCase
from imagebart.evaluation.plain import read_prompts

Half = Literal["seen", "held"]

# A colour that the artwork lacks claims the nearest that it has; without claims, nothing said can be drawn.
_SEEN = """
angrey man: eyebrows=angry
auburn hair: top=haired, hair_colour=red
aviators: accessory=shades
batman t shirt: clothing=graphic, graphic=bat
beardless: facial_hair=none
big blue eyes: eyes=wide
black man: skin=dark
blond har: hair_colour=blonde
blue eyes:
bob cut, ginger: top=bob, hair_colour=red
brown eyes, blonde hair: top=haired, hair_colour=blonde
brown hoodie: clothing=hoodie, clothing_colour=black
business man: clothing=blazer
clean shaved: facial_hair=none
cross eyed: eyes=dizzy|rolling
cross: eyebrows=angry
dark sunglasses: accessory=shades
dreds: top=dreadlocks
dude with stubble: facial_hair=goatee|beard
eybrows raised: eyebrows=raised
eye roll: eyes=rolling
eyes shut: eyes=closed
frizzy hair: top=curly|afro
frizzy red hair: top=curly|afro, hair_colour=red
furious: eyebrows=angry
ginger woman with a bob: top=bob, hair_colour=red, facial_hair=none
glasses, round: accessory=round glasses
green mohawk:
grey background: background=white
hoddie: clothing=hoodie
hooded top: clothing=hoodie
jumpsuit: clothing=overalls
kinky hair: top=curly|afro
long hair dont care: top=long
long wavy brown hair, smiling: top=wavy, hair_colour=brown, mouth=smile
love eyes: eyes=hearts
lovestruck: eyes=hearts
man bun: top=bun
man in suit: clothing=blazer
moustashe: facial_hair=moustache
old: hair_colour=grey
one eyebrow raised: eyebrows=one raised
orange t-shirt: clothing=t-shirt, clothing_colour=yellow
pink bg: background=pink
pirate: accessory=eyepatch
platinum blonde bob: top=bob, hair_colour=blonde
pnik hair: top=haired, hair_colour=pink
poker face: mouth=serious
puking: mouth=vomit
punk: top=spiky
purple afro: top=afro, hair_colour=pink
purple hair: top=haired, hair_colour=pink
rasta: top=dreadlocks
red lips:
sad face: mouth=sad
santa hat: top=hat
screaming guy: mouth=scream
shaved head: top=buzz|bald
shocked, mouth open: mouth=scream
shocked: eyes=wide
simpsons: skin=yellow
smilling: mouth=smile
specs: accessory=specs
sun glasses: accessory=shades
sunglasess and a beart: accessory=shades, facial_hair=beard
swetter: clothing=sweater
t-shirt with pizza: clothing=graphic, graphic=pizza
tash: facial_hair=moustache
tearful: eyes=crying
tongue sticking out: mouth=tongue
turquoise beanie: top=beanie, hat_colour=blue|green
v neck, orange: clothing=v-neck, clothing_colour=yellow
vneck: clothing=v-neck
wearing purple: clothing_colour=pink
weeping: eyes=crying
white guy with a beard: skin=fair, facial_hair=beard
wooly hat: top=beanie
yellow hair: top=haired, hair_colour=blonde
yellow wallpaper: background=yellow
yelow t-shirt: clothing=t-shirt, clothing_colour=yellow
"""

_HELD = """
Womon with long hiar: top=long, facial_hair=none
a guy with green hair: top=haired, hair_colour=blue
angry face: eyebrows=angry
asleep: eyes=closed
balding: top=bald
baldy: top=bald
barfing: mouth=vomit
bearded dude: facial_hair=beard
black background: background=purple|blue
black woman with an afro: skin=dark, top=afro, facial_hair=none
blinking: eyes=wink|closed
blone hair: top=haired, hair_colour=blonde
blue backround: background=blue
brown skinned girl: skin=brown, facial_hair=none
bushy eyebrows: eyebrows=unibrow|normal
cardigan: clothing=sweater|blazer
cheeky: mouth=tongue
cheerful: mouth=smile
coat: clothing=blazer
confused: eyebrows=one raised|sad|raised
crew cut: top=buzz
curley hair: top=curly
curls: top=curly
dark haired woman: hair_colour=black, facial_hair=none
denim overalls: clothing=overalls
dreadlcoks: top=dreadlocks
elderly woman with glasses: hair_colour=grey, accessory=specs, facial_hair=none
eye-patch: accessory=eyepatch
girl with braids: facial_hair=none
glases: accessory=specs
gogatee: facial_hair=goatee
grandpa with a big beard: hair_colour=grey, facial_hair=long beard
granny with specs: hair_colour=grey, accessory=specs, facial_hair=none
green skin: skin=yellow
guy in a leather jacket: clothing=blazer
harry potter glasses: accessory=round glasses
hippie with a flower crown: top=flowers
hoodie, purple: clothing=hoodie, clothing_colour=pink
laugh: mouth=smile
laughing out loud: mouth=smile
messy bun: top=bun
muslim woman: top=hijab, facial_hair=none
mustach: facial_hair=moustache
navy blue sweater: clothing=sweater, clothing_colour=blue
nerd: accessory=specs
old man: hair_colour=grey
on a purple backdrop: background=purple
overals: clothing=overalls
pink v neck: clothing=v-neck, clothing_colour=pink
pixie cut: top=short
pizza tee: clothing=graphic, graphic=pizza
ponytail: top=bun
red beannie: top=beanie, hat_colour=red
red tshirt: clothing=t-shirt, clothing_colour=red
ringlets: top=curly
shoulder length hair: top=bob|straight|wavy
sikh man: top=turban
skull tshirt: clothing=graphic, graphic=skull
smirk: mouth=slight smile
specs, round: accessory=round glasses
spectacled: accessory=specs
straw hat: top=hat
strawberry blonde: hair_colour=blonde
sunglases: accessory=shades
sunnies: accessory=shades
tshirt: clothing=t-shirt
turben: top=turban
white hair and a white beard: top=haired, hair_colour=grey, facial_hair=beard, facial_hair_colour=grey
white skin: skin=fair
white t shirt, black hair: clothing=t-shirt, clothing_colour=white, top=haired, hair_colour=black
winkking: eyes=wink
woman with round specs: accessory=round glasses, facial_hair=none
"""


def typed_prompts(half: Half) -> list[PromptCase]:
    """The prompts of a half, in a fixed order."""
    return read_prompts(_SEEN if half == "seen" else _HELD)


@dataclass(frozen=True)
class Heard:
    """What a text encoder reads in one prompt: the likeliest value of each attribute that it takes to be spoken of."""

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
def hear(reader: CaptionReader, conditioner: Conditioner, cases: Sequence[PromptCase]) -> list[Heard]:
    """Reads prompts by the slots of a text encoder, without drawing: a second for hundreds."""
    readings, _ = reader.eval()(conditioner.encode([case.text for case in cases]).tokens)
    heard = []
    for case, row in zip(cases, readings, strict=True):
        likeliest = [int(part.argmax()) for part in row.split(GROUPS)]
        spoken = zip(VALUES.items(), likeliest, strict=True)
        heard.append(Heard(case, {name: values[i] for (name, values), i in spoken if i < len(values)}))
    return heard


def heard_line(name: str, heard: Sequence[Heard]) -> str:
    """Sums, for people."""
    claims, right = sum(len(one.case.claims) for one in heard), sum(one.right for one in heard)
    whole = sum(one.right == len(one.case.claims) for one in heard)
    unasked = sum(one.unasked for one in heard)
    return (
        f"{name}: {right} of {claims} claims read rightly, {whole} of {len(heard)} prompts wholly, "
        f"{unasked} attributes read unasked"
    )
