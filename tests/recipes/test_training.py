"""Training on avatars: the text encoder learns to read captions, and more words later."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import tiny_conditioner
from torch import Tensor

from imagebart.model import ImageBART
from imagebart.models.text_encoder import TextEncoder
from imagebart.text.conditioners import TextConditioner
from imagebart.training.config import LoopConfig, StageShape
from imagebart.training.token_task import load_text_encoder, text_config
from imagebart.worlds.attribute_classifier import GROUPS, HEADS, CaptionReader, claims_vector, save_heads
from imagebart.worlds.avatars import VALUES
from recipes.avatars import training
from recipes.avatars.captions import avatar_conditioner
from recipes.avatars.dataset import AvatarDataset, caption
from recipes.avatars.training import (
    OFTEN,
    SILENT,
    CaptionDataset,
    CaptionsRun,
    QueryTokenDistillation,
    reading_accuracy,
    reading_loss,
    train_captions,
)

SHAPE = StageShape(width=32, depth=1, heads=2, head_size=16, encoder_depth=1, query_tokens=14)


@pytest.fixture(autouse=True)
def few_captions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Distillation looks at fewer captions than in a real run."""
    monkeypatch.setattr(training, "caption_batches", partial(training.caption_batches, count=64))


def test_captions_are_those_of_the_avatars() -> None:
    captions, avatars = CaptionDataset(), AvatarDataset(size=16)
    for number in (1, 5, 123):
        said = captions[number]
        assert said["text"] == avatars[number]["text"] == caption(number).text
        assert torch.equal(said["claims"], claims_vector(caption(number).claims))  # type: ignore[arg-type]
    silent = captions[3 * SILENT]
    assert silent["text"] == "" and torch.equal(silent["claims"], claims_vector({}))  # type: ignore[arg-type]


def test_a_short_run_learns_to_read(tmp_path: Path) -> None:
    """New captions at every step, so that the log is of captions not seen before."""
    settings = {"batch_size": 16, "optimizer": "muon", "lr": 0.01, "warmup": 5, "ema": 0.9, "log_every": 1}
    loop = LoopConfig(steps=100, **settings)  # type: ignore[arg-type]
    trained = train_captions(CaptionsRun(loop=loop, shape=SHAPE, text_length=60), tmp_path / "run")
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert sum(r["read"] for r in log[-10:]) > 1.6 * sum(r["read"] for r in log[:10])
    assert (tmp_path / "run" / "samples" / "0000100.png").exists()
    again, conditioner = load_text_encoder(tmp_path / "run")
    assert conditioner == avatar_conditioner(60)
    for name, tensor in trained.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    with pytest.raises(ValueError, match="reads 60 tokens a prompt, expected 61"):
        train_captions(
            CaptionsRun(loop=loop, shape=SHAPE, text_length=61, init_from=str(tmp_path / "run")), tmp_path / "longer"
        )


def test_a_text_encoder_learns_more_words_and_its_query_tokens_stay(tmp_path: Path) -> None:
    loop = LoopConfig(steps=2, batch_size=2, lr=0.01, warmup=0, ema=0.0)
    run = CaptionsRun(loop=loop, shape=SHAPE, text_length=60)
    first = train_captions(run, tmp_path / "first")
    more = train_captions(run.replace(init_from=str(tmp_path / "first")), tmp_path / "more")
    heads = [load_file(tmp_path / name / HEADS) for name in ("first", "more")]
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[0])
    weights = [encoder.transformer.token_embedding.weight for encoder in (first, more)]
    assert not torch.equal(*weights) and torch.allclose(*weights, atol=0.05)
    (tmp_path / "first" / HEADS).unlink()
    with pytest.raises(ValueError, match=r"has no heads\.safetensors"):
        train_captions(run.replace(init_from=str(tmp_path / "first")), tmp_path / "other")


