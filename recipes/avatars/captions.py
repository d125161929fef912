"""Captions: true sentences about an avatar, each naming a random few of its attributes in random words.

A caption says nothing of the attributes that it leaves out, with one exception: "woman", "girl" and "lady" also mean no
beard unless the caption names one. "Man" means nothing. Words for values are in `imagebart.worlds.avatars`; here
are their forms: enumerations, plurals, an adjective put last, capitals.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from imagebart.text.conditioners import TextConditioner
from imagebart.text.prompts import PromptRules, articled
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
WORDS: dict[str, Any] = yaml.safe_load(data_file("caption_words.yaml"))
PEOPLE = WORDS["female"] + WORDS["male"] + WORDS["others"]
TURNED = 0.16  # of the nouns in a list have their adjectives after them, where they can
APART = 0.25  # of the times that hair and its color are named, each is named by itself: "a ginger woman with a bob"
BUDGET = 34  # words and signs after which a caption names nothing more, to stay within 50 CLIP tokens


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
    count = next((i for i, word in enumerate(words) if word not in WORDS["adjectives"]), len(words))
    before, noun = words[:count], " ".join(words[count:])
    if not before or not noun:
        return text
    between = ", " if comma and random.random() < 0.5 else " "
    return f"{noun}{between}{(' and ', ' ')[random.integers(2)].join(before)}"


@dataclass(frozen=True)
class Caption:
    """A caption, and of each attribute that it names the values of which it would be true."""

    text: str
    claims: Claims


@dataclass(frozen=True)
class Fragment:
    """A part of a caption: its words, how they join a sentence (see `phrases`), and what they claim."""

    attribute: str
    kind: str
    text: str
    claims: Claims


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
    fragments = [fragments[i] for i in random.permutation(len(fragments))]
    costs = np.cumsum([len(re.findall(r"\w+|[^\w\s]", fragment.text)) + 1 for fragment in fragments])
    fragments = fragments[: max(1, int((costs <= BUDGET).sum()))]
    claims: Claims = {}
    for fragment in fragments:
        for attribute, values in fragment.claims.items():
            claims[attribute] = claims.get(attribute, values) & values
    if style < 0.4:
        text = _as_list(fragments, random)
    else:
        person = PEOPLE[random.integers(len(PEOPLE))]
        while person in WORDS["female"] and attributes.facial_hair != "none" and "facial_hair" not in claims:
            person = PEOPLE[random.integers(len(PEOPLE))]
        if person in WORDS["female"]:
            claims.setdefault("facial_hair", frozenset({"none"}))
        text = _as_sentence(fragments, person, random) if style < 0.5 else _as_person(fragments, person, random)
    spelling = random.random()
    if spelling < 0.15:
        text = text[0].upper() + text[1:]
    elif spelling < 0.18:
        text = text.upper()
    return Caption(text + "." if random.random() < 0.1 else text, claims)


def all_words() -> list[str]:
    """Every word that a caption can contain, sorted, in lower case."""
    tables = (WORDINGS, COLOR_ALONE, NEGATIONS)
    phrased = [_colored(p.text, "") for table in tables for row in table.values() for p in row]
    colors = [word for name in VALUES if name.endswith("_color") for v in VALUES[name] for word in color_words(name, v)]
    kinds = ("kinds_of_picture", "orders", "wearing_orders", "joints")
    frames = [*PEOPLE, *WORDS["plurals"].values(), *(text for kind in kinds for text in WORDS[kind])]
    texts = [*phrased, *map(plural, phrased), *colors, *frames]
    return sorted({word for text in texts for word in re.findall(r"[a-z]+", text)})


def avatar_conditioner(length: int) -> TextConditioner:
    """The conditioner for captions: their words, and substitutions for what the artwork lacks; length: tokens."""
    rules = PromptRules.from_json(json.dumps(yaml.safe_load(data_file("prompt_rules.yaml"))))
    return TextConditioner.from_captions(all_words(), length, rules)


def _fragments(
    attributes: Attributes, named: set[str], random: np.random.Generator, before_person: bool
) -> list[Fragment]:
    """The named attributes in words and what they claim, a value and its color in one fragment or in two."""
    values, fragments = vars(attributes), []
    for attribute in SUBJECTS:
        named_color = next((name for name in COLOR_OF.get(attribute, ()) if name in named), None)
        subject = "graphic" if attribute == "clothing" and "graphic" in named else attribute
        said = [(subject if subject in named else None, named_color)]
        if said == [("top", "hair_color")] and random.random() < APART:
            said = [("top", None), (None, "hair_color")]
        for thing, color in said:
            if thing is not None:
                choices = _true(WORDINGS, thing, values, color is not None)
            elif color is not None:  # the color alone, or with what has it
                choices = _true(COLOR_ALONE, color, values, False) + _true(COLOR_ALONE, subject, values, True)
                choices = choices or _true(WORDINGS, subject, values, True)
            else:
                continue
            choices = [phrase for phrase in choices if before_person or phrase.kind != "epithet"]
            if not choices:
                continue
            phrase, word = choices[random.integers(len(choices))], ""
            claims = {phrase.attribute: phrase.values}
            if phrase.attribute == "graphic":
                claims["clothing"] = frozenset({"graphic"})
            if phrase.attribute == "hair_color":
                claims["top"] = HAIR  # "redhead"
            if color is not None and "{c}" in phrase.text:
                options = color_words(color, values[color])
                word = options[random.integers(len(options))]
                claims[color] = frozenset({values[color]})
            fragments.append(Fragment(attribute, phrase.kind, _colored(phrase.text, word), claims))
    return fragments


def _negations(attributes: Attributes, spoken: set[str], random: np.random.Generator) -> list[Fragment]:
    """At times, what an attribute is not, of those not named."""
    fragments = []
    for attribute in NEGATIONS:
        rarely = attribute not in spoken and random.random() <= 0.06
        if rarely and (choices := _true(NEGATIONS, attribute, vars(attributes), False)):
            phrase = choices[random.integers(len(choices))]
            fragments.append(Fragment(attribute, phrase.kind, phrase.text, {attribute: phrase.values}))
    return fragments


def _true(table: Tables, attribute: str, values: dict[str, str], colored: bool) -> list[Phrase]:
    """An attribute's true phrases; if `colored`, those with a place for a color, if any."""
    true = [phrase for phrase in table.get(attribute, []) if values[attribute] in phrase.values]
    return [phrase for phrase in true if "{c}" in phrase.text] or true if colored else true


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
        orders = WORDS["orders"] + (WORDS["wearing_orders"] if _wearable(fragments[0]) else [])
        text = f"{orders[random.integers(len(orders))]} {text}"
    return text


