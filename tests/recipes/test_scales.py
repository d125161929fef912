"""Numbers of scales side by side, and what captions are worth to a network."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_models import tiny_model, tiny_staged_model

from imagebart.avatars.reader import load_reader
from imagebart.evaluation.image_sampler import ImageSampler
from imagebart.evaluation.metrics import Measure, side_by_side
from imagebart.model import ImageBART
from imagebart.settings import SamplingSettings
from recipes.avatars import READER
from recipes.avatars.caption_likelihood import caption_likelihood
from recipes.avatars.dataset import AvatarDataset
from recipes.avatars.evaluation import Renders, Study
from recipes.avatars.grids import PROMPTS
from recipes.avatars.scales import compare, sheet, studies


def study(model: ImageBART | None = None) -> Study:
    return Study(ImageSampler(model or tiny_model(), SamplingSettings(guidance=2.0)), load_reader(READER), 20)


def test_each_number_of_scales_is_a_study_and_the_baseline_stands_first() -> None:
    columns = studies(study(), (1, 3), study(tiny_staged_model("text", 1)))
    assert list(columns) == ["left to right", "T = 1", "T = 3"]
    assert [c.sampler.settings.scales for c in columns.values()] == [None, 1, 3]
    assert {c.sampler.settings.guidance for c in columns.values()} == {2.0}


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="trained for 2 scales"):
        studies(study(tiny_staged_model("text", 2)))
    with pytest.raises(ValueError, match=r"\['encoder_decoder', 'decoder_only'\], expected one decoder_only"):
        studies(study(), (1,), study(tiny_staged_model("text", 2)))
    with pytest.raises(ValueError, match="expected one decoder_only"):
        studies(study(), (1,), study())


def test_a_comparison_measures_prompts_completions_and_edits() -> None:
    drawn: list[int] = []
    model = tiny_model()
    watched = Study(ImageSampler(model, SamplingSettings(), progress=drawn.append), load_reader(READER), 20)
    measures = list(compare(watched, Renders.of(watched)))
    assert sum(drawn) == 3 * 20
    names = [m.name for m in measures]
    denoiser = sum(w.numel() for n, w in model.denoiser.named_parameters() if not n.startswith("text."))
    assert measures[0].name == "weights that draw, millions" and measures[0].value == pytest.approx(denoiser / 1e6)
    for name in ("prompts: named attributes found", "completions: inside = outside", "edits: changed as asked"):
        assert name in names
    text = side_by_side({"one": measures[:1], "two": [Measure("edits: changed as asked", 1, 0.5, 1, 20, "%")]})
    assert "| edits: changed as asked |  | 100.0 % ± 25.0 |" in text


def test_the_sheet_has_a_row_for_each_model_and_kind() -> None:
    page = np.asarray(sheet({"a": study(), "b": study()}, PROMPTS))
    assert page.shape[0] == 5 * 132
    assert (page[132:264] != page[264:396]).any()
    assert (page[132:264, 160:] == page[3 * 132 : 4 * 132, 160:]).all(), "the same model, the same pictures"


def test_the_likelihood_is_that_of_the_stage_alone() -> None:
    model = tiny_staged_model("text")
    stage = model.stages[1]  # t = T: x_1 from pure noise
    _, gap = caption_likelihood(model, count=6, seed=77, batch=4)
    data = AvatarDataset(32, length=6, seed=77)
    x0 = model.first_stage.encode(torch.stack([data[i]["image"] for i in range(6)]) / 127.5 - 1)
    cond = model.conditioner.encode([data[i]["text"] for i in range(6)]).tokens
    # The decoder-only stage does not look at x_t; draw x_1 as often as it takes for the mean to settle.
    torch.manual_seed(0)
    losses = []
    for _ in range(60):
        noise = torch.randint(model.vocab_size, x0.shape)
        x = torch.where(torch.rand(x0.shape) < model.schedule.alphacum(1), x0, noise)
        losses.append(float(F.cross_entropy(stage.logits(x, x, cond).flatten(0, 1), x.flatten())))
    mean, spread = torch.tensor(losses).mean(), torch.tensor(losses).std()
    assert abs(gap.right - mean) < 4 * spread


def test_a_denoiser_that_does_not_look_at_words_has_no_gap() -> None:
    model = tiny_model()
    blind, _ = caption_likelihood(model, count=4)
    assert blind.right != pytest.approx(blind.without, abs=1e-4), "a denoiser that reads differs"
    assert "from nothing:" in str(blind)
    with torch.no_grad():
        model.denoiser.text_map.weight.zero_()  # whatever is read, the decoder is told the same
    for gap in caption_likelihood(model, count=4):
        assert gap.right == pytest.approx(gap.without, abs=1e-5)
        assert gap.right == pytest.approx(gap.shuffled, abs=1e-5)


def test_models_without_words_are_refused() -> None:
    with pytest.raises(ValueError, match="'none'"):
        list(caption_likelihood(tiny_model("none")))
