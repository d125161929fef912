"""Avatars: words for attributes, what claims mean, descriptions; the shipped classifier, and the scorer built on it."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_models import rendered, save_model_with_scorer, tiny_model

from imagebart.core.errors import WeightsError
from imagebart.training.config import LoopConfig
from imagebart.worlds import avatars, save_half
from imagebart.worlds.attribute_classifier import (
    HEADS,
    AttributeClassifier,
    AvatarScorer,
    claims_vector,
    likeliest,
    load_classifier,
    read_claims,
)
from imagebart.worlds.avatars import PLAIN, VALUES, Attributes, Phrase, changed_by, phrases, verbalize, with_showing
from imagebart.worlds.ranking import ATTRIBUTE_CLASSIFIER, bundled_scorer
from recipes import generator
from recipes.avatars import CLASSIFIER
from recipes.avatars.captions import all_words, describe
from recipes.avatars.dataset import caption, sample
from recipes.avatars.evaluation import found
from recipes.avatars.training import ClassifierRun, train_classifier

SHIRT = replace(PLAIN, clothing="graphic", graphic="bat", accessory="sunglasses", eyes="hearts", eyebrows="sad")


def test_a_file_s_signs_say_of_which_values_a_phrase_is_true_and_how_it_stands() -> None:
    colors, wordings = phrases("colors"), phrases("wordings")
    assert colors["top"][0] == Phrase("top", frozenset(avatars.HAIR_TOPS) - {"bald"}, "noun", "{c} hair")
    assert phrases("negations")["top"][0].values == frozenset(VALUES["top"]) - frozenset(avatars.HAT_TOPS)
    kinds = {phrase.text: phrase.kind for phrase in (*colors["hair_color"], *wordings["skin"])}
    expected = {"ginger": "adjective", "blondie": "loose", "white": "epithet", "fair skin": "noun"}
    assert expected.items() <= kinds.items()
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


NO_GLASSES, WARM = {"glasses", "round glasses"}, {"hoodie", "sweater"}
HIDDEN = {"no glasses", "open eyes", "normal eyebrows"}
CONTRASTS: list[tuple[str, Attributes, dict[str, set[str]], set[str], set[str]]] = [
    ("what hides a claim goes", SHIRT, {"eyes": {"wink"}}, {"black sunglasses"}, set()),
    ("what was hidden is not told", SHIRT, {"accessory": {"none"}}, {"black sunglasses"}, set()),
    ("a print goes with its shirt", SHIRT, {"clothing": {"hoodie"}}, {"a blue shirt with a bat"}, {"a blue hoodie"}),
    ("a thing takes a color", PLAIN, {"hair_color": {"red"}}, {"short brown hair"}, {"short red hair"}),
    ("nothing is told of what is left open", PLAIN, {"accessory": NO_GLASSES}, {"no glasses"}, set()),
    ("nor of what it may hide", PLAIN, {"accessory": {"glasses", "sunglasses"}}, HIDDEN, set()),
    ("but its color", PLAIN, {"clothing": WARM}, {"a blue t-shirt"}, {"blue clothes"}),
    ("if that stays", PLAIN, {"clothing": WARM, "clothing_color": {"red"}}, {"a blue t-shirt"}, set()),
    ("what is so already stays", PLAIN, {"top": {"short", "bob"}}, set(), set()),
    ("nothing is told twice", PLAIN, {"skin": {"fair"}, "hair_color": {"brown"}}, {"fair skin"}, set()),
    ("nor a thing with its color", PLAIN, {"top": {"bob"}, "hair_color": {"brown"}}, {"short brown hair"}, set()),
]
"""An avatar, what is claimed, and what is no longer told of it, and newly."""


def test_a_claim_changes_what_it_has_to_and_no_more() -> None:
    for rule, avatar, said, gone, new in CONTRASTS:
        rest = verbalize(*changed_by({name: frozenset(values) for name, values in said.items()}, avatar))
        before = set(verbalize(avatar).split(", "))
        assert gone <= before and set(rest.split(", ")) == before - gone | new, rule


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


# The classifier, and the scorer.


@pytest.mark.parametrize(("size", "count", "bound"), [(128, 200, 0.99), (256, 60, 0.98)])
def test_fresh_renders_are_read_right(size: int, count: int, bound: float) -> None:
    avatars = [sample(i, 424_242, "all") for i in range(count)]
    right, asked = Counter[str](), Counter[str]()
    for truth, reading in zip(avatars, likeliest(load_classifier(CLASSIFIER)(rendered(avatars, size))), strict=True):
        asked.update(truth.visible())
        right.update(name for name in truth.visible() if getattr(truth, name) == getattr(reading, name))
    assert set(asked) == set(VALUES)
    assert {name: n for name, n in asked.items() if right[name] < bound * n} == {}


@pytest.mark.release
def test_training_lowers_the_loss_and_writes_a_classifier(tmp_path: Path) -> None:
    loop = LoopConfig(steps=12, batch_size=16, lr=4e-3, warmup=2, ema=0.5, mixed_precision="no", log_every=1)
    trained = train_classifier(ClassifierRun(loop=loop), tmp_path)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert sum(losses[-4:]) < 0.98 * sum(losses[:4])
    images = rendered([PLAIN], 128)
    written = load_classifier(tmp_path / ATTRIBUTE_CLASSIFIER)(images)
    for name, answers in trained.eval()(images).items():
        torch.testing.assert_close(written[name], answers, atol=2e-2, rtol=0)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> AvatarScorer:
    folder = tmp_path_factory.mktemp("model")
    scorer = bundled_scorer(folder, save_model_with_scorer(folder))
    assert isinstance(scorer, AvatarScorer)
    return scorer


def test_the_score_is_the_chance_of_all_claims(scorer: AvatarScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: two attributes, of which one needs a third to be so."""
    answers = {name: torch.randn(3, len(values)) for name, values in VALUES.items()}
    monkeypatch.setattr(AttributeClassifier, "forward", lambda *_: answers)
    images = torch.zeros(3, 3, 8, 8)
    skin, hat, top = (answers[name].softmax(1) for name in ("skin", "hat_color", "top"))
    expected = (skin[:, 1] + skin[:, 3]) * hat[:, 5] * top[:, 13:].sum(1)
    claims = {"a red hat": {"skin": {"tan", "dark"}, "hat_color": {"red"}}, "": {}}
    monkeypatch.setattr(AvatarScorer, "claims", lambda _, prompt: claims[prompt])
    torch.testing.assert_close(scorer.score(images, "a red hat"), expected.log())
    tan_or_dark = (skin.argmax(1) == 1) | (skin.argmax(1) == 3)
    likely = tan_or_dark & (hat.argmax(1) == 5) & (top.argmax(1) > 12)
    assert scorer.shows(images, "a red hat") == likely.tolist()
    assert scorer.score(images, "").tolist() == [0, 0, 0]