def _as_person(fragments: Sequence[Fragment], person: str, random: np.random.Generator) -> str:
    """A person with the fragments around it: "a bald man with a beard, on a blue background"."""
    before = sorted((f for f in fragments if f.kind in ("adjective", "epithet")), key=lambda f: f.kind)
    before = [*before[:1], *before[1:][-1:]]  # an epithet is the last, and is kept
    after = [fragment for fragment in fragments if fragment.kind != "noun" and fragment not in before]
    nouns = [fragment for fragment in fragments if fragment.kind == "noun"]
    worn = [fragment for fragment in nouns if _wearable(fragment) and random.random() < 0.7]
    several = person in WORDS["plurals"] and random.random() < 0.12
    form = plural if several else str
    carried = [form(fragment.text) for fragment in nouns if fragment not in worn]
    parts = [f"with {joined(carried, random)}"] if carried else []
    if worn:
        wears = "in" if [fragment.attribute for fragment in worn] == ["clothing"] else "wearing"
        parts.append(f"{wears} {joined([form(fragment.text) for fragment in worn], random)}")
    parts = [parts[i] for i in random.permutation(len(parts))]
    words = [fragment.text for fragment in before] + [WORDS["plurals"][person] if several else person]
    head = " ".join(words)
    if not several and person != "someone":
        head = articled(("a ", "a ", "a ", "the ", "")[random.integers(5)] + head)
    if random.random() < 0.15 and head != " ".join(words):
        kinds = WORDS["kinds_of_picture"]
        head = f"{kinds[random.integers(len(kinds))]} {head}"
    text = " ".join([head, *parts])
    separator = " " if len(after) == 1 and after[0].kind == "loose" and random.random() < 0.7 else ", "
    return separator.join([text, *(fragment.text for fragment in after)])


def _as_sentence(fragments: Sequence[Fragment], person: str, random: np.random.Generator) -> str:
    """ "she has red hair and wears a hat, winking"."""
    subject = "she" if person in WORDS["female"] else ("he", "they", "this person", "the avatar")[random.integers(4)]
    has, wears, be = ("have", "wear", "are") if subject == "they" else ("has", "wears", "is")
    clauses = []
    for fragment in (fragment for fragment in fragments if fragment.kind != "loose"):
        worn = _wearable(fragment) and not fragment.text.startswith("no ")
        clauses.append(f"{be if fragment.kind == 'adjective' else wears if worn else has} {fragment.text}")
    loose = [fragment.text for fragment in fragments if fragment.kind == "loose"]
    return ", ".join([f"{subject} {joined(clauses, random)}" if clauses else subject, *loose])


def _wearable(fragment: Fragment) -> bool:
    """Whether "wearing" can stand before a noun."""
    hat = fragment.attribute == "top" and fragment.claims.get("top", frozenset()) <= frozenset(HAT_TOPS)
    return fragment.attribute in ("clothing", "accessory") or hat


def _colored(text: str, word: str) -> str:
    """A phrase with a color's word in its place; word "": without the place."""
    filled = text.replace("{c}", word) if word else text.replace("{c} ", "").replace("{c}-", "")
    return articled(filled)
