"""The scorer of avatars: what captions claim, what renders show, and how that is put into words."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from model_with_scorer import save_model_with_scorer
from tiny_models import tiny_model

from imagebart.core.errors import WeightsError
from imagebart.worlds.attribute_classifier import (
    HEADS,
    AttributeClassifier,
    AvatarScorer,
    claims_vector,
    read_claims,
)
from imagebart.worlds.avatars import PLAIN, SHOWING, VALUES, Attributes, Claims, verbalize, with_showing
from imagebart.worlds.ranking import ATTRIBUTE_CLASSIFIER, bundled_scorer
from recipes.avatars.artwork import rendered
from recipes.avatars.captions import all_words, describe
from recipes.avatars.cases import found
from recipes.avatars.dataset import caption, generator, sample


@dataclass(frozen=True)
class FixedClaims(AvatarScorer):
    """Reads the same claims in every prompt."""

    fixed: Mapping[str, Set[str]]

    def claims(self, prompt: str) -> Claims:
        return {name: frozenset(values) for name, values in self.fixed.items()}


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> AvatarScorer:
    folder = tmp_path_factory.mktemp("model")
    scorer = bundled_scorer(folder, save_model_with_scorer(folder))
    assert isinstance(scorer, AvatarScorer)
    return scorer


def claiming(scorer: AvatarScorer, claims: Mapping[str, Set[str]]) -> AvatarScorer:
    return FixedClaims(scorer.classifier, scorer.captions, scorer.conditioner, claims)


def test_the_score_is_the_chance_of_all_claims_by_the_reader_s_word(
    scorer: AvatarScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: two attributes, of which one needs a third to be so."""
    answers = {name: torch.randn(3, len(values)) for name, values in VALUES.items()}
    monkeypatch.setattr(AttributeClassifier, "forward", lambda *_: answers)
    images = torch.zeros(3, 3, 8, 8)
    skin, hat, top = (answers[name].softmax(1) for name in ("skin", "hat_color", "top"))
    expected = (skin[:, 1] + skin[:, 3]) * hat[:, 5] * top[:, 13:].sum(1)
    said = claiming(scorer, {"skin": {"tan", "dark"}, "hat_color": {"red"}})
    torch.testing.assert_close(said.score(images, "x"), expected.log())
    assert claiming(scorer, {}).score(images, "x").tolist() == [0, 0, 0]


def test_images_that_show_what_is_claimed_come_first(scorer: AvatarScorer) -> None:
    avatars = [sample(i, 8, "all") for i in range(64)]
    images = rendered(avatars, 128)
    for number in range(12):
        claims = describe(sample(number, 8), generator(number, 8, 1), count=1).claims
        scores = claiming(scorer, claims).score(images, "x")
        right = torch.tensor([all(found(avatar, claims).values()) for avatar in avatars])
        if right.any() and not right.all():
            assert scores[right].min() > scores[~right].max()


def test_images_of_any_size_are_scorerd_and_blank_prompts_leave_them_equal(scorer: AvatarScorer) -> None:
    images = rendered([replace(PLAIN, accessory=value) for value in ("none", "sunglasses", "eyepatch")], 64)
    for i, accessory in enumerate(("none", "sunglasses", "eyepatch")):
        assert claiming(scorer, {"accessory": {accessory}}).score(images, "any").argmax() == i
    for head in scorer.captions.heads:
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
        head.bias[-1] = 9  # nothing is said
    assert scorer.score(images, "").tolist() == [0, 0, 0]


def test_the_prompt_is_set_against_what_shows_and_all_else_stays(scorer: AvatarScorer) -> None:
    scorer = claiming(scorer, {"accessory": {"eyepatch"}})
    dark = replace(PLAIN, accessory="sunglasses", clothing="graphic")
    plain, other = rendered([PLAIN, dark], 256).split(1)
    assert scorer.describe(plain) == verbalize(PLAIN) and scorer.describe(other) == verbalize(dark)
    patched = replace(PLAIN, accessory="eyepatch")
    rest = verbalize(patched, patched.visible() - {"accessory"})
    assert scorer.contrast(plain, "eyepatch") == (f"eyepatch, {rest}", verbalize(PLAIN))


