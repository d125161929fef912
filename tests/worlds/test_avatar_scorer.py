"""The shipped classifier is right on fresh avatars; the scorer that is built on it."""

import json
from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from tiny_models import save_model_with_scorer, tiny_model

from imagebart.core.errors import WeightsError
from imagebart.training.config import LoopConfig
from imagebart.worlds import save_half
from imagebart.worlds.attribute_classifier import (
    HEADS,
    AttributeClassifier,
    AvatarScorer,
    claims_vector,
    likeliest,
    load_classifier,
    read_claims,
)
from imagebart.worlds.avatars import PLAIN, VALUES, Claims, verbalize
from imagebart.worlds.ranking import ATTRIBUTE_CLASSIFIER, bundled_scorer
from recipes.avatars import CLASSIFIER
from recipes.avatars.artwork import rendered
from recipes.avatars.dataset import caption, sample
from recipes.avatars.training import ClassifierRun, train_classifier


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


def test_the_score_is_the_chance_of_all_claims_by_the_classifier_s_word(
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
    likely = (
        torch.stack([skin.argmax(1) == 1, skin.argmax(1) == 3]).any(0) & (hat.argmax(1) == 5) & (top.argmax(1) > 12)
    )
    assert said.shows(images, "x") == likely.tolist()
    assert claiming(scorer, {}).score(images, "x").tolist() == [0, 0, 0]


def test_the_prompt_is_set_against_what_shows_and_all_else_stays(scorer: AvatarScorer) -> None:
    scorer = claiming(scorer, {"accessory": {"eyepatch"}})
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
