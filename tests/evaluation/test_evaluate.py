"""Intervals, the two-sample test and the sampler of images, against tables, simulations and the pipeline; commands."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from tiny_models import save_image_classifier, tiny_model, tiny_staged_model
from tiny_runs import draw_folder

from imagebart.cli import main
from imagebart.core.errors import InputError
from imagebart.core.settings import SamplingSettings
from imagebart.evaluation.folder import spread
from imagebart.evaluation.image_sampler import ImageSampler
from imagebart.evaluation.metrics import mean_of, median_of, share_of, two_sample_test, wilson
from imagebart.evaluation.paper import INCEPTION, images_in, in_manifold, load_network, read_square
from imagebart.imaging.files import to_images
from imagebart.models.vqgan import psnr
from imagebart.pipeline import Pipeline
from imagebart.worlds.ranking import load_scorer


def test_wilson_bounds_are_the_shares_that_the_score_test_just_allows() -> None:
    for right, trials in ((56, 70), (1, 9), (0, 10)):
        share, low, high = wilson(right / trials, trials)
        assert low <= share == right / trials <= high
        for bound in {low, high} - {0.0}:
            score = (share - bound) / math.sqrt(bound * (1 - bound) / trials)
            assert abs(score) == pytest.approx(1.959964, rel=1e-5)
    assert low == 0


@pytest.mark.parametrize("correlated", [False, True])
def test_shares_hold_the_truth_about_95_times_in_100(correlated: bool) -> None:
    random = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        asked = random.integers(1, 7, 60)
        chance = random.beta(1.6, 0.4, 60) if correlated else np.full(60, 0.8)
        interval = share_of(random.binomial(asked, chance).tolist(), asked.tolist())
        held += interval.low <= 0.8 <= interval.high
    assert 920 <= held <= 985


def test_images_without_answers_do_not_count_and_few_have_the_variance_of_a_sample() -> None:
    assert share_of([1, 0, 2], [2, 0, 2]) == share_of([1, 2], [2, 2])
    assert share_of([2, 3], [2, 3]) == wilson(1, 2)
    assert share_of([1, 0, 1, 1]) == share_of([1, 0, 1, 1], [1, 1, 1, 1])
    with pytest.raises(ValueError, match="nothing was asked"):
        share_of([0], [0])
    # By hand: 2, 0 and 1 right of 2 each; spread 2, variance 3 / 2 * 2 / 36, so 3 trials in place of 6.
    assert share_of([2, 0, 1], [2, 2, 2]) == pytest.approx(wilson(0.5, 3))


def test_a_mean_has_the_normal_interval_and_a_median_that_of_the_sign_test() -> None:
    """Ranks from tables of the sign test; samples in which it is missed are as rare as is said."""
    half = 1.959964 * math.sqrt(14 / 3) / 2
    assert mean_of([1.0, 2.0, 3.0, 6.0]) == pytest.approx((3, 3 - half, 3 + half))
    for count, rank in ((6, 1), (10, 2), (20, 6), (100, 40)):
        interval = median_of(list(range(1, count + 1)))
        assert (interval.low, interval.high) == (rank, count + 1 - rank)
        assert interval.value == (count + 1) / 2
    samples = np.random.default_rng(0).exponential(size=(2000, 25))
    held = [(found := median_of(row.tolist())).low <= math.log(2) <= found.high for row in samples]
    assert 0.95 <= np.mean(held) < 0.98
    with pytest.raises(ValueError, match="at least 6"):
        median_of([1.0] * 5)


def test_psnr_of_a_known_error() -> None:
    """Of a tenth of the range 20 dB, of all of it 0 dB."""
    x = torch.zeros(2, 3, 12, 12)
    assert psnr(x, torch.stack([x[0] + 0.2, x[0] - 2.0])).tolist() == pytest.approx([20.0, 0.0])


def test_blurred_images_are_told_and_others_of_the_same_kind_are_not() -> None:
    """A network is tested on images that it has not seen: memorizing them is of no use."""

    def noise(count: int, seed: int) -> torch.Tensor:
        return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1

    real, state = noise(60, 0), torch.get_rng_state()
    blurred = two_sample_test(real, torch.nn.functional.avg_pool2d(real, 3, 1, 1), steps=30)
    assert blurred.value > 0.95 and blurred.low > 0.8
    alike = two_sample_test(noise(60, 3), noise(60, 103), steps=15)
    assert alike.low < 0.5 < alike.high
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match="3 images"):
        two_sample_test(real[:3], real[:3])


@pytest.mark.parametrize(("count", "most"), [(362, 100), (6718, 2000), (7, 7), (7, 3), (1, 5), (0, 5)])
def test_the_measured_images_are_spread_evenly(count: int, most: int) -> None:
    chosen = spread(list(range(count)), most)
    assert len(chosen) == min(most, count)
    steps = np.diff([*chosen, *([count] if chosen else [])])
    assert set(steps) <= {count // max(1, len(chosen)), -(-count // max(1, len(chosen)))}


SAMPLER = ImageSampler(tiny_model(), SamplingSettings(guidance=2.0, top_k=5), batch=2)
PIPE = Pipeline(SAMPLER.model)
PROMPTS = ["a hat", "red hair", "round glasses"]


def difference(a: Image.Image, b: Image.Image) -> int:
    return int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max())


def test_images_sampled_in_batches_are_the_pipelines_and_reconstructions_the_first_stages() -> None:
    for seed, prompt, image in zip((5, 6, 7), PROMPTS, to_images(SAMPLER.generate(PROMPTS, seed=5)), strict=True):
        *_, last = PIPE.generate(prompt, seed=seed, settings=SAMPLER.settings)
        assert difference(last.image, image) <= 1
    unguided = replace(SAMPLER, settings=SamplingSettings(top_k=5)).generate([None, None], seed=3)
    assert torch.equal(SAMPLER.generate([None, None], seed=3), unguided)
    images, first = torch.rand(3, 3, 32, 32) * 2 - 1, PIPE.model.first_stage
    expected = first.decode(first.encode(images)).clamp(-1, 1)
    assert torch.allclose(SAMPLER.reconstruct(images), expected, atol=1 / 127)


def test_edited_images_are_the_pipelines() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    masks = np.zeros((3, 32, 32), bool)
    masks[:2, 9:14, 6:27], masks[2, 20:] = True, True
    edited = to_images(SAMPLER.edit(images, masks, PROMPTS, seed=9))
    for i, prompt in enumerate(PROMPTS):
        upload, mask = Image.fromarray(pixels[i]), Image.fromarray((masks[i] * 255).astype(np.uint8))
        *_, last = PIPE.edit(upload, mask, prompt, seed=9 + i, settings=SAMPLER.settings, exact=True)
        assert difference(last.image, edited[i]) <= 1
        changed = np.asarray(edited[i]) != pixels[i]
        assert changed[masks[i]].any() and not changed[~masks[i]].any()


# The commands.


def test_the_table_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, data = tmp_path / "model", draw_folder(tmp_path / "data", "text")
    out, sheet = tmp_path / "figures.json", tmp_path / "sheet.png"
    tiny_model("none").save_pretrained(model)
    command = ["evaluate", "folder", "--model", str(model)]
    for more, said in (([], "give --data"), (["--samples", "1"], "greater than or equal to 4")):
        assert main([*command, *more]) == 2
        assert said in capsys.readouterr().err
    command += ["--data", str(data), "--samples", "4", "--test-steps", "2", "--out", str(out), "--sheet", str(sheet)]
    assert main(command) == 0
    measures = {m["name"]: m for m in json.loads(out.read_text())["measures"]}
    assert measures["reconstruction: PSNR"]["unit"] == "dB"
    for made in ("reconstruction", "center box filled", "lower half filled", "generated images"):
        test = measures[f"{made}: two-sample test"]
        assert 0 <= test["low"] <= test["value"] <= test["high"] <= 1 and test["unit"] == "%"
    assert "| generated images: two-sample test |" in capsys.readouterr().out
    assert Image.open(sheet).size == (160 + 4 * 36, 5 * 36)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of classes, a classifier for features, images in data/, and a run's results in out/."""
    work = tmp_path_factory.mktemp("work")
    tiny_staged_model("class").save_pretrained(work / "model")
    save_image_classifier(work / "classifier", ["cat", "dog", "bird"])
    (work / "data").mkdir()
    (work / "data" / "notes.txt").write_text("no image")
    for i in range(6):
        Image.effect_noise((50, 40), 60).convert("RGB").save(work / "data" / f"{i}.png")
    assert evaluate(work, work / "out") == 0
    return work


