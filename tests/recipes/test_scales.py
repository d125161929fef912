"""One model with several numbers of scales, beside one that draws left to right."""

import numpy as np
import pytest
from tiny_models import tiny_model, tiny_staged_model

from imagebart.avatars.reader import load_reader
from imagebart.evaluation.image_sampler import ImageSampler
from imagebart.evaluation.metrics import Measure, side_by_side
from imagebart.models.imagebart import ImageBART
from imagebart.settings import SamplingSettings
from recipes.avatars import READER
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
