"""Captions: true sentences about an avatar, each naming a random few of its attributes in random words.

A caption says nothing of the attributes that it leaves out, with one exception: "woman", "girl" and "lady" also mean no
beard unless the caption names one. "Man" means nothing. Words for values are in `imagebart.worlds.avatars`; here
are their forms: enumerations, plurals, an adjective put last, capitals.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from imagebart.text.conditioners import TextConditioner
from imagebart.text.prompts import ColoredThing, PromptRules, Substitution, articled
from imagebart.worlds.avatars import (
    COLOR_ALONE,
    COLOR_OF,
    HAIR,
    HAT_TOPS,
    SUBJECTS,
    VALUES,
    WORDINGS,
    Attributes,
    Claims,
    Phrase,
    Tables,
    color_words,
    phrases,
)
from recipes.avatars import data_file

NEGATIONS = phrases("negations")  # what an attribute is not
ADJECTIVES = {  # words that can stand after their noun: "hair, long and black"
    *("long", "short", "big", "huge", "small", "thin", "thick", "full", "bushy", "medium", "trimmed"),
    *("round", "square", "curly", "curled", "wavy", "straight", "spiky", "messy", "wild", "plain"),
    *("wide", "closed", "open", "angry", "sad", "raised"),
    *("black", "brown", "blonde", "blond", "red", "ginger", "orange", "grey", "gray", "silver"),
    *("pink", "blue", "green", "yellow", "white", "purple", "golden", "auburn", "copper", "navy"),
    *("frizzy", "kinky", "flowing", "shaggy", "slight", "happy", "friendly", "arched", "knitted"),
}


def joined(texts: Sequence[str], random: np.random.Generator) -> str:
    """ "a, b and c", "a, b, c" or "a and b and c"."""
    style = random.random()
    if len(texts) == 1 or style < 0.2:
        return ", ".join(texts)
    if style < 0.35:
        return " and ".join(texts)
    return f"{', '.join(texts[:-1])} and {texts[-1]}"


def bare(text: str) -> str:
    """A text without its leading article."""
    return re.sub(r"^(?:an?|the) ", "", text)


def plural(text: str) -> str:
    """ "beards" for "a beard"; other texts as they are."""
    if not re.match(r"an? [^ ]+( [^ ]+)?$", text):
        return text
    noun = bare(text)
    return noun + ("es" if re.search(r"(s|x|ch|sh)$", noun) else "s")


def turned(text: str, random: np.random.Generator, comma: bool) -> str:
    """ "hair long and black" for "long black hair"; comma: at times "glasses, round". Other texts as they are."""
    words = bare(text).split()
    count = next((i for i, word in enumerate(words) if word not in ADJECTIVES), len(words))
    before, noun = words[:count], " ".join(words[count:])
    if not before or not noun:
        return text
    between = ", " if comma and random.random() < 0.5 else " "
    return f"{noun}{between}{(' and ', ' ')[random.integers(2)].join(before)}"


FEMALE = (*["woman"] * 4, "girl", "girl", "lady", "female", "gal", "mum")
MALE = (*["man"] * 7, "guy", "guy", "boy", "dude", "bloke", "lad", "gentleman", "male", "dad")
PEOPLE = FEMALE + MALE + ("person", "person", "someone", "character", "avatar", "face", "human", "kid")
PLURALS = {
    **{"man": "men", "woman": "women", "guy": "guys", "girl": "girls", "boy": "boys", "person": "people"},
    **{"lady": "ladies", "dude": "dudes", "kid": "kids"},
}
KINDS_OF_PICTURE = (
    *("a picture of", "a portrait of", "a drawing of", "an avatar of", "a photo of", "a cartoon of", "an image of"),
    *("an illustration of", "draw", "make", "create", "show me", "i want", "please draw"),
)
ORDERS = (
    *("add", "add", "give him", "give her", "give them", "with", "with", "change to", "i want", "please add"),
    *("make it", "give the man", "can you add", "now with"),
)
WEARING_ORDERS = ("put on", "wearing")
JOINTS = "a an the and in has is wears have are wear he she they this"
TURNED = 0.16  # of the nouns in a list have their adjectives after them, where they can
APART = 0.25  # of the times that hair and its color are named, each is named by itself: "a ginger woman with a bob"
BUDGET = 34  # words and signs after which a caption names nothing more, to stay within 50 CLIP tokens


@dataclass(frozen=True)
class Caption:
    """A caption, and of each attribute that it names the values of which it would be true."""

    text: str
    claims: Claims = field(hash=False)


@dataclass(frozen=True)
class Fragment:
    """A part of a caption: its words, how they join a sentence (see `phrases`), and what they claim."""

    attribute: str
    kind: str
    text: str
    claims: Claims = field(hash=False)


def describe(attributes: Attributes, random: np.random.Generator, count: int | None = None) -> Caption:
    """Something true about an avatar.

    count: how many of its visible attributes to name (fewer if that takes too many words); None: 1 to 6, or, a little
    oftener, all. What the words imply is among the claims too.
    """
    visible = sorted(attributes.visible())
    if count is None:
        # Full captions teach words several times faster than short ones, which people type.
        count = int(random.integers(1, 7)) if random.random() < 0.4 else len(visible)
    named = {visible[i] for i in random.permutation(len(visible))[:count]}
    style = random.random()
    fragments = _fragments(attributes, named, random, before_person=style >= 0.5)
    fragments += _negations(attributes, {fragment.attribute for fragment in fragments}, random)
    fragments = _within_budget([fragments[i] for i in random.permutation(len(fragments))])
    claims: Claims = {}
    for fragment in fragments:
        for attribute, values in fragment.claims.items():
            claims[attribute] = claims.get(attribute, values) & values
    if style < 0.4:
        text = _as_list(fragments, random)
    else:
        person = PEOPLE[random.integers(len(PEOPLE))]
        while person in FEMALE and attributes.facial_hair != "none" and "facial_hair" not in claims:
            person = PEOPLE[random.integers(len(PEOPLE))]
        if person in FEMALE:
            claims.setdefault("facial_hair", frozenset({"none"}))
        text = _as_sentence(fragments, person, random) if style < 0.5 else _as_person(fragments, person, random)
    spelling = random.random()
    if spelling < 0.15:
        text = text[0].upper() + text[1:]
    elif spelling < 0.18:
        text = text.upper()
    return Caption(text + "." if random.random() < 0.1 else text, claims)


def color_names() -> set[str]:
    """All words for colors of hair and of fabric."""
    return {word for name in VALUES if name.endswith("_color") for v in VALUES[name] for word in color_words(name, v)}


def all_words() -> list[str]:
    """Every word that a caption can contain, sorted, in lower case."""
    tables = (WORDINGS, COLOR_ALONE, NEGATIONS)
    phrased = [_colored(p.text, "") for table in tables for row in table.values() for p in row]
    frames = [*PEOPLE, *PLURALS.values(), *KINDS_OF_PICTURE, *ORDERS, *WEARING_ORDERS, JOINTS]
    texts = [*phrased, *map(plural, phrased), *color_names(), *frames]
    return sorted({word for text in texts for word in re.findall(r"[a-z]+", text)})


def avatar_conditioner(length: int) -> TextConditioner:
    """The conditioner for captions: their words, and substitutions for what the artwork lacks; length: tokens."""
    return TextConditioner.from_captions(all_words(), length, prompt_rules())


def prompt_rules() -> PromptRules:
    """What is replaced in prompts, from `prompt_rules.json`; captions stay as they are.

    Each thing there says which colors it has, the nearest of others, and those that nothing is near to.
    """
    data = json.loads(data_file("prompt_rules.json"))
    things = []
    for entry in data["things"]:
        colors, none = entry["has"].split(), entry.get("none", "").split()
        if none == ["all", "others"]:
            none = [color for color in data["colors"].split() if color not in colors]
        words, lead = tuple(entry["words"].split()), tuple(entry.get("lead", "").split())
        nearest = _by_word(entry.get("nearest", {})) | dict.fromkeys(none, "")
        things.append(
            ColoredThing(name=entry["name"], words=words, colors=tuple(colors), nearest=nearest, lead_words=lead)
        )
    # With these words, an old person's hair is not grey.
    age = Substitution(words="", replacement="", unless=tuple(data["unless"].split()), unless_colored="hair")
    ages = [age.replace(words=word, replacement=by) for word, by in _by_word(data["age"]).items()]
    nearest_words = [Substitution(words=words, replacement=by) for words, by in data["instead"].items()]
    adjectives = sorted(ADJECTIVES - color_names() - set(data["colors"].split()))
    return PromptRules(
        misspellings=_by_word(data["misspellings"]),
        substitutions=(*ages, *nearest_words),
        things=tuple(things),
        stop_words=tuple(data["stop"].split()),
        link_words=(*data["link"].split(), *adjectives),
    )


def _by_word(table: dict[str, str]) -> dict[str, str]:
    """{"dyed": "red"} of {"red": "dyed"}: each of the words in a value, and its key."""
    return {word: key for key, words in table.items() for word in words.split()}


def _fragments(
    attributes: Attributes, named: set[str], random: np.random.Generator, before_person: bool
) -> list[Fragment]:
    """The named attributes in words, a value and its color in one fragment or in two."""
    values = vars(attributes)
    fragments = []
    for attribute in SUBJECTS:
        color = next((name for name in COLOR_OF.get(attribute, ()) if name in named), None)
        subject = "graphic" if attribute == "clothing" and "graphic" in named else attribute
        said = [(subject if subject in named else None, color)]
        if said == [("top", "hair_color")] and random.random() < APART:
            said = [("top", None), (None, "hair_color")]
        for thing, colored in said:
            choices = _choices(subject, thing, colored, values)
            if choices := [phrase for phrase in choices if before_person or phrase.kind != "epithet"]:
                phrase = choices[random.integers(len(choices))]
                fragments.append(_fragment(attribute, phrase, colored, values, random))
    return fragments


def _choices(subject: str, thing: str | None, color: str | None, values: dict[str, str]) -> list[Phrase]:
    """The phrases that name a thing, with its color if that is named; for no thing, those that name the color."""
    if thing is not None:
        return _true(WORDINGS, thing, values, color is not None)
    if color is None:
        return []
    alone = _true(COLOR_ALONE, color, values, False) + _true(COLOR_ALONE, subject, values, True)
    return alone or _true(WORDINGS, subject, values, True)


def _fragment(
    attribute: str, phrase: Phrase, color: str | None, values: dict[str, str], random: np.random.Generator
) -> Fragment:
    """A phrase with its color in place, and all that it claims."""
    claims = {phrase.attribute: phrase.values}
    if phrase.attribute == "graphic":
        claims["clothing"] = frozenset({"graphic"})
    if phrase.attribute == "hair_color":
        claims["top"] = HAIR  # "redhead"
    word = ""
    if color is not None and "{c}" in phrase.text:
        options = color_words(color, values[color])
        word = options[random.integers(len(options))]
        claims[color] = frozenset({values[color]})
    return Fragment(attribute, phrase.kind, _colored(phrase.text, word), claims)


def _negations(attributes: Attributes, spoken: set[str], random: np.random.Generator) -> list[Fragment]:
    """At times, what an attribute is not, of those not named."""
    fragments = []
    for attribute in NEGATIONS:
        if attribute in spoken or random.random() > 0.06:
            continue
        if choices := _true(NEGATIONS, attribute, vars(attributes), False):
            phrase = choices[random.integers(len(choices))]
            fragments.append(Fragment(attribute, phrase.kind, phrase.text, {attribute: phrase.values}))
    return fragments


def _true(table: Tables, attribute: str, values: dict[str, str], colored: bool) -> list[Phrase]:
    """An attribute's true phrases; if `colored`, those with a place for a color, if any."""
    true = [phrase for phrase in table.get(attribute, []) if values[attribute] in phrase.values]
    return [phrase for phrase in true if "{c}" in phrase.text] or true if colored else true


