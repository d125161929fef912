"""What known samplers score: one that does what is asked, one that mixes prompts up, and a random model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from oracle_sampler import oracle
from tiny_models import tiny_model, tiny_staged_model
from torch import Tensor

from imagebart.evaluation.image_sampler import ImageSampler
from imagebart.evaluation.metrics import Measure, side_by_side, wilson
from imagebart.imaging.masks import preset_array
from imagebart.settings import SamplingSettings
from imagebart.worlds.attribute_classifier import load_classifier
from imagebart.worlds.avatars import PLAIN, VALUES, Attributes
from recipes.avatars import READER
from recipes.avatars.artwork import rendered
from recipes.avatars.cases import edit_case, found, plain_prompts, seen_prompt
from recipes.avatars.evaluation import (
    COMPLETED,
    OPEN,
    Renders,
    Sharpness,
    Study,
    comparison,
    complete,
    completions,
    distance,
    diversity,
    edits,
    entropy,
    free_entropy,
    gradient,
    must_agree,
    plain_prompt_accuracy,
    prompt_accuracy,
    reader_accuracy,
    reconstruction,
    sample_claimed,
)
from recipes.avatars.grids import comparison_sheet

SAMPLES = 60
FEW = 20


def study(sampler: ImageSampler | None = None, samples: int = FEW) -> Study:
    """Of a tiny random model, unless another sampler is given."""
    sampler = sampler or ImageSampler(tiny_model(), SamplingSettings(guidance=2.0))
    return Study(sampler, load_classifier(READER), samples)


@pytest.fixture(scope="module")
def asked() -> list:
    return [seen_prompt(i, 900_000) for i in range(SAMPLES)]


def test_a_sampler_that_does_what_is_asked_scores_full_marks(asked: list) -> None:
    perfect = study(oracle([*asked, *plain_prompts(), *OPEN]), SAMPLES)
    _, reading, accuracy = prompt_accuracy(perfect)
    assert accuracy.value > 0.99
    understood = next(plain_prompt_accuracy(perfect))
    assert understood.value > 0.98 and understood.images == 60
    assert 0.9 < diversity(perfect).value < 1.1
    measures = {m.name: m for m in reconstruction(replace(perfect, samples=FEW))}
    assert measures["reconstruction: attributes kept"].value > 0.995
    assert measures["reconstruction: PSNR"].value == 100
    assert measures["reconstruction: SSIM"].value == pytest.approx(1)
    assert measures["reconstruction: crispness"].value == 1
    assert measures["reconstruction: cleanness"].value == 0
    _, over = distance(Renders.of(perfect), reading.features)
    assert 0.8 < over.value < 1.6


def test_one_that_mixes_prompts_up_scores_what_chance_gives(asked: list) -> None:
    sampler = oracle(asked, late=1)
    accuracy = prompt_accuracy(study(sampler, SAMPLES))[2]
    avatars = sampler.avatars([case.text for case in asked], 0)
    answers = [list(found(a, case.claims).values()) for a, case in zip(avatars, asked, strict=True)]
    chance = sum(map(sum, answers)) / sum(map(len, answers))
    assert accuracy.value == pytest.approx(chance, abs=0.02)
    assert accuracy.value < 0.5
    assert accuracy.low < chance < accuracy.high


def test_edits_that_change_what_is_asked_and_nothing_else_score_full_marks() -> None:
    cases = [edit_case(i, 900_000, 128) for i in range(26)]
    measures = {m.name: m for m in edits(study(oracle(edits=cases), 26)) if not m.group}
    assert measures["edits: changed as asked"].value == 1
    assert measures["edits: others stayed"].value > 0.99
    consistent = measures["edits: inside = outside where the prompt is silent"]
    assert consistent.value == 1 and consistent.images > 20


def test_edits_that_change_nothing_do_not_count_as_changes() -> None:
    class Idle(ImageSampler):
        def edit(self, images: object, masks: object, prompts: object, seed: int) -> object:  # type: ignore[override]
            return images

        size = 128  # type: ignore[assignment]

    measures = {m.name: m.value for m in edits(study(Idle(tiny_model(), SamplingSettings()))) if not m.group}
    assert measures["edits: changed as asked"] == 0
    assert measures["edits: others stayed"] > 0.99


def test_the_reader_is_measured_by_attribute() -> None:
    measures = list(reader_accuracy(study(oracle())))
    assert [m.name for m in measures[1:]] == [name.replace("_", " ") for name in VALUES]
    assert all(m.value > 0.97 for m in measures)


def test_a_study_needs_samples_and_a_model_that_reads() -> None:
    with pytest.raises(ValueError, match="20 or more"):
        study(oracle(), 19)
    with pytest.raises(ValueError, match="'class'"):
        study(ImageSampler(tiny_model("class"), SamplingSettings()))


def test_images_of_one_prompt_are_independent_trials() -> None:
    """Two of two right are two trials, not one: Wilson's interval begins at 34 %, not at 21 %."""
    of_prompts = [m for m in plain_prompt_accuracy(study(oracle(plain_prompts()), 120)) if m.group and m.value == 1]
    assert len(of_prompts) > 50
    assert {(m.low, m.high, m.images) for m in of_prompts} == {(wilson(1, 2).low, 1.0, 2)}


