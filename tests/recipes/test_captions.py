from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from imagebart.text.prompts import pieces_of
from imagebart.worlds.avatars import HAIR_TOPS, PLAIN, VALUES, Attributes
from recipes import generator
from recipes.avatars.captions import ADJECTIVES, Caption, all_words, describe, turned
from recipes.avatars.dataset import caption, sample

COUNT = 3000

HATS = {"hat", "beanie", "earflaps"}
BEARDS = {"goatee", "beard", "long beard"}
HAIRY = set(HAIR_TOPS) - {"bald"}
# What a reader understands, written without looking at the grammar's tables: words, attribute, values.
READINGS: list[tuple[str, str, set[str]]] = [
    (r"bald|balding|hairless|no hair|without hair", "top", {"bald"}),
    (r"shaved head", "top", {"bald", "buzz"}),
    (r"hair(?! color)|haircut|curls", "top", HAIRY),
    (r"curly (?!\w* ?moustache)(\w+ )?hair|curls|ringlets|curly-haired", "top", {"curly"}),
    (r"(frizzy|kinky) (\w+ )?hair", "top", {"curly", "afro"}),
    (r"afro", "top", {"afro"}),
    (r"buns?", "top", {"bun"}),
    (r"bob", "top", {"bob"}),
    (r"quiffs?", "top", {"quiff"}),
    (r"spiky|messy|wild", "top", {"spiky"}),
    (r"dreads|dreadlocks|rasta", "top", {"dreadlocks"}),
    (r"long (\w+ )?hair|long-haired", "top", {"straight", "wavy"}),
    (r"wavy", "top", {"wavy"}),
    (r"straight (\w+ )?hair", "top", {"straight"}),
    (r"flowers?", "top", {"flowers"}),
    (r"turban", "top", {"turban"}),
    (r"hijab|headscarf", "top", {"hijab"}),
    (r"beanie|bobble", "top", {"beanie"}),
    (r"hats?", "top", HATS),
    (r"beard|bearded|beards", "facial_hair", BEARDS),
    (r"goatee", "facial_hair", {"goatee"}),
    (r"moustache|mustache|mustached|tash|stache", "facial_hair", {"moustache", "curled moustache"}),
    (r"clean-shaven", "facial_hair", {"none"}),
    (r"facial hair", "facial_hair", set(VALUES["facial_hair"]) - {"none"}),
    (r"(round|square) (glasses|spectacles)|specs", "accessory", {"glasses", "round glasses"}),
    (r"(circular|round) (glasses|specs)|glasses,? round", "accessory", {"round glasses"}),
    (r"(?<!dark )(?<!sun )(?<!tinted )glasses|spectacles|eyeglasses", "accessory", {"glasses", "round glasses"}),
    (r"sunglasses|sun glasses|shades|dark glasses|aviators", "accessory", {"sunglasses", "white sunglasses"}),
    (r"white (framed )?(sunglasses|shades)", "accessory", {"white sunglasses"}),
    (r"patch|eyepatch", "accessory", {"eyepatch"}),
    (r"wink|winking", "eyes", {"wink"}),
    (r"hearts?|in love", "eyes", {"hearts"}),
    (r"tears?|teary|crying|weeping|tearful", "eyes", {"crying"}),
    (r"(closed eyes|eyes closed|eyes shut|sleeping|sleepy)", "eyes", {"closed"}),
    (r"surprised|shocked|wide (open )?eyes", "eyes", {"wide"}),
    (r"dizzy", "eyes", {"dizzy"}),
    (r"rolling|rolled", "eyes", {"rolling"}),
    (r"angry|mad|furious|grumpy", "eyebrows", {"angry"}),
    (r"unibrow|monobrow", "eyebrows", {"unibrow"}),
    (r"worried|sad eyebrows", "eyebrows", {"sad"}),
    (r"smile|smiling|laughing|happy|grin|grinning", "mouth", {"smile", "slight smile"}),
    (r"(?<!eyebrows )(?<!eyebrows, )sad(?! eyebrows)|frown|unhappy", "mouth", {"sad"}),
    (r"tongue", "mouth", {"tongue"}),
    (r"teeth|grimace", "mouth", {"grimace"}),
    (r"screaming|yelling|shouting", "mouth", {"scream"}),
    (r"vomit|vomiting|sick|throwing up|puking", "mouth", {"vomit"}),
    (r"poker face|blank face", "mouth", {"serious"}),
    (r"hoodie|sweatshirt", "clothing", {"hoodie"}),
    (r"overalls|dungarees", "clothing", {"overalls"}),
    (r"jacket|blazer|suit", "clothing", {"blazer"}),
    (r"sweater|jumper|pullover", "clothing", {"sweater"}),
    (r"v-neck|v neck|vneck", "clothing", {"v-neck"}),
    (r"tshirt|t shirt", "clothing", {"t-shirt", "v-neck", "graphic"}),
    (r"shirt", "clothing", {"t-shirt", "v-neck", "graphic", "blazer"}),
    (r"skull", "graphic", {"skull"}),
    (r"pizza", "graphic", {"pizza"}),
    (r"bear", "graphic", {"bear"}),
    (r"deer", "graphic", {"deer"}),
    (r"bat|batman", "graphic", {"bat"}),
    (r"diamond", "graphic", {"diamond"}),
    (r"pale|fair|light skin|white (man|woman|guy|girl|person)", "skin", {"fair"}),
    (r"dark skin|dark-skinned|black (man|woman|guy|girl|person)", "skin", {"dark"}),
    (r"brown (man|woman|guy|girl|person)", "skin", {"brown"}),
]
REFUSING = "no|without|without a|remove the|remove|take off the|take off his|take his|take her"
REFUSING += "|shave the|shave off the|not|not wearing|not wearing a|stop"
REFUSED = "hat|beanie|cap|hair|beard|moustache|mustache|facial hair|glasses|specs|spectacles|sunglasses|shades|tears"
REFUSED += "|smile|a smile|smiling|crying"
REFUSALS = [
    (r"(no|without|remove the|take off the|not wearing) (glasses|specs|spectacles)", "accessory", {"none", "eyepatch"}),
    (r"(no|without) sunglasses", "accessory", {"none", "eyepatch", "glasses", "round glasses"}),
    (r"(no|without a|remove the) (beard|moustache|mustache)", "facial_hair", {"none"}),
    (r"(no|without) facial hair", "facial_hair", {"none"}),
    (r"(no|without a|take off the|remove the) hat|no cap", "top", set(HAIR_TOPS)),
    (r"no smile|not smiling|stop smiling", "mouth", set(VALUES["mouth"]) - {"smile", "slight smile"}),
    (r"no hair|without hair", "top", {"bald"}),
]