def test_a_text_encoder_of_more_words_reads_known_ones_as_before(tmp_path: Path) -> None:
    few = TextConditioner.from_captions(["a man with red hair and glasses", "a blue hat"], 60)
    reader = CaptionReader(TextEncoder(text_config(SHAPE, few)))
    ImageBART(conditioner=few, text_encoder=reader.encoder).save_pretrained(tmp_path / "few")
    save_heads(reader, tmp_path / "few")
    loop = LoopConfig(steps=1, batch_size=2, lr=0.0, warmup=0, ema=0.0)
    trained = train_captions(
        CaptionsRun(loop=loop, shape=SHAPE, text_length=60, init_from=str(tmp_path / "few")), tmp_path / "many"
    )
    many = avatar_conditioner(60)
    prompts = ["red hat", "a man with glasses", ""]
    before = reader.encoder(few.encode(prompts).tokens)
    assert torch.allclose(trained(many.encode(prompts).tokens), before, atol=1e-5)


SMALL = (4, 3)  # two attributes of three and of two values
SMALL_SHAPE = StageShape(width=32, heads=2, head_size=16, encoder_depth=1, query_tokens=3)


def test_the_loss_has_claimed_values_as_equally_likely_targets() -> None:
    """By hand: two of three values are claimed of the first attribute, the second is not mentioned."""
    readings = torch.tensor([[1.0, 2.0, 3.0, 0.0, 1.0, 2.0, 3.0]])
    claims = torch.tensor([[True, True, False, False, False, False, True]])
    first = math.log(1 + math.e + math.exp(2) + math.exp(3)) - 0.5 * (1 + 2)
    second = math.log(math.exp(1) + math.exp(2) + math.exp(3)) - 3
    assert reading_loss(readings, claims, SMALL).item() == pytest.approx((first + second) / 2, abs=1e-6)


def test_accuracy_counts_mentioned_attributes_only() -> None:
    readings = torch.tensor([[1.0, 3.0, 2.0, 0.0, 1.0, 2.0, 3.0]])
    assert reading_accuracy(readings, torch.tensor([[False, True, True, False, False, False, True]]), SMALL) == 1
    assert reading_accuracy(readings, torch.tensor([[True, False, True, False, False, False, True]]), SMALL) == 0
    assert reading_accuracy(readings, torch.tensor([[True, True, False, False, True, False, False]]), SMALL) == 0.5
    assert reading_accuracy(readings, torch.tensor([[False, False, False, True, False, False, True]]), SMALL) == 0


def test_claims_are_those_of_the_caption() -> None:
    claims = caption(7).claims
    flags = dict(zip(VALUES, claims_vector(claims).split(GROUPS), strict=True))
    for name, values in VALUES.items():
        *allowed, silent = flags[name].tolist()
        assert {value for value, flag in zip(values, allowed, strict=True) if flag} == claims.get(name, frozenset())
        assert silent == (name not in claims)


def test_a_text_encoder_learns_to_read() -> None:
    torch.manual_seed(0)
    conditioner = tiny_conditioner("text")
    model = CaptionReader(TextEncoder(text_config(SMALL_SHAPE, conditioner)), SMALL)
    words = conditioner.encode(["round glasses", "red hair"]).tokens
    claims = torch.tensor([[True, False, False, False, False, False, True], [0, 0, 1, 0, 0, 1, 0]]).bool()
    assert reading_loss(model(words)[0], claims, SMALL) > 0.5
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(30):
        optimizer.zero_grad()
        reading_loss(model(words)[0], claims, SMALL).backward()
        optimizer.step()
    assert reading_loss(model(words)[0], claims, SMALL) < 0.1
    assert reading_accuracy(model(words)[0], claims, SMALL) == 1.0


def test_too_few_query_tokens_are_refused() -> None:
    encoder = TextEncoder(text_config(SMALL_SHAPE, tiny_conditioner("text")))
    with pytest.raises(ValueError, match="query_tokens is 3, expected 4, one an attribute"):
        CaptionReader(encoder, (2, 2, 2, 2))


