"""What an avatar is made of: fourteen attributes, their values, the words for these, and what claims mean for them.

The values are the parts of the Avataaars set that can be told apart at 128 pixels and leave the other attributes alone.
Left out are tops that ignore the hair color or nearly repeat another, eyes and mouths that differ by a pixel or two,
printed words, and what `python_avatars` added to the set.
"""

from collections.abc import Collection, Iterator
from configparser import ConfigParser, ExtendedInterpolation
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

from imagebart.text.prompts import articled

HAIR_TOPS = (
    "bald", "buzz", "short", "quiff", "spiky", "curly", "afro", "bun", "bob", "straight", "wavy",
    "dreadlocks", "flowers",
)  # fmt: skip
HAT_TOPS = ("hat", "beanie", "earflaps", "turban", "hijab")
HAIR_COLORS = ("black", "brown", "blonde", "red", "grey", "pink", "blue")
FABRIC_COLORS = ("black", "white", "grey", "blue", "green", "red", "yellow", "pink")

VALUES: dict[str, tuple[str, ...]] = {
    "top": HAIR_TOPS + HAT_TOPS,
    "hair_color": HAIR_COLORS,
    "hat_color": FABRIC_COLORS,
    "facial_hair": ("none", "goatee", "beard", "long beard", "moustache", "curled moustache"),
    "facial_hair_color": HAIR_COLORS,
    "accessory": ("none", "glasses", "round glasses", "sunglasses", "white sunglasses", "eyepatch"),
    "eyes": ("open", "closed", "wink", "hearts", "wide", "rolling", "dizzy", "crying"),
    "eyebrows": ("normal", "angry", "sad", "raised", "one raised", "unibrow"),
    "mouth": ("smile", "slight smile", "serious", "sad", "tongue", "grimace", "scream", "vomit"),
    "clothing": ("hoodie", "t-shirt", "v-neck", "graphic", "sweater", "blazer", "overalls"),
    "clothing_color": FABRIC_COLORS,
    "graphic": ("bat", "bear", "deer", "diamond", "pizza", "skull"),
    "skin": ("fair", "tan", "brown", "dark", "yellow"),
    "background": ("white", "blue", "green", "yellow", "orange", "red", "pink", "purple"),
}

# The attributes with the color of an attribute's value.
COLOR_OF = {"top": ("hair_color", "hat_color"), "facial_hair": ("facial_hair_color",), "clothing": ("clothing_color",)}

# The attributes that a description names, in its order; it names the others with them.
SUBJECTS = ("top", "facial_hair", "clothing", "accessory", "eyes", "eyebrows", "mouth", "skin", "background")

Claims = dict[str, frozenset[str]]  # of each attribute that a text mentions, the values that make it true


@dataclass(frozen=True)
class Attributes:
    """One avatar: a value of `VALUES` for each attribute, also those that do not show."""

    top: str
    hair_color: str
    hat_color: str
    facial_hair: str
    facial_hair_color: str
    accessory: str
    eyes: str
    eyebrows: str
    mouth: str
    clothing: str
    clothing_color: str
    graphic: str
    skin: str
    background: str

    def visible(self) -> frozenset[str]:
        """The names of the attributes that an image of 128 pixels shows.

        Under a hijab clothes are the same, dark lenses and their frames hide eyes and eyebrows, and a patch one eye.
        """
        hidden = {"hat_color"} if self.top not in HAT_TOPS else {"hair_color"}
        if self.top == "bald":
            hidden.add("hair_color")
        if self.top == "hijab":
            hidden |= {"clothing", "clothing_color", "graphic"}
        if self.clothing != "graphic":
            hidden.add("graphic")
        if self.facial_hair == "none":
            hidden.add("facial_hair_color")
        if self.accessory in ("sunglasses", "white sunglasses"):
            hidden |= {"eyes", "eyebrows"}
        if self.accessory == "eyepatch":
            hidden.add("eyes")
        return frozenset(VALUES) - hidden


PLAIN = Attributes(
    top="short", hair_color="brown", hat_color="blue", facial_hair="none", facial_hair_color="brown", accessory="none",
    eyes="open", eyebrows="normal", mouth="smile", clothing="t-shirt", clothing_color="blue", graphic="bear",
    skin="fair", background="green",
)  # fmt: skip

# Values without which an attribute does not show.
SHOWING = {
    "hat_color": {"top": HAT_TOPS[0]},
    "facial_hair_color": {"facial_hair": "beard"},
    "graphic": {"clothing": "graphic"},
}


@cache
def _file() -> ConfigParser:
    """`data/avatar_phrases.ini`, whose head explains its signs."""
    file = ConfigParser(delimiters=(":",), interpolation=ExtendedInterpolation())
    file.read_string(files("imagebart").joinpath("data/avatar_phrases.ini").read_text(encoding="utf-8"))
    return file


@cache
def color_words(attribute: str, value: str) -> tuple[str, ...]:
    """The words for a color of hair or of fabric, the plainest first; common ones more than once."""
    kind = "hair" if attribute in ("hair_color", "facial_hair_color") else "fabric"
    return tuple(_file().get(f"words {kind}", value, fallback=value).split("; "))