@pytest.fixture(scope="module")
def said() -> list[tuple[Attributes, Caption]]:
    return [(sample(index), caption(index)) for index in range(COUNT)]


def test_every_caption_is_true(said: list[tuple[Attributes, Caption]]) -> None:
    heard: Counter[str] = Counter()
    for avatar, what in said:
        text = what.text.lower()
        for pattern, name, values in REFUSALS:
            if re.search(rf"\b({pattern})\b", text):
                heard[pattern] += 1
                assert getattr(avatar, name) in values, what.text
        text = re.sub(rf"\b({REFUSING}) ({REFUSED})\b", "", text)
        text = re.sub(r"\b(glasses|hat|beard) off\b", "", text).replace("facial hair", "facial_hair")
        for pattern, name, values in READINGS:
            if re.search(rf"(?<![\w-])({pattern.replace('facial hair', 'facial_hair')})(?![\w-])", text):
                heard[pattern] += 1
                assert getattr(avatar, name) in values, f"{what.text!r} for {avatar}"
    unheard = {pattern for pattern, _, _ in [*READINGS, *REFUSALS]} - set(heard)
    assert not unheard


def test_colors_stand_before_what_has_them(said: list[tuple[Attributes, Caption]]) -> None:
    hair = {
        "black": {"black", "dark"},
        "red": {"red", "ginger", "orange", "auburn", "copper"},
        "grey": {"grey", "gray", "silver"},
        "blue": {"blue", "navy"},
    }
    hair["blonde"] = {"blonde", "blond", "golden"}
    words = "black dark brown blonde blond red ginger orange grey gray silver pink blue green yellow white purple"
    words += " auburn copper golden navy"
    colors = f"({words.replace(' ', '|')})"
    nouns = {
        r"hair": "hair_color", r"(?:hoodie|t-shirt|overalls|clothes|jumper|tee|top(?! knot))": "clothing_color",
        r"(?:turban|hijab|beanie|winter hat)": "hat_color", r"(?:facial hair|goatee)": "facial_hair_color",
        r"(?:background|wall)": "background",
    }  # fmt: skip
    heard: Counter[str] = Counter()
    for avatar, what in said:
        for noun, name in nouns.items():
            for word in re.findall(rf"\b{colors} {noun}\b", what.text.lower()):
                value = getattr(avatar, name)
                heard[name] += 1
                assert word in hair.get(value, {value}), f"{what.text!r} for {avatar}"
    assert all(heard[name] > 20 for name in nouns.values())