SHIRT = replace(PLAIN, clothing="graphic", graphic="bat", accessory="sunglasses", eyes="hearts", eyebrows="sad")
CONTRASTS: dict[str, tuple[Attributes, dict[str, set[str]], set[str], set[str]]] = {
    "what hides a claim goes": (SHIRT, {"eyes": {"wink"}}, {"black sunglasses"}, set()),
    "what was hidden is not told": (SHIRT, {"accessory": {"none"}}, {"black sunglasses"}, set()),
    "a print goes with its shirt": (SHIRT, {"clothing": {"hoodie"}}, {"a blue shirt with a bat"}, {"a blue hoodie"}),
    "a thing takes a color": (PLAIN, {"hair_color": {"red"}}, {"short brown hair"}, {"short red hair"}),
    "nothing is told of what is left open": (PLAIN, {"accessory": {"glasses", "round glasses"}}, {"no glasses"}, set()),
    "but its color": (PLAIN, {"clothing": {"hoodie", "sweater"}}, {"a blue t-shirt"}, {"blue clothes"}),
    "if that stays": (
        PLAIN,
        {"clothing": {"hoodie", "sweater"}, "clothing_color": {"red"}},
        {"a blue t-shirt"},
        set(),
    ),
    "nor of what it may hide": (
        PLAIN,
        {"accessory": {"glasses", "sunglasses"}},
        {"no glasses", "open eyes", "normal eyebrows"},
        set(),
    ),
    "what is so already stays": (PLAIN, {"top": {"short", "bob"}}, set(), set()),
    "nothing is told twice": (PLAIN, {"skin": {"fair"}, "hair_color": {"brown"}}, {"fair skin"}, set()),
    "nor a thing with its color": (
        PLAIN,
        {"top": {"bob"}, "hair_color": {"brown"}},
        {"short brown hair"},
        set(),
    ),
}
"""An avatar, what is claimed, and what is no longer told of it, and newly."""


@pytest.mark.parametrize(("avatar", "said", "gone", "new"), CONTRASTS.values(), ids=CONTRASTS)
def test_a_claim_changes_what_it_has_to_and_no_more(
    scorer: AvatarScorer, avatar: Attributes, said: dict[str, set[str]], gone: set[str], new: set[str]
) -> None:
    texts = claiming(scorer, said).contrast(rendered([avatar], 256), "x")
    assert texts is not None and texts[1] == verbalize(avatar)
    before, (first, *asked) = set(verbalize(avatar).split(", ")), texts[0].split(", ")
    assert first == "x" and gone <= before and set(asked) == before - gone | new


def test_to_a_complete_prompt_nothing_is_added(scorer: AvatarScorer) -> None:
    """So that the recipe of an edit with a suggested mask makes the same image again."""
    for avatar in (PLAIN, SHIRT, sample(5, 6)):
        said = {name: {vars(avatar)[name]} for name in avatar.visible()}
        assert claiming(scorer, said).contrast(rendered([avatar], 256), "x") == ("x", verbalize(avatar))


def test_what_is_no_avatar_is_not_described(scorer: AvatarScorer) -> None:
    line = torch.linspace(-1, 1, 256)
    slope = torch.stack([line.expand(256, 256), line[:, None].expand(256, 256), -line.expand(256, 256)])
    shifted, noise = rendered([PLAIN], 256)[0].roll(60, 2), torch.rand(3, 256, 256) * 2 - 1
    for image in (torch.zeros(3, 256, 256), slope, shifted, noise):
        assert scorer.describe(image[None]) is None and scorer.contrast(image[None], "sunglasses") is None


def test_files_that_are_no_scorer_are_named(tmp_path: Path) -> None:
    model = save_model_with_scorer(tmp_path)
    assert bundled_scorer(tmp_path / "elsewhere", model) is None
    with pytest.raises(WeightsError, match=f"{ATTRIBUTE_CLASSIFIER} cannot be used as a scorer: it scores by prompts"):
        bundled_scorer(tmp_path, tiny_model("class"))
    with pytest.raises(WeightsError, match="query_tokens is 3, expected 14"):
        bundled_scorer(tmp_path, tiny_model("text"))
    (tmp_path / HEADS).write_bytes(b"no tensors")
    with pytest.raises(WeightsError, match=f"{ATTRIBUTE_CLASSIFIER} cannot be used"):
        bundled_scorer(tmp_path, model)
    (tmp_path / HEADS).unlink()
    with pytest.raises(WeightsError, match=HEADS):
        bundled_scorer(tmp_path, model)


