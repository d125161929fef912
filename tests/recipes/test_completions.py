"""Completions of upper halves: what known samplers score, and what both halves show."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from tiny_models import tiny_model
from torch import Tensor

from imagebart.avatars.attributes import PLAIN
from imagebart.avatars.reader import load_reader
from imagebart.evaluation.image_sampler import ImageSampler
from imagebart.imaging.masks import preset_array
from imagebart.settings import SamplingSettings
from recipes.avatars import READER
from recipes.avatars.artwork import rendered
from recipes.avatars.evaluation import COMPLETED, Study, complete, completions, must_agree

SAMPLES = 20


@dataclass(frozen=True)
class Completer(ImageSampler):
    """Draws the upper half of the avatar that was there; the first `wrong` of them with another background."""

    wrong: int = 0

    @property
    def size(self) -> int:
        return 128

    def edit(self, images: Tensor, masks: np.ndarray, prompts: Sequence[str | None], seed: int) -> Tensor:
        assert set(prompts) == {None}
        study = Study(self, load_reader(READER), SAMPLES)
        wrong = {"white": "red"}
        avatars = [
            replace(avatar, background=wrong.get(avatar.background, "white")) if i < self.wrong else avatar
            for i, avatar in enumerate(study.avatars(COMPLETED))
        ]
        return torch.where(torch.from_numpy(masks)[:, None], rendered(avatars, self.size), images)


@pytest.mark.parametrize("wrong", [0, 8])
def test_halves_that_do_not_go_on_are_counted(wrong: int) -> None:
    study = Study(Completer(tiny_model(), SamplingSettings(), wrong=wrong), load_reader(READER), SAMPLES)
    measures = {m.name: m for m in completions(study)}
    fit = measures["completions: inside = outside"]
    assert fit.value == pytest.approx(1 - wrong / (2 * SAMPLES))
    assert fit.low <= fit.value <= fit.high
    assert fit.pictures == SAMPLES
    assert measures["skin"].value == 1
    assert measures["background"].value == pytest.approx(1 - wrong / SAMPLES)
    assert (measures["completions: reader agrees with the given half"].value > 0.99) == (wrong == 0)


def test_what_both_halves_show_has_to_agree() -> None:
    assert set(must_agree(PLAIN)) >= {"skin", "background"}
    assert not {"clothing", "clothing_colour", "eyebrows", "hat_colour"} & set(must_agree(PLAIN))
    assert "hair_colour" not in must_agree(PLAIN), "short hair ends above the middle"
    assert {"hair_colour", "top"} <= set(must_agree(replace(PLAIN, top="wavy")))


def test_completions_keep_the_lower_half() -> None:
    avatars = [PLAIN, replace(PLAIN, skin="dark")]
    done = complete(Study(ImageSampler(tiny_model(), SamplingSettings()), load_reader(READER), 20), avatars)
    given = rendered(avatars, 32)
    lower = torch.from_numpy(~preset_array("upper half", 32))
    assert torch.equal(done[..., lower], given[..., lower])
    assert not torch.equal(done[..., ~lower], given[..., ~lower])
