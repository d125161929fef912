"""What a training begins with where a model is gone on from: all that the model knows, and nothing forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import CAPTIONS, tiny_model, tiny_staged_model

from imagebart.conditioning import ClassConditioner, Conditioner, NoConditioner, TextConditioner
from imagebart.errors import InputError
from imagebart.models.denoiser import DenoiserInput
from imagebart.training.config import ModelRun, StageShape
from imagebart.training.train_model import load_denoiser_to_finetune
from imagebart.training.vqgan import load_first_stage


def test_a_model_gone_on_from_says_the_same_of_the_words_it_knew(tmp_path: Path) -> None:
    model = tiny_model("text")
    model.save_pretrained(tmp_path, "float32")
    more = TextConditioner.from_captions([CAPTIONS[0], "an aardvark"], length=3)
    network, told = load_denoiser_to_finetune(str(tmp_path), more)
    assert told.length == model.conditioner.length and isinstance(told, TextConditioner)
    assert told.known_words() == more.known_words() and all(p.requires_grad for p in network.parameters())
    x = torch.arange(64)[None] % 24
    rates, none = torch.ones(1, 64), torch.zeros(1, 64)
    before = model.conditioner.encode([CAPTIONS[0]]).tokens
    after = told.encode([CAPTIONS[0]]).tokens
    assert not torch.equal(before, after), "the words have other numbers now"
    assert model.denoiser is not None
    expected = model.denoiser.logits(x, DenoiserInput(x, rates, none, before))
    assert torch.equal(network.eval().logits(x, DenoiserInput(x, rates, none, after)), expected)
    other = told.encode(["an aardvark"]).tokens
    assert not torch.equal(network.logits(x, DenoiserInput(x, rates, none, other)), expected), "what is said is heard"


def test_its_first_stage_and_its_sizes_are_taken_over(tmp_path: Path) -> None:
    model = tiny_model("none")
    model.save_pretrained(tmp_path, "float32")
    ours, theirs = load_first_stage(tmp_path).state_dict(), model.first_stage.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    network, _ = load_denoiser_to_finetune(str(tmp_path), NoConditioner())
    assert StageShape.of(network.config) == StageShape(width=32, depth=1, heads=2, head_size=16, encoder_depth=1)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (NoConditioner(), "trained with captions, the pictures have neither captions nor classes"),
        (TextConditioner.from_captions(CAPTIONS, length=17), "up to 17 tokens, and the model in .* reads 16"),
    ],
)
def test_other_conditioning_is_said(tmp_path: Path, wanted: Conditioner, said: str) -> None:
    tiny_model("text").save_pretrained(tmp_path)
    with pytest.raises(InputError, match=f"{said}; .*--first-stage"):
        load_denoiser_to_finetune(str(tmp_path), wanted)


def test_other_classes_and_models_without_a_denoiser_are_said(tmp_path: Path) -> None:
    tiny_model("class").save_pretrained(tmp_path / "classes")
    with pytest.raises(InputError, match="told of other classes than the pictures have"):
        load_denoiser_to_finetune(str(tmp_path / "classes"), ClassConditioner(("cat", "cow")))
    tiny_staged_model().save_pretrained(tmp_path / "stages")
    with pytest.raises(InputError, match="has stages, and one with a denoiser is expected"):
        load_denoiser_to_finetune(str(tmp_path / "stages"), NoConditioner())
    with pytest.raises(InputError, match="No model can be gone on from in .*nowhere"):
        load_denoiser_to_finetune(str(tmp_path / "nowhere"), NoConditioner())


@pytest.mark.parametrize("other", [{"first_stage": "a model"}, {"shape": StageShape()}])
def test_what_it_has_of_its_own_cannot_be_given(other: dict[str, object]) -> None:
    with pytest.raises(InputError, match="has its own (first stage|shape); leave out one of the two"):
        ModelRun(data="", hours=1.0, init_from="another", **other)  # type: ignore[arg-type]