@dataclass(frozen=True)
class Phrase:
    """Words that are true of avatars whose `attribute` has one of `values`; "{c}" is where a color goes."""

    attribute: str
    values: frozenset[str]
    kind: str  # noun, adjective, epithet or loose
    text: str


Tables = dict[str, list[Phrase]]
KINDS = {"=": "adjective", "+": "epithet", "~": "loose"}  # by the sign before a phrase; without one it is a noun


def phrases(table: str) -> Tables:
    """The phrases of each attribute in a table of the file."""
    file, found = _file(), Tables()
    for attribute in VALUES:
        for values, texts in file.items(f"{table} {attribute}") if file.has_section(f"{table} {attribute}") else ():
            found.setdefault(attribute, []).extend(_line(attribute, values, texts, file["prints"]["*"]))
    return found


def _line(attribute: str, values: str, texts: str, prints: str) -> Iterator[Phrase]:
    """The phrases of a line of the file; prints: those of all shirts with a "{thing}"."""
    if values == "*":
        for value in VALUES[attribute]:
            yield from _line(attribute, value, texts.replace("{value}", value), prints)
        return
    named = frozenset(values.removeprefix("!").split("|"))
    true_of = frozenset(VALUES[attribute]) - named if values.startswith("!") else named
    for text in texts.replace("\n", " ").split("; "):
        if text.startswith("*"):
            yield from _line(attribute, values, prints.replace("{thing}", text[1:]), prints)
        else:
            yield Phrase(attribute, true_of, KINDS.get(text[0], "noun"), text.lstrip("".join(KINDS)))


HAIR = frozenset(HAIR_TOPS) - {"bald"}  # the tops whose hair shows its color
WORDINGS = phrases("wordings")  # of values
COLOR_ALONE = phrases("colors")  # of colors, saying as little as possible of what has them


def verbalize(attributes: Attributes, names: Collection[str] = frozenset(VALUES)) -> str:
    """ "short brown hair, no beard, a blue hoodie, …": those of the named attributes that show; "" for none.

    A color is named with what has it, or, where that is not named, with as little as can have it: "blue clothes".
    """
    shown, values = attributes.visible() & set(names), vars(attributes)
    texts = []
    for subject in SUBJECTS:
        thing = "graphic" if subject == "clothing" and "graphic" in shown else subject
        color = next((name for name in COLOR_OF.get(subject, ()) if name in shown), None)
        text = None
        if thing in shown:
            nouns = [p for p in WORDINGS[thing] if p.kind == "noun" and p.values == {values[thing]}]
            text = next((p.text for p in nouns if "{c}" in p.text), nouns[0].text)
        elif color:
            nouns = [p for p in COLOR_ALONE[subject] if p.kind == "noun" and values[subject] in p.values]
            text = nouns[0].text if nouns else None
        if text:
            texts.append(articled(text.replace("{c} ", f"{color_words(color, values[color])[0]} " if color else "")))
    return ", ".join(texts)


# What claims mean for an avatar.


def with_showing(claims: Claims) -> Claims:
    """Claims with what is needed for them to show: no hat for a color of hair, a printed shirt for a print.

    The claims themselves come first: a hat and blonde hair stay a hat and blonde hair.
    """
    wider = dict(claims)
    for name in claims:
        for hiding, harmless in _harmless(name).items():
            wider[hiding] = (wider.get(hiding, harmless) & harmless) or wider[hiding]
    return wider


@cache
def _harmless(name: str) -> Claims:
    """Of each attribute that can hide another, the values that do not."""
    base = replace(PLAIN, **SHOWING.get(name, {}))
    harmless: Claims = {}
    for hiding in ("top", "facial_hair", "accessory", "clothing"):
        values = frozenset(v for v in VALUES[hiding] if name in replace(base, **{hiding: v}).visible())
        if len(values) < len(VALUES[hiding]):
            harmless[hiding] = values
    return harmless


def changed_by(claims: Claims, original: Attributes) -> tuple[Attributes, set[str]]:
    """An avatar as claims would have it, and the names of its attributes that the claims leave unsaid but sure.

    What hides a claim is removed. Not sure is what a claim hides, what the claims leave open, and what did not show.
    """
    seen, values = original.visible(), vars(original)
    wider = with_showing(claims)
    changes = {name: allowed for name, allowed in wider.items() if name not in seen or values[name] not in allowed}
    changed = replace(original, **{name: min(allowed) for name, allowed in changes.items()})
    sure = {name for name in changed.visible() if (len(changes[name]) == 1 if name in changes else name in seen)}
    for name, allowed in changes.items():
        for value in allowed:
            sure &= replace(changed, **{name: value}).visible()
        if len(allowed) > 1:  # what is left open takes its claimed color from the prompt's words
            sure -= {color for color in COLOR_OF.get(name, ()) if color in claims}
    clear = {name for name, allowed in claims.items() if len(allowed) == 1}
    for subject in SUBJECTS:
        phrase = {subject, *COLOR_OF.get(subject, ()), *(["graphic"] if subject == "clothing" else [])}
        if phrase & sure <= clear:  # the prompt says all of it
            sure -= phrase
    return changed, sure