def _within_budget(fragments: list[Fragment]) -> list[Fragment]:
    """The first fragments that fit `BUDGET`, at least one."""
    costs = np.cumsum([len(re.findall(r"\w+|[^\w\s]", fragment.text)) + 1 for fragment in fragments])
    return fragments[: max(1, int((costs <= BUDGET).sum()))]


def _as_list(fragments: Sequence[Fragment], random: np.random.Generator) -> str:
    """Write the fragments in a row: "sunglasses, red hair"; at times as an order: "add a beard"."""
    texts = [fragment.text for fragment in fragments]
    if random.random() < 0.6:
        texts = [bare(text) for text in texts]
    separator = (", ", ", ", " and ", " ")[random.integers(4)]
    if separator == " " and any(fragment.kind != "noun" for fragment in fragments):
        separator = ", "  # "on blue" and "hoodie" would run together
    if separator == ", " or len(texts) == 1:
        texts = [turned(text, random, separator == ", ") if random.random() < TURNED else text for text in texts]
    text = separator.join(texts)
    if random.random() < 0.3 and fragments[0].kind == "noun":
        orders = ORDERS + WEARING_ORDERS if _wearable(fragments[0]) else ORDERS
        text = f"{orders[random.integers(len(orders))]} {text}"
    return text


def _as_person(fragments: Sequence[Fragment], person: str, random: np.random.Generator) -> str:
    """A person with the fragments around it: "a bald man with a beard, on a blue background"."""
    before = sorted((f for f in fragments if f.kind in ("adjective", "epithet")), key=lambda f: f.kind)
    before = [*before[:1], *before[1:][-1:]]  # an epithet is the last, and is kept
    after = [fragment for fragment in fragments if fragment.kind != "noun" and fragment not in before]
    nouns = [fragment for fragment in fragments if fragment.kind == "noun"]
    worn = [fragment for fragment in nouns if _wearable(fragment) and random.random() < 0.7]
    several = person in PLURALS and random.random() < 0.12
    form = plural if several else str
    carried = [form(fragment.text) for fragment in nouns if fragment not in worn]
    parts = [f"with {joined(carried, random)}"] if carried else []
    if worn:
        wears = "in" if [fragment.attribute for fragment in worn] == ["clothing"] else "wearing"
        parts.append(f"{wears} {joined([form(fragment.text) for fragment in worn], random)}")
    parts = [parts[i] for i in random.permutation(len(parts))]
    words = [fragment.text for fragment in before] + [PLURALS[person] if several else person]
    head = " ".join(words)
    if not several and person != "someone":
        head = articled(("a ", "a ", "a ", "the ", "")[random.integers(5)] + head)
    if random.random() < 0.15 and head != " ".join(words):
        head = f"{KINDS_OF_PICTURE[random.integers(len(KINDS_OF_PICTURE))]} {head}"
    text = " ".join([head, *parts])
    separator = " " if len(after) == 1 and after[0].kind == "loose" and random.random() < 0.7 else ", "
    return separator.join([text, *(fragment.text for fragment in after)])


