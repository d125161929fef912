"""Halves that have to agree, and completions that keep the lower one."""

from dataclasses import replace

import numpy as np
import torch

from imagebart.avatars.sheet import PLAIN
from imagebart.evaluation.avatars import Study
from imagebart.evaluation.drawing import Artist, rendered
from imagebart.evaluation.grids import PROMPTS
from imagebart.evaluation.reader import load_reader
from imagebart.evaluation.report import Measure, side_by_side
from imagebart.evaluation.scales import compare, complete, must_agree, sheet, upper_half
from imagebart.settings import SamplingSettings
from imagebart.testing import tiny_model


def study() -> Study:
    return Study(Artist(tiny_model(), SamplingSettings()), load_reader(), 20)


def test_what_both_halves_show_has_to_agree() -> None:
    assert set(must_agree(PLAIN)) >= {"skin", "background"}
    assert not {"clothing", "clothing_colour", "eyebrows", "hat_colour"} & set(must_agree(PLAIN))
    assert "hair_colour" not in must_agree(PLAIN), "short hair ends above the middle"
    assert {"hair_colour", "top"} <= set(must_agree(replace(PLAIN, top="wavy")))


def test_completions_keep_the_lower_half() -> None:
    avatars = [PLAIN, replace(PLAIN, skin="dark")]
    done = complete(study(), avatars)
    given = rendered(avatars, 32)
    lower = torch.from_numpy(~upper_half(32))
    assert torch.equal(done[..., lower], given[..., lower])
    assert not torch.equal(done[..., ~lower], given[..., ~lower])


def test_a_comparison_measures_every_model() -> None:
    measures = list(compare(study()))
    names = [m.name for m in measures]
    assert names[0] == "stages"
    assert measures[0].value == 2
    assert "completion: attributes that agree with the lower half" in names
    assert "completion: distance to renders over the floor" in names
    text = side_by_side({"one": measures, "two": [Measure("stages", 3, 3, 3, 0)]})
    assert "| stages | 2 ± 0 | 3 ± 0 |" in text


def test_the_sheet_has_a_row_for_each_model_and_kind() -> None:
    page = np.asarray(sheet({"a": study(), "b": study()}, PROMPTS))
    assert page.shape[0] == 5 * 132
    assert (page[132:264] != page[264:396]).any()
    assert (page[132:264, 160:] == page[3 * 132 : 4 * 132, 160:]).all(), "the same model, the same pictures"
