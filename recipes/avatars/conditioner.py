"""The conditioner of avatars: the words of their captions, and substitutions for what the artwork lacks."""

from __future__ import annotations

from imagebart.avatars.attributes import COLOUR_WORDS, VALUES
from imagebart.conditioning import TextConditioner
from imagebart.conditioning.prompts import ColouredThing, PromptRules, Substitution
from recipes.avatars.captions import ADJECTIVES, all_words


def _words(line: str) -> tuple[str, ...]:
    return tuple(line.split())


def _near(**colours: str) -> dict[str, str]:
    """The nearest known colour of each: {"violet": "pink", ...} from pink="purple violet"."""
    return {word: colour for colour, words in colours.items() for word in words.split()}


def _none_near(*colours: str) -> dict[str, str]:
    return {word: "" for words in colours for word in words.split()}


# Each subject says which of these it has, and the nearest of the others.
_COLOURS = _words(
    "black white grey gray silver brown red orange yellow green blue purple pink violet lilac lavender magenta maroon "
    "burgundy crimson scarlet gold golden beige cream turquoise teal cyan aqua navy indigo lime olive khaki mint"
)
_LIKE_FABRIC = _near(
    white="cream beige",
    grey="silver",
    black="brown",
    yellow="orange gold golden khaki",
    red="maroon burgundy crimson scarlet",
    pink="purple violet lilac lavender magenta",
    blue="turquoise teal cyan aqua indigo",
    green="lime olive mint",
)
_HAIR = ColouredThing(
    "hair",
    _words(
        "hair hairs haired haircut hairstyle afro fro bob bun topknot knot quiff curls ringlets perm spikes dreadlocks "
        "dreads locs locks waves buzzcut cut pompadour beard beards bearded goatee moustache mustache tash stache "
        "stubble whiskers moustached mustached"
    ),
    _words("black brown blonde blond red ginger orange auburn copper grey gray silver pink blue navy golden chestnut"),
    _near(
        grey="white",
        blonde="yellow gold beige cream khaki",
        red="maroon burgundy crimson scarlet",
        pink="purple violet lilac lavender magenta",
        blue="green turquoise teal cyan aqua indigo lime olive mint",
    ),
)
_FABRIC = _words("black white grey gray blue navy green red yellow pink")
_CLOTHING = ColouredThing(
    "clothing",
    _words(
        "hoodie hoodies hoody sweatshirt shirt shirts tee tshirt neck vneck top tops sweater sweaters jumper pullover "
        "overalls dungarees jumpsuit coveralls blazer jacket suit coat clothes clothing outfit wear"
    ),
    _FABRIC,
    _LIKE_FABRIC,
    ("in", "wearing"),
)
_HAT = ColouredThing(
    "hat",
    _words(
        "hat hats cap caps beanie beanies turban turbans hijab headscarf scarf veil fedora ushanka sunhat headwear "
        "covering wrap"
    ),
    _FABRIC,
    _LIKE_FABRIC,
)
_BACKGROUND = ColouredThing(
    "background",
    _words("background backgrounds backdrop bg wall wallpaper behind"),
    VALUES["background"],
    _near(
        white="grey gray silver cream beige",
        orange="brown gold golden khaki",
        red="maroon burgundy crimson scarlet",
        purple="black violet lilac lavender magenta indigo",
        blue="navy turquoise teal cyan aqua",
        green="lime olive mint",
    ),
    ("on",),
)
_SKIN = ColouredThing(
    "skin",
    _words("skin skinned face faces complexion"),
    _words("white black brown yellow olive golden"),
    _near(yellow="green gold lime khaki", tan="orange", fair="pink cream beige")
    | _none_near("blue purple red grey gray silver violet turquoise teal"),
)
_GLASSES = ColouredThing(
    "pair of glasses",
    _words("glasses specs spectacles eyeglasses sunglasses shades eyepatch patch aviators"),
    _words("black white"),
    _none_near(*(colour for colour in _COLOURS if colour not in ("black", "white"))),
)
_EYES = ColouredThing("eye colour", _words("eye eyes eyed"), (), _none_near(*_COLOURS))
_EYEBROWS = ColouredThing("pair of eyebrows", _words("eyebrow eyebrows brows"), (), _none_near(*_COLOURS))

# With these words, an old person's hair is not grey.
_OTHERWISE = _words("bald balding hairless blonde blond ginger redhead brunette hat beanie cap turban hijab headscarf")
_INSTEAD = {
    **dict.fromkeys(("old", "elderly", "aged", "senior"), "grey-haired"),
    **dict.fromkeys(("granny", "grandma", "grandmother", "nan"), "grey-haired woman"),
    **dict.fromkeys(("grandpa", "grandad", "granddad", "grandfather"), "grey-haired man"),
}
_NEAREST = {
    "ponytail": "bun",
    "pony tail": "bun",
    "braids": "dreadlocks",
    "cardigan": "sweater",
    "tuxedo": "suit",
    "nerd": "person with glasses",
    "nerdy": "bespectacled",
    "top hat": "hat",
}


def avatar_conditioner(length: int) -> TextConditioner:
    """length: tokens a prompt."""
    return TextConditioner.from_captions(all_words(), length, prompt_rules())


def prompt_rules() -> PromptRules:
    """Substitutions in prompts; captions stay as they are."""
    age = [Substitution(words, by, _OTHERWISE, _HAIR.name) for words, by in _INSTEAD.items()]
    nearest = [Substitution(words, by) for words, by in _NEAREST.items()]
    subjects = (_HAIR, _CLOTHING, _HAT, _BACKGROUND, _SKIN, _GLASSES, _EYES, _EYEBROWS)
    words = {word for table in COLOUR_WORDS.values() for words in table.values() for word in words}
    adjectives = sorted(ADJECTIVES - words - set(_COLOURS))
    return PromptRules(
        (*age, *nearest),
        subjects,
        ("with", "without", "and", "in", "on", "wearing", "wears", "has", "is", "a", "an", "the", "for", "to"),
        ("in", "is", "are", "and", "to", "dyed", "coloured", *adjectives),
    )
