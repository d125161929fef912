"""Attributes of avatars: the words for their values, what claims mean for them, and descriptions."""

from dataclasses import replace

import pytest

from imagebart.worlds import avatars
from imagebart.worlds.avatars import PLAIN, VALUES, Attributes, Phrase, changed_by, phrases, verbalize, with_showing
from recipes import generator
from recipes.avatars.captions import all_words, describe
from recipes.avatars.cases import found
from recipes.avatars.dataset import sample

SHIRT = replace(PLAIN, clothing="graphic", graphic="bat", accessory="sunglasses", eyes="hearts", eyebrows="sad")


def test_a_file_s_signs_say_of_which_values_a_phrase_is_true_and_how_it_stands() -> None:
    colors, wordings = phrases("colors"), phrases("wordings")
    assert colors["top"][0] == Phrase("top", frozenset(avatars.HAIR_TOPS) - {"bald"}, "noun", "{c} hair")
    assert phrases("negations")["top"][0].values == frozenset(VALUES["top"]) - frozenset(avatars.HAT_TOPS)
    kinds = {phrase.text: phrase.kind for phrase in (*colors["hair_color"], *wordings["skin"])}
    assert [kinds[text] for text in ("ginger", "blondie", "white", "fair skin")] == [
        *("adjective", "loose", "epithet", "noun"),
    ]
    skulls = [phrase.text for phrase in wordings["graphic"] if phrase.values == {"skull"}]
    assert {"a {c} shirt with a skull", "a skull print", "a {c} skeleton shirt"} < set(skulls)
    assert phrases("negations")["facial_hair"] == [p for p in wordings["facial_hair"] if p.values == {"none"}]


def test_nothing_of_the_file_is_left_in_the_phrases() -> None:
    for table in map(phrases, ("wordings", "colors", "negations")):
        for phrase in (phrase for row in table.values() for phrase in row):
            left = phrase.text.replace("{c}", "red")
            assert left and left == left.strip() and not set(left) & set("{}*$;=+~\n"), phrase
            assert phrase.values and phrase.values <= set(VALUES[phrase.attribute])


def test_what_is_claimed_shows_just_where_everything_wider_is_so() -> None:
    """Against `found`, which looks at what a whole avatar shows, over pairs of captions and avatars."""
    true = 0
    for number in range(100):
        claims = describe(sample(number, 6), generator(number, 6, 1), count=1 + number % 3).claims
        wider = with_showing(claims)
        for avatar in [sample(number, 6), *(sample(10**6 + 10 * number + i, 6, "all") for i in range(10))]:
            shows = all(found(avatar, claims).values())
            assert all(vars(avatar)[name] in allowed for name, allowed in wider.items()) == shows
            true += shows
    assert 100 <= true < 100 * 10
    hat = {"hair_color": frozenset({"red"}), "hat_color": frozenset({"blue"}), "top": frozenset({"beanie"})}
    assert with_showing(hat)["top"] == {"beanie"}, "what a prompt says itself comes first"
    assert with_showing({}) == {}


NO_GLASSES = {"glasses", "round glasses"}
CONTRASTS: dict[str, tuple[Attributes, dict[str, set[str]], set[str], set[str]]] = {
    "what hides a claim goes": (SHIRT, {"eyes": {"wink"}}, {"black sunglasses"}, set()),
    "what was hidden is not told": (SHIRT, {"accessory": {"none"}}, {"black sunglasses"}, set()),
    "a print goes with its shirt": (SHIRT, {"clothing": {"hoodie"}}, {"a blue shirt with a bat"}, {"a blue hoodie"}),
    "a thing takes a color": (PLAIN, {"hair_color": {"red"}}, {"short brown hair"}, {"short red hair"}),
    "nothing is told of what is left open": (PLAIN, {"accessory": NO_GLASSES}, {"no glasses"}, set()),
    "but its color": (PLAIN, {"clothing": {"hoodie", "sweater"}}, {"a blue t-shirt"}, {"blue clothes"}),
    "if that stays": (
        *(PLAIN, {"clothing": {"hoodie", "sweater"}, "clothing_color": {"red"}}, {"a blue t-shirt"}, set()),
    ),
    "nor of what it may hide": (
        *(PLAIN, {"accessory": {"glasses", "sunglasses"}}, {"no glasses", "open eyes", "normal eyebrows"}, set()),
    ),
    "what is so already stays": (PLAIN, {"top": {"short", "bob"}}, set(), set()),
    "nothing is told twice": (PLAIN, {"skin": {"fair"}, "hair_color": {"brown"}}, {"fair skin"}, set()),
    "nor a thing with its color": (PLAIN, {"top": {"bob"}, "hair_color": {"brown"}}, {"short brown hair"}, set()),
}
"""An avatar, what is claimed, and what is no longer told of it, and newly."""


@pytest.mark.parametrize(("avatar", "said", "gone", "new"), CONTRASTS.values(), ids=CONTRASTS)
def test_a_claim_changes_what_it_has_to_and_no_more(
    avatar: Attributes, said: dict[str, set[str]], gone: set[str], new: set[str]
) -> None:
    rest = verbalize(*changed_by({name: frozenset(values) for name, values in said.items()}, avatar))
    before = set(verbalize(avatar).split(", "))
    assert gone <= before and set(rest.split(", ")) == before - gone | new


def test_to_a_complete_prompt_nothing_is_added() -> None:
    """So that the recipe of an edit with a suggested mask makes the same image again."""
    for avatar in (PLAIN, SHIRT, sample(5, 6)):
        said = {name: frozenset({vars(avatar)[name]}) for name in avatar.visible()}
        assert verbalize(*changed_by(said, avatar)) == ""


DESCRIPTION = (
    "short brown hair, no beard, a blue t-shirt, no glasses, open eyes, normal eyebrows, a big smile, fair skin, "
    "a green background"
)


def test_all_that_shows_is_described() -> None:
    bat = replace(PLAIN, clothing="graphic", graphic="bat")
    assert verbalize(PLAIN) == DESCRIPTION
    assert verbalize(bat) == DESCRIPTION.replace("t-shirt", "shirt with a bat")
    hidden = verbalize(replace(PLAIN, top="hijab", accessory="sunglasses"))
    assert hidden == "a blue hijab, no beard, black sunglasses, a big smile, fair skin, a green background"


def test_only_what_is_named_is_described_and_a_color_alone_as_of_as_little_as_has_it() -> None:
    goatee, beanie = replace(PLAIN, facial_hair="goatee"), replace(PLAIN, top="beanie")
    assert verbalize(PLAIN, ["mouth", "skin"]) == "a big smile, fair skin"
    assert verbalize(PLAIN, ["top"]) == "short hair"
    assert verbalize(PLAIN, ["graphic", "hat_color"]) == verbalize(PLAIN, []) == ""
    assert verbalize(replace(PLAIN, background="orange"), ["background"]) == "an orange background"
    assert verbalize(PLAIN, ["hair_color", "clothing_color"]) == "brown hair, blue clothes"
    assert verbalize(beanie, ["hat_color"]) == "a blue hat"
    assert verbalize(goatee, ["facial_hair_color", "skin"]) == "brown facial hair, fair skin"


def test_every_value_has_its_own_description_in_words_of_captions() -> None:
    known = set(all_words())
    for name, values in VALUES.items():
        texts = {verbalize(replace(PLAIN, **{**avatars.SHOWING.get(name, {}), name: value})) for value in values}
        assert len(texts) == len(values)
        assert {word for text in texts for word in text.replace(",", "").replace("-", " ").split()} <= known
