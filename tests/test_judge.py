"""Variants in order: what a scorer prefers comes first, and says which variant it is."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from model_with_scorer import save_model_with_scorer
from PIL import Image
from tiny_models import tiny_model, tiny_pipeline
from torch import Tensor

from imagebart import InputError
from imagebart.cli import main
from imagebart.imaging import masks
from imagebart.imaging.metadata import read_recipe
from imagebart.pipeline import Pipeline
from imagebart.ranking import rank


class Brightest:
    """Prefers bright pictures, or dark ones where asked for; has no opinion on an empty prompt."""

    def score(self, images: Tensor, prompt: str) -> Tensor:
        assert images.abs().max() <= 1
        return images.mean((1, 2, 3)) * {"a hat": 1, "a blue hat": -1, "": 0}[prompt]


def brightness(image: Image.Image) -> float:
    return float(np.asarray(image.convert("RGB")).mean())


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return Pipeline(tiny_model(), scorer=Brightest())


def test_pictures_of_several_prompts_have_no_best(pipe: Pipeline) -> None:
    with pytest.raises(InputError, match="several prompts have no best"):
        pipe.generate(["a hat", "a blue hat"], best_first=True)


def test_equal_scores_keep_their_order() -> None:
    images = torch.tensor([0.1, 0.3, 0.3, 0.2]).reshape(4, 1, 1, 1).expand(4, 3, 2, 2)
    assert rank(Brightest(), images, "a hat") == [1, 2, 3, 0]
    assert rank(Brightest(), images, "") == [0, 1, 2, 3]


@pytest.mark.parametrize(("prompt", "falling"), [("a hat", True), ("a blue hat", False)])
def test_the_result_is_ordered_and_each_picture_is_the_variant_it_says(
    pipe: Pipeline, prompt: str, falling: bool
) -> None:
    as_drawn = list(pipe.generate(prompt, seed=5, variants=6))[-1]
    assert as_drawn.variants == (0, 1, 2, 3, 4, 5)
    events = list(pipe.generate(prompt, seed=5, variants=6, best_first=True))
    assert all(event.variants[0] == 0 and event.recipe.variant == 0 for event in events[:-1])
    last = events[-1]
    light = [brightness(image) for image in last.images]
    assert light == sorted(light, reverse=falling) and len(set(light)) > 1
    assert sorted(last.variants) == [0, 1, 2, 3, 4, 5] and last.variants != as_drawn.variants
    for number, image in zip(last.variants, last.images, strict=True):
        assert image.tobytes() == as_drawn.images[number].tobytes()
    assert last.image is last.images[0]
    assert last.recipe == replace(as_drawn.recipe, variant=last.variants[0])
    alone = list(pipe.generate(prompt, seed=last.recipe.own_seed))[-1].image
    assert np.abs(np.asarray(alone, int) - np.asarray(last.image, int)).max() <= 1


def test_edits_and_variations_are_ordered_and_keep_what_they_should(pipe: Pipeline) -> None:
    upload = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    mask = masks.preset("upper half", upload.size)
    runs = (lambda **more: pipe.edit(upload, mask, "a hat", seed=1, variants=4, **more),
            lambda **more: pipe.vary(upload, 0.9, "a hat", seed=1, variants=4, **more))  # fmt: skip
    for run in runs:
        as_drawn, ordered = list(run())[-1], list(run(best_first=True))[-1]
        assert sorted(ordered.variants) == [0, 1, 2, 3] != list(ordered.variants)
        for number, image in zip(ordered.variants, ordered.images, strict=True):
            assert image.tobytes() == as_drawn.images[number].tobytes()
        assert ordered.recipe.variant == ordered.variants[0]


def test_without_a_judge_there_is_no_order() -> None:
    pipe = tiny_pipeline()
    assert not pipe.can_rank
    with pytest.raises(InputError, match="no scorer"):
        pipe.generate("a hat", best_first=True)


def test_a_judge_is_loaded_from_the_model_s_folder_and_used_by_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, plain = tmp_path / "judged", tmp_path / "plain"
    save_model_with_scorer(folder)
    tiny_model().save_pretrained(plain)
    pipe = Pipeline.from_pretrained(folder)
    assert pipe.can_rank and pipe.scorer is not None
    assert not Pipeline.from_pretrained(plain).can_rank
    command = ["generate", "--prompt", "red hair", "--seed", "3", "--variants", "4", "--best-first"]
    assert main([*command, "--model", str(plain), "--out", str(tmp_path / "no.png")]) == 2
    assert "no scorer" in capsys.readouterr().err
    assert main([*command, "--model", str(folder), "--out", str(tmp_path / "o.png")]) == 0
    last = list(pipe.generate("red hair", seed=3, variants=4, best_first=True))[-1]
    for number, variant in enumerate(last.variants):
        path = tmp_path / ("o.png" if number == 0 else f"o-{number + 1}.png")
        recipe = read_recipe(path)
        assert recipe is not None and recipe.variant == variant
        with BytesIO(path.read_bytes()) as file:
            assert Image.open(file).tobytes() == last.images[number].tobytes()
