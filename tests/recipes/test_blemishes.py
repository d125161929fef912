"""Blemishes and flats of images that are built: what is painted into a render is found, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle_sampler import oracle
from PIL import Image
from tiny_models import tiny_model
from torch import Tensor

from imagebart.errors import InputError
from imagebart.evaluation.image_sampler import ImageSampler
from imagebart.settings import SamplingSettings
from imagebart.worlds.attribute_classifier import load_classifier
from imagebart.worlds.avatars import PLAIN, VALUES, Attributes
from recipes.avatars import READER
from recipes.avatars.__main__ import main
from recipes.avatars.artwork import render, rendered
from recipes.avatars.blemishes import (
    IMAGES_EACH,
    LEAST,
    SIDE,
    Faults,
    blemish_mask,
    evaluate_faults,
    fault_differences,
    fault_sheet,
    faults_by_kind,
    find_faults,
    flats,
    nearest_render,
    reconstruction_faults,
    with_settings,
)
from recipes.avatars.dataset import sample
from recipes.avatars.evaluation import SERIES, Study

PATCHED = replace(PLAIN, accessory="eyepatch", eyes="wink")


def painted(height: int, width: int, levels: int = 100, place: tuple[int, int] = (8, 8)) -> np.ndarray:
    """A render with a patch of another green in its background."""
    image = render(PLAIN, SIDE).copy()
    top, left = place
    image[top : top + height, left : left + width, 1] -= levels
    return image


def study(sampler: ImageSampler | None = None) -> Study:
    return Study(sampler or oracle(), load_classifier(READER), 20)


def certain(avatar: Attributes) -> dict[str, np.ndarray]:
    """What a reader says that is sure of an avatar."""
    return {name: np.array([value == getattr(avatar, name) for value in VALUES[name]], float) for name in VALUES}


@pytest.mark.parametrize(
    ("height", "width", "levels", "area"),
    [
        (10, 12, 100, 120),
        (8, 12, 100, LEAST),
        (10, 12, 49, 120),
        (10, 12, 48, 0),  # not different enough
        (8, 11, 100, 0),  # too small
        (3, 100, 100, 0),  # a line is thinner than the opening
    ],
)
def test_a_painted_patch_is_found_at_its_area(height: int, width: int, levels: int, area: int) -> None:
    found = blemish_mask(painted(height, width, levels), render(PLAIN, SIDE))
    assert found.sum() == area
    assert found[8 : 8 + height, 8 : 8 + width].all() == (area > 0)


def test_each_region_has_to_be_large_by_itself() -> None:
    image, reference = painted(10, 12), render(PLAIN, SIDE)
    apart, joined = image.copy(), image.copy()
    apart[8:16, 40:48, 1] -= 100
    joined[8:16, 20:28, 1] -= 100
    assert blemish_mask(apart, reference).sum() == 120
    assert blemish_mask(joined, reference).sum() == 120 + 64


def test_antialiased_edges_are_no_blemishes() -> None:
    """The same avatar rendered at half the size and enlarged differs along all edges."""
    smaller = rendered([sample(i, 55, "all") for i in range(6)], SIDE // 2)
    images = torch.nn.functional.interpolate(smaller, (SIDE, SIDE), mode="bilinear")
    pixels = ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    for i, image in enumerate(pixels):
        reference = render(sample(i, 55, "all"), SIDE)
        assert (np.abs(image.astype(int) - reference).max(2) > 48).sum() > LEAST, "there are differences"
        assert not blemish_mask(image, reference).any()


def test_flat_pixels_off_their_color_are_counted_where_they_are_masked() -> None:
    reference = np.full((40, 40, 3), 100, np.uint8)
    reference[:, 20:] = 200  # the three pixels on both sides of the edge are not flat
    mask = np.zeros((40, 40), bool)
    mask[:20] = True
    image = reference.copy()
    image[:10] += 5
    image[10:20] += 4  # as near as rounding and decoding come
    image[30:] = 0  # outside the mask
    assert flats(image, reference, mask) == (10 * 34, 20 * 34)


def test_the_nearest_render_corrects_what_is_misread_or_hidden() -> None:
    image = render(PATCHED, SIDE)
    assert (nearest_render(image, certain(PATCHED)) == image).all()
    assert (nearest_render(image, certain(replace(PATCHED, eyes="hearts"))) == image).all(), "an eye is hidden"
    hijab = replace(PLAIN, top="hijab", clothing="hoodie", clothing_color="red")
    covered = certain(replace(hijab, clothing="blazer", clothing_color="green"))
    assert (nearest_render(render(hijab, SIDE), covered) == render(hijab, SIDE)).all(), "clothes are hidden"
    unsure = certain(replace(PATCHED, mouth="sad", skin="dark"))
    assert (nearest_render(image, unsure) != image).any()
    for name in ("mouth", "skin"):
        unsure[name][VALUES[name].index(getattr(PATCHED, name))] = 0.01
    assert (nearest_render(image, unsure) == image).all()
    wrong = certain(replace(PLAIN, top="hat", clothing="blazer"))
    assert (nearest_render(image, wrong, [PLAIN, PATCHED]) == image).all(), "begun from what is known"


def test_faults_of_renders_are_none_and_painted_ones_are_found_and_shown() -> None:
    reader = load_classifier(READER)
    images = rendered([PLAIN, PATCHED, PLAIN], SIDE)
    masks = np.ones((3, SIDE, SIDE), bool)
    clean = find_faults(images, reader, masks)
    assert not clean.areas.any() and not clean.off.any() and (clean.flat > 1000).all()
    images[1, 1, 8:18, 8:20] -= 1
    found = find_faults(images, reader, masks)
    assert found.areas.tolist() == [0, 120, 0] and found.off[0] == 0 and 0 < found.off[1] <= 120
    assert np.asarray(found.worst(1)[0][2])[10, 10].tolist() == [255, 0, 0]
    masks[1, :, :14] = False
    assert not find_faults(images, reader, masks).areas.any(), "what is left of it within the mask is too small"
    measures = {m.name: m for m in evaluate_faults(study(), lambda _: iter([("a", found)]), {})}
    assert measures["a: with a blemish"].value == pytest.approx(1 / 3)
    assert measures["a: area of blemishes"].value == 40
    assert measures["a: flat pixels off their color"].value == float(found.off.sum() / found.flat.sum())
    differences = {m.name: m for m in fault_differences({"a": found}, {"a": clean}, "painted")}
    assert differences.keys() == measures.keys()
    assert all(differences[name].value == measures[name].value for name in measures)
    same = list(fault_differences({"a": found}, {"a": found}, "the same"))
    assert {(m.low, m.value, m.high) for m in same} == {(0, 0, 0)}


def test_a_perfect_first_stage_has_no_faults() -> None:
    for _, faults in reconstruction_faults(study(oracle())):
        assert not faults.areas.any() or faults.blemished(torch.arange(20)) <= 0.1
        assert faults.off_color(torch.arange(20)) < 0.01


@dataclass(frozen=True)
class Damaged(ImageSampler):
    """Gives back what is asked for, with a square of other colors in the corner of the first image."""

    @property
    def size(self) -> int:
        return SIDE

    def generate(self, prompts: Sequence[str | None], seed: int) -> Tensor:
        return self.edit(rendered([sample(i, SERIES) for i in range(len(prompts))], SIDE), np.zeros(0), prompts, seed)

    def edit(self, images: Tensor, masks: np.ndarray, prompts: Sequence[str | None], seed: int) -> Tensor:
        self.progress(len(images))
        images[0, :, 8:28, 8:28] *= -1
        return images

    def reconstruct(self, images: Tensor) -> Tensor:
        return images


def test_all_kinds_are_measured_and_the_images_are_counted() -> None:
    counts: list[int] = []
    damaged = study(Damaged(tiny_model(), SamplingSettings(), progress=counts.append))
    found: dict[str, Faults] = {}
    measures = list(evaluate_faults(damaged, faults_by_kind, found, steps=2))
    assert list(found) == ["prompts", "completions", "edits"] and sum(counts) == IMAGES_EACH * 20
    assert [faults.flat.any() for faults in found.values()] == [False, True, True]
    assert all(faults.areas.tolist() == [400, *[0] * 19] for faults in found.values())
    assert found["completions"].off.tolist() == [400, *[0] * 19], "the square lies in the upper half"
    assert fault_sheet(found, 2).size == (160 + 6 * 132, 3 * 132)
    assert len(measures) == 9 and measures[-1].name == "prompts: two-sample test"
    assert all(m.low <= m.value <= m.high for m in measures)


def test_settings_are_written_as_names_and_values() -> None:
    settings = with_settings(study(), "scales=4, top_p=0.5").sampler.settings
    assert (settings.scales, settings.top_p) == (4, 0.5)
    for text, message in (("scale=4", "no sampling setting"), ("scales=x", "no sampling"), ("scales=9", "scales is 9")):
        with pytest.raises(InputError, match=message):
            with_settings(study(), text)


def test_the_command_compares_settings_at_equal_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("recipes.avatars.blemishes.LIKELY", 1)  # of noise every reading is likely
    tiny_model("text").save_pretrained(tmp_path / "model")
    out, page = tmp_path / "faults.json", tmp_path / "sheet.png"
    given = ["--model", str(tmp_path / "model"), "--samples", "20", "--scales", "1", "--test-steps", "0"]
    given += ["--against", "scales=1", "--out", str(out), "--sheet", str(page)]
    assert main(["evaluate", "blemishes", *given]) == 0
    assert "| measure | as given | scales=1 |" in capsys.readouterr().out
    content = json.loads(out.read_text())
    assert content["sampling"]["scales"] == 1 and content["settings"]["as given"] == content["settings"]["scales=1"]
    differences = [m["value"] for m in content["measures"] if m["group"] == "scales=1 less as given"]
    assert len(differences) == 8 and not any(differences)
    assert Image.open(page).size == (160 + 15 * 132, (2 + 2 * 3) * 132)