CLAIMS = torch.tensor([[True, False, False, False, False, True, False]])  # the first value, and the second


@pytest.fixture
def before() -> CaptionReader:
    """A reader that is sure of the first value of the first attribute, whatever it reads, and of nothing else."""
    torch.manual_seed(0)
    reader = CaptionReader(TextEncoder(text_config(SMALL_SHAPE, tiny_conditioner("text"))), SMALL)
    with torch.no_grad():
        for head in reader.heads:
            head.weight.zero_()  # type: ignore[operator]
            head.bias.zero_()  # type: ignore[operator]
        reader.heads[0].bias[0] = 9  # type: ignore[index]
    return reader


def words(*texts: str) -> Tensor:
    return tiny_conditioner("text").encode(texts).tokens


def test_query_tokens_that_were_read_rightly_stay(before: CaptionReader) -> None:
    distillation = QueryTokenDistillation(before, [], SMALL)
    read = words("round glasses")
    query_tokens = before(read)[1]
    assert distillation.loss(query_tokens, read, CLAIMS) == 0
    wrong, right = query_tokens.clone(), query_tokens.clone()
    wrong[:, 1] += 1
    right[:, 0] += 1
    assert distillation.loss(wrong, read, CLAIMS) == 0  # of this attribute there is nothing to stay like
    assert distillation.loss(right, read, CLAIMS).item() == pytest.approx(0.5)


def test_other_query_tokens_become_the_mean_for_their_claims(before: CaptionReader) -> None:
    """The reader is sure of the first value, and wrong: where the third is claimed, only the mean helps."""
    captions = words("round glasses", "red hair", "red glasses", "hair")
    claims = CLAIMS.repeat(len(captions), 1)
    assert len(captions) >= OFTEN
    batches = [(captions[:2], claims[:2]), (captions[2:], claims[2:])]
    distillation = QueryTokenDistillation(before, batches, SMALL)
    usual = before(captions)[1][:, 0].mean(0)
    with torch.no_grad():
        before.heads[0].bias[0] = 0  # type: ignore[index] # no longer sure
    targets, known = distillation.targets(words("red", "round"), torch.cat([CLAIMS, ~CLAIMS]))
    assert known.tolist() == [[True, False], [False, False]]
    assert torch.allclose(targets[0, 0], usual, atol=1e-6)


def test_a_query_token_that_was_read_rightly_stays_though_the_mean_is_another(before: CaptionReader) -> None:
    captions = words("round glasses", "red hair", "red glasses", "hair")
    distillation = QueryTokenDistillation(before, [(captions, CLAIMS.repeat(4, 1))], SMALL)
    read = words("red")
    targets, known = distillation.targets(read, CLAIMS)
    assert known.tolist() == [[True, False]]
    assert torch.equal(targets[0, 0], before(read)[1][0, 0].float())
    assert not torch.allclose(targets[0, 0], distillation.usual[0][0], atol=1e-4)


def test_what_is_seldom_claimed_has_no_mean(before: CaptionReader) -> None:
    captions = words("round glasses", "red hair")
    assert len(captions) < OFTEN
    distillation = QueryTokenDistillation(before, [(captions, CLAIMS.repeat(2, 1))], SMALL)
    with torch.no_grad():
        before.heads[0].bias[0] = 0  # type: ignore[index]
    assert not distillation.targets(words("red"), CLAIMS)[1].any()


def test_what_is_claimed_just_often_enough_has_a_mean(before: CaptionReader) -> None:
    captions = words("round glasses", "red hair", "hair")
    assert len(captions) == OFTEN
    distillation = QueryTokenDistillation(before, [(captions, CLAIMS.repeat(OFTEN, 1))], SMALL)
    assert [len(part) for part in distillation.usual] == [1, 0]
