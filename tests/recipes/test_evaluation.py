"""What known samplers score: one that draws what is asked, one that mixes prompts up, and a random model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from oracle_sampler import oracle
from tiny_models import tiny_model
from torch import Tensor

from imagebart.avatars.attributes import PLAIN, VALUES
from imagebart.avatars.reader import load_reader
from imagebart.evaluation.image_sampler import ImageSampler
from imagebart.evaluation.metrics import wilson
from imagebart.imaging.masks import preset_array
from imagebart.settings import SamplingSettings
from recipes.avatars import READER
from recipes.avatars.artwork import rendered
from recipes.avatars.cases import edit_case, found, plain_prompts, seen_prompt
from recipes.avatars.evaluation import (
    COMPLETED,
    OPEN,
    Renders,
    Sharpness,
    Study,
    complete,
    completions,
    distance,
    diversity,
    draw_claimed,
    edits,
    entropy,
    evaluate,
    free_entropy,
    gradient,
    must_agree,
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


FEW = 20


@dataclass(frozen=True)
class Completer(ImageSampler):
    """Draws the upper half of the avatar that was there; the first `wrong` of them with another background."""

    wrong: int = 0

    @property
    def size(self) -> int:
        return 128

    def edit(self, images: Tensor, masks: np.ndarray, prompts: Sequence[str | None], seed: int) -> Tensor:
        assert set(prompts) == {None}
        study = Study(self, load_reader(READER), FEW)
        wrong = {"white": "red"}
        avatars = [
            replace(avatar, background=wrong.get(avatar.background, "white")) if i < self.wrong else avatar
            for i, avatar in enumerate(study.avatars(COMPLETED))
        ]
        return torch.where(torch.from_numpy(masks)[:, None], rendered(avatars, self.size), images)


@pytest.mark.parametrize("wrong", [0, 8])
def test_halves_that_do_not_go_on_are_counted(wrong: int) -> None:
    study = Study(Completer(tiny_model(), SamplingSettings(), wrong=wrong), load_reader(READER), FEW)
    measures = {m.name: m for m in completions(study)}
    fit = measures["completions: inside = outside"]
    assert fit.value == pytest.approx(1 - wrong / (2 * FEW))
    assert fit.low <= fit.value <= fit.high
    assert fit.pictures == FEW
    assert measures["skin"].value == 1
    assert measures["background"].value == pytest.approx(1 - wrong / FEW)
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


def test_entropy_of_known_frequencies() -> None:
    assert entropy(["a"] * 5) == 0
    assert entropy(list("aabbccdd")) == pytest.approx(2)
    assert entropy(["a", "a", "a", None]) == pytest.approx(0.811278, abs=1e-6)


def test_only_what_is_open_counts_and_hidden_is_a_value() -> None:
    two = [PLAIN, replace(PLAIN, mouth="sad", hat_colour="red")]
    assert free_entropy(two, {}) == pytest.approx(1 / len(VALUES)), "the hat's colour does not show"
    assert free_entropy(two, {"mouth": frozenset({"smile", "sad"})}) == 0
    hidden = [PLAIN, replace(PLAIN, top="bald")]
    assert free_entropy(hidden, {}) == pytest.approx(2 / len(VALUES)), "top, and the colour that does not show"


def test_avatars_are_drawn_true_to_claims_and_as_often_as_among_all() -> None:
    random = np.random.default_rng(0)
    claims = {"facial_hair": frozenset({"none", "goatee"}), "skin": frozenset({"dark"})}
    avatars = [draw_claimed(claims, random) for _ in range(2000)]
    assert {a.skin for a in avatars} == {"dark"}
    # "none" weighs 10/3, a goatee 1; every other attribute keeps all its values.
    assert np.mean([a.facial_hair == "none" for a in avatars]) == pytest.approx(10 / 13, abs=0.04)
    assert {a.mouth for a in avatars} == set(VALUES["mouth"])
    for case in OPEN:
        assert all(getattr(draw_claimed(case.claims, random), n) in v for n, v in case.claims.items())


def picture(levels: Tensor) -> Tensor:
    """Grey levels [H, W] -> [1, 3, H, W] in [-1, 1]."""
    return (levels / 127.5 - 1).expand(1, 3, *levels.shape)


def test_a_gradient_is_that_of_the_slope_in_three_colours() -> None:
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")
    slope = gradient(picture(3 * x + 4 * y))
    assert slope.shape == (1, 4, 6)
    torch.testing.assert_close(slope, torch.full((1, 4, 6), 5 * math.sqrt(3)), rtol=0, atol=1e-3)
    red = torch.zeros(1, 3, 4, 4)
    red[:, 0, :, 2:] = 100 / 127.5  # a step between the second and the third column
    expected = torch.tensor([0.0, 100.0, 0.0]).expand(1, 3, 3)
    torch.testing.assert_close(gradient(red), expected, rtol=0, atol=1e-3)


def test_a_picture_is_as_crisp_and_clean_as_itself() -> None:
    step = torch.zeros(20, 20)
    step[:, 10:] = 200
    same = Sharpness.of(picture(step), picture(step))
    assert same.crispness() == 1 and same.cleanness() == 0


def test_an_edge_spread_over_four_pixels_has_a_quarter_of_the_gradient() -> None:
    step, ramp = torch.zeros(20, 20), torch.zeros(20, 20)
    step[:, 10:] = 200
    ramp[:, 8:] = torch.tensor([50.0, 100, 150, *[200] * 9])
    assert Sharpness.of(picture(step), picture(ramp)).crispness() == pytest.approx(0.25)
    moved = step.roll(1, 1)  # as crisp, but elsewhere
    moved[:, 0] = 0
    assert Sharpness.of(picture(step), picture(moved)).crispness() == 0


def test_only_what_is_flat_all_around_counts_as_flat() -> None:
    step = torch.zeros(20, 20)
    step[:, 10:] = 200
    stripes = step.clone()
    stripes[:, 1::2] += 2.0  # every pixel differs by two levels from the next
    rough = Sharpness.of(picture(step), picture(stripes))
    assert rough.cleanness() == pytest.approx(2 * math.sqrt(3), abs=1e-3)
    # The gradient at the step stands in column 9 of 19; three on either side are not flat.
    assert rough.flat_pixels.tolist() == [19 * (19 - 7)]


def test_pictures_are_weighed_by_their_edges() -> None:
    step, blurred = torch.zeros(20, 20), torch.zeros(20, 20)
    step[:, 10:] = 200
    blurred[:, 10:] = 100
    plain = torch.zeros(20, 20)
    originals = torch.cat([picture(step), picture(step), picture(plain)])
    both = Sharpness.of(originals, torch.cat([picture(step), picture(blurred), picture(plain)]))
    assert both.crispness() == pytest.approx(0.75)
    assert both.crispness(torch.tensor([1, 2])) == pytest.approx(0.5)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected"):
        Sharpness.of(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 9))
    with pytest.raises(ValueError, match="2 pixels a side"):
        gradient(torch.zeros(1, 3, 1, 8))