def test_the_prompt_is_set_against_what_shows(scorer: AvatarScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AvatarScorer, "claims", lambda *_: {"accessory": {"eyepatch"}})
    dark = replace(PLAIN, accessory="sunglasses", clothing="graphic")
    plain, other = rendered([PLAIN, dark], 256).split(1)
    assert scorer.describe(plain) == verbalize(PLAIN) and scorer.describe(other) == verbalize(dark)
    patched = replace(PLAIN, accessory="eyepatch")
    rest = verbalize(patched, patched.visible() - {"accessory"})
    assert scorer.contrast(plain, "eyepatch") == (f"eyepatch, {rest}", verbalize(PLAIN))


def test_what_is_no_avatar_is_not_described(scorer: AvatarScorer) -> None:
    line = torch.linspace(-1, 1, 256)
    slope = torch.stack([line.expand(256, 256), line[:, None].expand(256, 256), -line.expand(256, 256)])
    shifted, noise = rendered([PLAIN], 256)[0].roll(60, 2), torch.rand(3, 256, 256) * 2 - 1
    for image in (torch.zeros(3, 256, 256), slope, shifted, noise):
        assert scorer.describe(image[None]) is None and scorer.contrast(image[None], "sunglasses") is None


@pytest.mark.parametrize("certainty", [0.8, 0.99])
def test_claims_are_read_off_heads_that_learnt_them(certainty: float) -> None:
    """A head shares its probability among what is claimed, and gives the rest to anything else."""
    for number in range(60):
        claims = caption(number).claims
        groups = claims_vector(claims).float().split([len(values) + 1 for values in VALUES.values()])
        for (name, values), group in zip(VALUES.items(), groups, strict=True):
            assert group.tolist() == [*(value in claims.get(name, ()) for value in values), name not in claims]
        shares = [certainty * g / g.sum() + (1 - certainty) / len(g) for g in groups]
        assert read_claims(torch.cat(shares).log()) == claims


def test_files_that_are_no_scorer_are_named(tmp_path: Path) -> None:
    model = save_model_with_scorer(tmp_path)
    assert bundled_scorer(tmp_path / "elsewhere", model) is None
    refused = f"{ATTRIBUTE_CLASSIFIER} cannot be used as a scorer: "
    with pytest.raises(WeightsError, match=f"{refused}it scores by prompts"):
        bundled_scorer(tmp_path, tiny_model("class"))
    with pytest.raises(WeightsError, match=f"{refused}query_tokens is 3, expected 14"):
        bundled_scorer(tmp_path, tiny_model("text"))
    heads = (tmp_path / HEADS).read_bytes()
    (tmp_path / HEADS).write_bytes(b"no tensors")
    with pytest.raises(WeightsError, match=refused):
        bundled_scorer(tmp_path, model)
    (tmp_path / HEADS).unlink()
    with pytest.raises(WeightsError, match=HEADS):
        bundled_scorer(tmp_path, model)
    (tmp_path / HEADS).write_bytes(heads)
    save_half(
        AttributeClassifier(), tmp_path / ATTRIBUTE_CLASSIFIER, {"values": json.dumps(VALUES | {"skin": ["blue"]})}
    )
    with pytest.raises(WeightsError, match="knows other attributes"):
        bundled_scorer(tmp_path, model)
