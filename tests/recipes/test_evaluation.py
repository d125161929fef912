"""What known samplers score: one who draws what is asked, one who mixes prompts up, and a random model."""

import numpy as np
import pytest
from oracle_sampler import oracle
from tiny_models import tiny_model

from imagebart.avatars.attributes import VALUES
from imagebart.avatars.reader import load_reader
from imagebart.evaluation.image_sampler import ImageSampler
from imagebart.evaluation.metrics import wilson
from imagebart.settings import SamplingSettings
from recipes.avatars import READER
from recipes.avatars.cases import edit_case, found, plain_prompts, seen_prompt
from recipes.avatars.evaluation import (
    OPEN,
    Renders,
    Study,
    distance,
    diversity,
    edits,
    evaluate,
    plain_prompt_accuracy,
    prompt_accuracy,
    reader_accuracy,
    reconstruction,
)

SAMPLES = 60


@pytest.fixture(scope="module")
def asked() -> list:
    return [seen_prompt(i, 900_000) for i in range(SAMPLES)]


def test_an_artist_who_draws_what_is_asked_scores_full_marks(asked: list) -> None:
    study = Study(oracle([*asked, *plain_prompts(), *OPEN]), load_reader(READER), SAMPLES)
    accuracy, reading = prompt_accuracy(study)
    assert accuracy.value > 0.99
    understood = next(plain_prompt_accuracy(study))
    assert understood.value > 0.98
    assert understood.pictures == 60
    assert 0.9 < diversity(study).value < 1.1
    measures = {m.name: m for m in reconstruction(study)}
    assert measures["reconstruction: attributes kept"].value > 0.995
    assert measures["reconstruction: PSNR"].value == 100
    assert measures["reconstruction: SSIM"].value == pytest.approx(1)
    assert measures["reconstruction: crispness"].value == 1
    assert measures["reconstruction: cleanness"].value == 0
    _, over = distance(Renders.of(study), reading.features)
    assert 0.8 < over.value < 1.6


def test_one_who_mixes_prompts_up_scores_what_chance_gives(asked: list) -> None:
    sampler = oracle(asked, late=1)
    accuracy, _ = prompt_accuracy(Study(sampler, load_reader(READER), SAMPLES))
    avatars = sampler.avatars([case.text for case in asked], 0)
    answers = [list(found(a, case.claims).values()) for a, case in zip(avatars, asked, strict=True)]
    chance = sum(map(sum, answers)) / sum(map(len, answers))
    assert accuracy.value == pytest.approx(chance, abs=0.02)
    assert accuracy.value < 0.5
    assert accuracy.low < chance < accuracy.high


def test_edits_that_change_what_is_asked_and_nothing_else_score_full_marks() -> None:
    cases = [edit_case(i, 900_000, 128) for i in range(26)]
    measures = {m.name: m for m in edits(Study(oracle(edits=cases), load_reader(READER), 26)) if not m.group}
    assert measures["edits: changed as asked"].value == 1
    assert measures["edits: others stayed"].value > 0.99
    fit = measures["edits: inside = outside where the prompt is silent"]
    assert fit.value == 1
    assert fit.pictures > 20


def test_edits_that_change_nothing_are_not_taken_for_changes() -> None:
    class Idle(ImageSampler):
        def edit(self, images: object, masks: object, prompts: object, seed: int) -> object:  # type: ignore[override]
            return images

        size = 128  # type: ignore[assignment]

    study = Study(Idle(tiny_model(), SamplingSettings()), load_reader(READER), 20)
    measures = {m.name: m.value for m in edits(study) if not m.group}
    assert measures["edits: changed as asked"] == 0
    assert measures["edits: others stayed"] > 0.99


def test_everything_is_measured_of_any_model_and_the_pictures_are_counted() -> None:
    drawn: list[int] = []
    study = Study(ImageSampler(tiny_model(), SamplingSettings(), progress=drawn.append), load_reader(READER), 20)
    measures = list(evaluate(study))
    assert sum(drawn) == study.pictures
    assert all(np.isfinite([m.value, m.low, m.high]).all() and m.low <= m.value <= m.high for m in measures)
    sums = [m.name for m in measures if not m.group]
    assert len(sums) == len(set(sums)) == 18
    assert next(m for m in measures if m.name.startswith("prompts:")).value < 0.5


def test_the_reader_is_measured_by_attribute() -> None:
    measures = list(reader_accuracy(Study(oracle(), load_reader(READER), 20)))
    assert [m.name for m in measures[1:]] == [name.replace("_", " ") for name in VALUES]
    assert all(m.value > 0.97 for m in measures)


def test_a_study_needs_samples_and_a_model_that_reads() -> None:
    with pytest.raises(ValueError, match="20 or more"):
        Study(oracle(), load_reader(READER), 19)
    with pytest.raises(ValueError, match="'class'"):
        Study(ImageSampler(tiny_model("class"), SamplingSettings()), load_reader(READER))


def test_drawings_of_one_prompt_are_independent_trials() -> None:
    """Two of two right are two trials, not one: Wilson's interval reaches down to 34 %, not to 21 %."""
    study = Study(oracle(plain_prompts()), load_reader(READER), 120)
    of_prompts = [m for m in plain_prompt_accuracy(study) if m.group and m.value == 1]
    assert len(of_prompts) > 50
    assert {(m.low, m.high, m.pictures) for m in of_prompts} == {(wilson(1, 2).low, 1.0, 2)}