def evaluate(work: Path, out: Path, *more: str) -> int:
    given = [f"--{option}={work / name}" for option, name in (("model", "model"), ("features", "classifier"))]
    given += ["--data", str(work / "data"), "--samples", "6", "--batch", "2", "--out", str(out)]
    return main(["evaluate", "paper", *given, *more])


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}


def test_a_run_writes_samples_completions_and_the_table(work: Path) -> None:
    out = work / "out"
    rows = [measure["name"] for measure in json.loads((out / "figures.json").read_text())["measures"]]
    measures = ["FID", "Inception score", "precision", "recall"]
    assert rows == ["acceptance rate", *measures, *(f"upper half completed: {name}" for name in measures)]
    assert Image.open(out / "nearest.png").size == (4 * 32, 6 * 32)
    assert len([path for path in contents(out) if path.suffix == ".png"]) == 6 + 6 + 1
    small = np.asarray(ImageOps.fit(Image.open(work / "data" / "0.png"), (32, 32), Image.Resampling.LANCZOS))
    after = np.asarray(Image.open(out / "upper-halves" / "000000.png"))
    assert (after[16:] == small[16:]).all() and (after[:16] != small[:16]).any()


def test_a_run_goes_on_where_one_was_stopped(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(work / "out", tmp_path / "again")
    for name in ("samples/000000", "samples/000003", "samples/000005", "upper-halves/000002", "upper-halves/000003"):
        (tmp_path / "again" / f"{name}.png").unlink()
    assert evaluate(work, tmp_path / "again") == 0
    assert contents(tmp_path / "again") == contents(work / "out")
    assert "images a second: T = 2: " in capsys.readouterr().out


def test_a_scorer_keeps_the_best_of_several(work: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("dog\n")
    common = ("--prompts", str(tmp_path / "prompts.txt"), "--images", "4")
    assert evaluate(work, tmp_path / "one", *common) == 0
    assert evaluate(work, tmp_path / "best", *common, "--best-of", "4", "--scorer", str(work / "classifier")) == 0
    judge, scores = load_scorer(str(work / "classifier"), tiny_staged_model("class")), []
    for run in ("one", "best"):
        images = torch.cat([read_square(path, 32) for path in sorted((tmp_path / run / "samples").iterdir())])
        scores.append(judge.score(images, "dog").mean())
    assert scores[1] > scores[0]
    assert json.loads((tmp_path / "best" / "figures.json").read_text())["measures"][0]["value"] == 0.25


def test_images_are_the_middle_square_and_what_is_missing_is_named(work: Path, tmp_path: Path) -> None:
    paths = images_in(work / "data", 4)
    assert [path.name for path in paths] == ["0.png", "1.png", "2.png", "3.png"]
    square = ((read_square(paths[0], 40)[0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()
    assert (square == np.asarray(Image.open(paths[0]))[:, 5:45]).all()
    with pytest.raises(InputError, match="holds no images"):
        images_in(work / "data" / "notes.txt", 4)
    for name, said in ((INCEPTION, "is missing: .* Fetch https://github.com"), ("nothing", "nothing cannot be loaded")):
        with pytest.raises(InputError, match=said):
            load_network(str(tmp_path / name))


def test_points_in_the_manifold_are_within_a_third_neighbors_distance() -> None:
    others = torch.tensor([[0.0], [1.0], [2.0], [3.0], [100.0]])
    points = torch.tensor([[1.5], [5.9], [6.1], [-3.1], [190.0]])
    # Third neighbors are 3, 2, 2, 3 and 99 away.
    assert in_manifold(points, others).tolist() == [True, True, True, False, True]
    assert in_manifold(torch.tensor([[6.1]]), others[:4]).tolist() == [False]
    with pytest.raises(InputError, match="2 images are too few"):
        in_manifold(points, others[:2])