@pytest.mark.parametrize("certainty", [0.8, 0.99])
def test_claims_are_read_off_heads_that_learnt_them(certainty: float) -> None:
    """A head shares its probability among what is claimed, and gives the rest to anything else."""
    for number in range(60):
        claims = caption(number).claims
        vector = claims_vector(claims).float()
        groups = vector.split([len(values) + 1 for values in VALUES.values()])
        shares = [certainty * g / g.sum() + (1 - certainty) / len(g) for g in groups]
        assert read_claims(torch.cat(shares).log()) == claims
    assert read_claims(claims_vector({}).float() * 20) == {}


def test_what_is_claimed_shows_just_where_everything_wider_is_so() -> None:
    """Against `found`, which looks at what a whole avatar shows, over pairs of captions and avatars."""
    true = 0
    for number in range(100):
        claims = describe(sample(number, 6), generator(number, 6, 1), count=1 + number % 3).claims
        wider = with_showing(claims)
        for avatar in [sample(number, 6), *(sample(10**6 + 10 * number + i, 6, "all") for i in range(10))]:
            values = vars(avatar)
            shows = all(found(avatar, claims).values())
            assert all(values[name] in allowed for name, allowed in wider.items()) == shows
            true += shows
    assert 100 <= true < 100 * 10
    hat = {"hair_color": frozenset({"red"}), "hat_color": frozenset({"blue"}), "top": frozenset({"beanie"})}
    assert with_showing(hat)["top"] == {"beanie"}, "what a prompt says itself comes first"
    assert with_showing({}) == {}


DESCRIPTION = (
    "short brown hair, no beard, a blue t-shirt, no glasses, open eyes, normal eyebrows, a big smile, fair skin, "
    "a green background"
)


def test_all_that_shows_is_described() -> None:
    assert verbalize(PLAIN) == DESCRIPTION
    assert verbalize(replace(PLAIN, clothing="graphic", graphic="bat")) == DESCRIPTION.replace(
        "t-shirt", "shirt with a bat"
    )
    hidden = verbalize(replace(PLAIN, top="hijab", accessory="sunglasses"))
    assert hidden == "a blue hijab, no beard, black sunglasses, a big smile, fair skin, a green background"


def test_only_what_is_named_is_described_and_colors_with_what_has_them() -> None:
    assert verbalize(PLAIN, ["mouth", "skin"]) == "a big smile, fair skin"
    assert verbalize(PLAIN, ["top"]) == "short hair"
    assert verbalize(PLAIN, ["top", "hair_color"]) == "short brown hair"
    assert verbalize(PLAIN, ["graphic", "hat_color"]) == verbalize(PLAIN, []) == ""
    assert verbalize(replace(PLAIN, background="orange"), ["background"]) == "an orange background"


def test_a_color_alone_names_as_little_as_has_it() -> None:
    assert verbalize(PLAIN, ["hair_color", "clothing_color"]) == "brown hair, blue clothes"
    assert verbalize(replace(PLAIN, top="beanie"), ["hat_color"]) == "a blue hat"
    goatee = replace(PLAIN, facial_hair="goatee")
    assert verbalize(goatee, ["facial_hair_color", "skin"]) == "brown facial hair, fair skin"


@pytest.mark.parametrize("name", VALUES)
def test_every_value_has_its_own_description_in_words_of_captions(name: str) -> None:
    avatars = [replace(PLAIN, **{**SHOWING.get(name, {}), name: value}) for value in VALUES[name]]
    texts = [verbalize(avatar) for avatar in avatars]
    assert len(set(texts)) == len(VALUES[name])
    known = set(all_words())
    assert not [word for text in texts for word in text.replace(",", "").replace("-", " ").split() if word not in known]


def test_the_words_of_two_avatars_differ_as_the_avatars_do() -> None:
    for number in range(0, 60, 2):
        one, other = sample(number, 4), sample(number + 1, 4)
        same = one.visible() == other.visible() and all(vars(one)[name] == vars(other)[name] for name in one.visible())
        assert (verbalize(one) == verbalize(other)) is same