def test_numbers_of_scales_stand_side_by_side_after_the_baseline() -> None:
    baseline = study(ImageSampler(tiny_staged_model("text", 1), SamplingSettings(guidance=2.0)))
    studies = comparison(study(), (1, 3), baseline)
    assert list(studies) == ["left to right", "T = 1", "T = 3"]
    assert [one.sampler.settings.scales for one in studies.values()] == [None, 1, 3]
    assert {one.sampler.settings.guidance for one in studies.values()} == {2.0}
    one, other = Measure("a", 1, 0.5, 1, 20, "%"), Measure("b", 0.25, 0, 0.5, 20)
    assert side_by_side({"x": [one, other], "y": [other]}).splitlines()[2:] == [
        "| a | 100.0 % ± 25.0 |  |",
        "| b | 0.25 ± 0.25 | 0.25 ± 0.25 |",
    ]


def test_what_cannot_be_compared_is_refused() -> None:
    staged = study(ImageSampler(tiny_staged_model("text", 2), SamplingSettings()))
    with pytest.raises(ValueError, match="trained for 2 scales"):
        comparison(staged)
    with pytest.raises(ValueError, match=r"\['encoder_decoder', 'decoder_only'\], expected one decoder_only"):
        comparison(study(), (1,), staged)
    with pytest.raises(ValueError, match="expected one decoder_only"):
        comparison(study(), (1,), study())


def test_the_comparison_sheet_has_a_row_for_each_model_and_kind() -> None:
    page = np.asarray(comparison_sheet({"a": study(), "b": study()}))
    assert page.shape[0] == 5 * 132
    assert (page[132:264] != page[264:396]).any()
    assert (page[132:264, 160:] == page[3 * 132 : 4 * 132, 160:]).all(), "the same model, the same images"


@dataclass(frozen=True)
class Completer(ImageSampler):
    """Restores the upper half of the avatar that was there; the first `wrong` of them with another background."""

    wrong: int = 0

    @property
    def size(self) -> int:
        return 128

    def edit(self, images: Tensor, masks: np.ndarray, prompts: Sequence[str | None], seed: int) -> Tensor:
        assert set(prompts) == {None}
        wrong = {"white": "red"}
        avatars = [
            replace(avatar, background=wrong.get(avatar.background, "white")) if i < self.wrong else avatar
            for i, avatar in enumerate(study(self).avatars(COMPLETED))
        ]
        return torch.where(torch.from_numpy(masks)[:, None], rendered(avatars, self.size), images)


@pytest.mark.parametrize("wrong", [0, 8])
def test_halves_that_do_not_agree_are_counted(wrong: int) -> None:
    measures = {m.name: m for m in completions(study(Completer(tiny_model(), SamplingSettings(), wrong=wrong)))}
    consistent = measures["completions: inside = outside"]
    assert consistent.value == pytest.approx(1 - wrong / (2 * FEW))
    assert consistent.low <= consistent.value <= consistent.high
    assert consistent.images == FEW
    assert measures["skin"].value == 1
    assert measures["background"].value == pytest.approx(1 - wrong / FEW)
    assert (measures["completions: reader agrees with the given half"].value > 0.99) == (wrong == 0)


def test_what_both_halves_show_has_to_agree() -> None:
    assert set(must_agree(PLAIN)) >= {"skin", "background"}
    assert not {"clothing", "clothing_color", "eyebrows", "hat_color"} & set(must_agree(PLAIN))
    assert "hair_color" not in must_agree(PLAIN), "short hair ends above the middle"
    assert {"hair_color", "top"} <= set(must_agree(replace(PLAIN, top="wavy")))