def test_claims_are_true_and_a_womans_lack_of_a_beard_is_one(said: list[tuple[Attributes, Caption]]) -> None:
    for avatar, what in said:
        assert what.claims
        assert all(getattr(avatar, name) in values for name, values in what.claims.items())
        assert set(what.claims) <= avatar.visible()
        if re.search(r"\b(ginger|redhead|blonde|brunette)\b", what.text.lower()) and "hair_color" in what.claims:
            assert "top" in what.claims
        if re.search(r"\b(woman|women|girls?|lady)\b", what.text.lower()):
            assert "facial_hair" in what.claims
    bearded_men = sum(a.facial_hair != "none" and "a man" in c.text and "facial_hair" not in c.claims for a, c in said)
    assert bearded_men > 15


def test_of_two_phrases_for_one_attribute_the_narrower_is_claimed() -> None:
    """ "redheaded" says that there is hair, "a bun" which."""
    attributes = replace(PLAIN, top="bun", hair_color="red")
    told = [describe(attributes, np.random.default_rng(seed)) for seed in range(300)]
    claimed = [caption.claims["top"] for caption in told if "bun" in caption.text.split()]
    assert len(claimed) > 20 and set(claimed) == {frozenset({"bun"})}


def test_every_value_is_named(said: list[tuple[Attributes, Caption]]) -> None:
    named = {(name, value) for _, what in said for name, values in what.claims.items() for value in values}
    assert named == {(name, value) for name, values in VALUES.items() for value in values}
    alone = {(name, *values) for _, what in said for name, values in what.claims.items() if len(values) == 1}
    assert alone == named


def test_captions_are_short_and_vary(said: list[tuple[Attributes, Caption]]) -> None:
    counts = [sum(len(piece.ids) for piece in pieces_of(what.text)) for _, what in said]
    assert max(counts) <= 50
    named = Counter(min(len(what.claims), 8) for _, what in said)
    assert all(named[count] > COUNT * 0.03 for count in range(1, 9))
    assert len({what.text for _, what in said}) > 0.9 * COUNT
    assert any(what.text.isupper() for _, what in said) and any(what.text.endswith(".") for _, what in said)


def test_a_count_names_as_many() -> None:
    for index in range(200):
        what = describe(sample(index), generator(index, 0, 1), count=1)
        assert what.claims and len(what.claims) <= 5


def test_all_words_are_those_that_captions_use(said: list[tuple[Attributes, Caption]]) -> None:
    used = {word for _, what in said for word in re.findall(r"[a-z]+", what.text.lower())}
    assert used | ADJECTIVES <= set(all_words())
    assert len(all_words()) < 650
    assert len(used) > 0.75 * len(all_words())


def test_adjectives_stand_after_their_noun_now_and_then() -> None:
    random = np.random.default_rng(0)

    def turns(text: str, comma: bool) -> set[str]:
        return {turned(text, random, comma) for _ in range(40)}

    assert turns("long black hair", False) == {"hair long and black", "hair long black"}
    assert turns("round glasses", True) == {"glasses round", "glasses, round"}
    assert turns("a big hat", False) == {"hat big"}
    assert turns("an orange v neck", False) == {"v neck orange"}
    assert turns("a buzz cut", True) == {"a buzz cut"} and turns("hair", True) == {"hair"}