def _as_sentence(fragments: Sequence[Fragment], person: str, random: np.random.Generator) -> str:
    """ "she has red hair and wears a hat, winking"."""
    subject = "she" if person in FEMALE else ("he", "they", "this person", "the avatar")[random.integers(4)]
    has, wears, be = ("have", "wear", "are") if subject == "they" else ("has", "wears", "is")
    clauses, loose = [], []
    for fragment in fragments:
        if fragment.kind == "loose":
            loose.append(fragment.text)
        elif fragment.kind == "adjective":
            clauses.append(f"{be} {fragment.text}")
        elif _wearable(fragment) and not fragment.text.startswith("no "):
            clauses.append(f"{wears} {fragment.text}")
        else:
            clauses.append(f"{has} {fragment.text}")
    return ", ".join([f"{subject} {joined(clauses, random)}" if clauses else subject, *loose])


def _wearable(fragment: Fragment) -> bool:
    """Whether "wearing" can stand before a noun."""
    hat = fragment.attribute == "top" and fragment.claims.get("top", frozenset()) <= frozenset(HAT_TOPS)
    return fragment.attribute in ("clothing", "accessory") or hat


def _colored(text: str, word: str) -> str:
    """A phrase with a color's word in its place; word "": without the place."""
    filled = text.replace("{c}", word) if word else text.replace("{c} ", "").replace("{c}-", "")
    return articled(filled)