def test_completions_keep_the_lower_half() -> None:
    avatars = [PLAIN, replace(PLAIN, skin="dark")]
    (_, completed), given = complete(study(), avatars), rendered(avatars, 32)
    lower = torch.from_numpy(~preset_array("upper half", 32))
    assert torch.equal(completed[..., lower], given[..., lower])
    assert not torch.equal(completed[..., ~lower], given[..., ~lower])


def test_entropy_of_known_frequencies() -> None:
    assert entropy(["a"] * 5) == 0
    assert entropy(list("aabbccdd")) == pytest.approx(2)
    assert entropy(["a", "a", "a", None]) == pytest.approx(0.811278, abs=1e-6)


@pytest.mark.parametrize(
    ("other", "claims", "bits"),
    [
        (replace(PLAIN, mouth="sad", hat_color="red"), {}, 1),  # the hat's color does not show
        (replace(PLAIN, mouth="sad"), {"mouth": frozenset({"smile", "sad"})}, 0),
        (replace(PLAIN, top="bald"), {}, 2),  # top, and the color that does not show
    ],
)
def test_only_what_is_open_counts_and_hidden_is_a_value(other: Attributes, claims: dict, bits: int) -> None:
    assert free_entropy([PLAIN, other], claims) == pytest.approx(bits / len(VALUES))


def test_avatars_are_sampled_true_to_claims_and_as_often_as_among_all() -> None:
    random = np.random.default_rng(0)
    claims = {"facial_hair": frozenset({"none", "goatee"}), "skin": frozenset({"dark"})}
    avatars = [sample_claimed(claims, random) for _ in range(2000)]
    assert {a.skin for a in avatars} == {"dark"}
    # "none" weighs 10/3, a goatee 1; every other attribute keeps all its values.
    assert np.mean([a.facial_hair == "none" for a in avatars]) == pytest.approx(10 / 13, abs=0.04)
    assert {a.mouth for a in avatars} == set(VALUES["mouth"])
    for case in OPEN:
        assert all(getattr(sample_claimed(case.claims, random), n) in v for n, v in case.claims.items())


def image(levels: Tensor) -> Tensor:
    """Grey levels [H, W] -> [1, 3, H, W] in [-1, 1]."""
    return (levels / 127.5 - 1).expand(1, 3, *levels.shape)


def step(height: float = 200) -> Tensor:
    """20 x 20 levels: 0 at the left, `height` at the right."""
    return height * (torch.arange(20) >= 10).float().expand(20, 20)


def test_a_gradient_is_that_of_the_slope_in_three_colors() -> None:
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")
    slope = gradient(image(3 * x + 4 * y))
    assert slope.shape == (1, 4, 6)
    torch.testing.assert_close(slope, torch.full((1, 4, 6), 5 * math.sqrt(3)), rtol=0, atol=1e-3)
    red = torch.zeros(1, 3, 4, 4)
    red[:, 0, :, 2:] = 100 / 127.5  # a step between the second and the third column
    expected = torch.tensor([0.0, 100.0, 0.0]).expand(1, 3, 3)
    torch.testing.assert_close(gradient(red), expected, rtol=0, atol=1e-3)


def test_an_edge_spread_over_four_pixels_has_a_quarter_of_the_gradient() -> None:
    ramp = step()
    ramp[:, 8:] = torch.tensor([50.0, 100, 150, *[200] * 9])
    assert Sharpness.of(image(step()), image(ramp)).crispness() == pytest.approx(0.25)
    moved = step().roll(1, 1)  # as crisp, but elsewhere
    moved[:, 0] = 0
    assert Sharpness.of(image(step()), image(moved)).crispness() == 0


def test_only_what_is_flat_all_around_counts_as_flat() -> None:
    stripes = step()
    stripes[:, 1::2] += 2.0  # every pixel differs by two levels from the next
    rough = Sharpness.of(image(step()), image(stripes))
    assert rough.cleanness() == pytest.approx(2 * math.sqrt(3), abs=1e-3)
    # The gradient at the step is in column 9 of 19; three on either side are not flat.
    assert rough.flat_pixels.tolist() == [19 * (19 - 7)]


def test_images_are_weighted_by_their_edges() -> None:
    plain = image(torch.zeros(20, 20))
    originals = torch.cat([image(step()), image(step()), plain])
    both = Sharpness.of(originals, torch.cat([image(step()), image(step(100)), plain]))
    assert both.crispness() == pytest.approx(0.75)
    assert both.crispness(torch.tensor([1, 2])) == pytest.approx(0.5)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected"):
        Sharpness.of(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 9))
    with pytest.raises(ValueError, match="2 pixels a side"):
        gradient(torch.zeros(1, 3, 1, 8))
