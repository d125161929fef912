"""Variants ranked: by the bundled scorer, a classifier or CLIP; each says which variant it is."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from model_with_scorer import save_model_with_scorer
from PIL import Image
from tiny_models import tiny_model, tiny_pipeline
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, ResNetConfig, ResNetForImageClassification

from imagebart.cli import main
from imagebart.core.errors import InputError
from imagebart.imaging import masks
from imagebart.imaging.files import read_recipe, to_tensor
from imagebart.pipeline import Pipeline
from imagebart.text.conditioners import ClipTextConditioner
from imagebart.worlds.ranking import ClassifierScorer, ClipScorer, load_scorer


class Brightest:
    """Prefers bright images, or dark ones where asked for; has no opinion on an empty prompt."""

    def score(self, images: Tensor, prompt: str) -> Tensor:
        assert images.abs().max() <= 1
        return images.mean((1, 2, 3)) * {"a hat": 1, "a blue hat": -1, "": 0}[prompt]


def brightness(image: Image.Image) -> float:
    return float(np.asarray(image.convert("RGB")).mean())


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return Pipeline(tiny_model(), scorer=Brightest())


def test_images_of_several_prompts_have_no_best(pipe: Pipeline) -> None:
    with pytest.raises(InputError, match="several prompts have no best"):
        pipe.generate(["a hat", "a blue hat"], best_first=True)


def test_equal_scores_keep_their_order(pipe: Pipeline) -> None:
    assert list(pipe.generate("", seed=5, variants=3, best_first=True))[-1].variants == (0, 1, 2)


@pytest.mark.parametrize(("prompt", "falling"), [("a hat", True), ("a blue hat", False)])
def test_the_result_is_ordered_and_each_image_is_the_variant_it_says(
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
    assert last.recipe == as_drawn.recipe.replace(variant=last.variants[0])
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


def test_without_a_scorer_there_is_no_order() -> None:
    pipe = tiny_pipeline()
    assert pipe.scorer is None
    with pytest.raises(InputError, match="no scorer"):
        pipe.generate("a hat", best_first=True)


def test_a_scorer_is_loaded_from_the_model_s_folder_and_used_by_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, plain = tmp_path / "judged", tmp_path / "plain"
    save_model_with_scorer(folder)
    tiny_model().save_pretrained(plain)
    pipe = Pipeline.from_pretrained(folder)
    assert pipe.scorer is not None
    assert Pipeline.from_pretrained(plain).scorer is None
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


# Judges from elsewhere, as small random networks of transformers' own kinds.


def classifier(folder: Path, names: list[str]) -> Path:
    torch.manual_seed(1)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], id2label=dict(enumerate(names)))
    ResNetForImageClassification(config).save_pretrained(folder)
    how = {"size": {"height": 16, "width": 16}, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.4, 0.3]}
    (folder / "preprocessor_config.json").write_text(json.dumps(how))
    return folder


def clip(folder: Path) -> Path:
    torch.manual_seed(1)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    seeing = {**small, "image_size": 32, "patch_size": 16}
    config = CLIPConfig(text_config=small, vision_config=seeing, projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"crop_size": 32, "size": {"shortest_edge": 40}}))
    return folder


def test_a_classifier_scores_by_the_class_asked_for(tmp_path: Path) -> None:
    model = tiny_model("class")
    scorer = load_scorer(str(classifier(tmp_path, ["cat", "dog", "bird"])), model)
    assert isinstance(scorer, ClassifierScorer)
    images = torch.rand(4, 3, 16, 16) * 2 - 1
    normal = (((images + 1) / 2).permute(0, 2, 3, 1) - torch.tensor([0.1, 0.2, 0.3])) / torch.tensor([0.5, 0.4, 0.3])
    network = ResNetForImageClassification.from_pretrained(tmp_path).eval()
    expected = network(normal.permute(0, 3, 1, 2)).logits.softmax(-1).log()
    for number, name in enumerate(("cat", "dog", "bird")):
        assert torch.allclose(scorer.score(images, name), expected[:, number], atol=1e-5)
    assert scorer.score(images, "").tolist() == [0] * 4


def test_other_classes_are_found_by_name(tmp_path: Path) -> None:
    model = tiny_model("class")
    scorer = load_scorer(str(classifier(tmp_path / "a", ["x", "tabby, Bird", "dog", "y"])), model)
    assert isinstance(scorer, ClassifierScorer)
    assert (scorer._label("bird"), scorer._label("1")) == (1, 2)
    with pytest.raises(InputError, match='no class "cat": its 4 classes are others'):
        scorer._label("cat")


def test_clip_scores_by_likeness(tmp_path: Path) -> None:
    scorer = load_scorer(str(clip(tmp_path)), tiny_model("text"))
    assert isinstance(scorer, ClipScorer)
    images = torch.rand(3, 3, 32, 32) * 2 - 1
    network = CLIPModel.from_pretrained(tmp_path).eval()
    words = ClipTextConditioner().encode(["red hair"]).tokens
    seen = scorer.prepare(images)
    text = network.get_text_features(words[:, : words[0].tolist().index(49407) + 1])
    image = network.get_image_features(seen)
    text, image = (getattr(x, "pooler_output", x) for x in (text, image))
    cosine = torch.nn.functional.cosine_similarity(image, text)
    scores = scorer.score(images, "red hair")
    assert torch.allclose(scores, cosine * network.logit_scale.exp(), atol=1e-4)
    assert not torch.allclose(scores, scorer.score(images, "round glasses"))


def test_what_is_no_scorer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="nothing that a scorer could look for"):
        load_scorer(str(tmp_path), tiny_model("none"))
    with pytest.raises(InputError, match="it is no CLIP model"):
        load_scorer(str(classifier(tmp_path / "a", ["cat"])), tiny_model("text"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="The scorer .*empty cannot be loaded"):
        load_scorer(str(tmp_path / "empty"), tiny_model("class"))


def test_the_best_of_several_is_written(tmp_path: Path) -> None:
    tiny_model("class").save_pretrained(tmp_path / "model")
    scorer = str(classifier(tmp_path / "judge", ["cat", "dog", "bird"]))
    common = ["generate", "--model", str(tmp_path / "model"), "--prompt", "dog", "--seed", "4"]
    assert main([*common, "--variants", "5", "--out", str(tmp_path / "all.png")]) == 0
    assert main([*common, "--best-of", "5", "--scorer", scorer, "--out", str(tmp_path / "best.png")]) == 0
    assert len(list(tmp_path.glob("best*.png"))) == 1
    drawn = [Image.open(tmp_path / name) for name in ("all.png", *(f"all-{i}.png" for i in range(2, 6)))]
    pipe = Pipeline.from_pretrained(tmp_path / "model")
    scores = load_scorer(scorer, pipe.model).score(torch.cat([to_tensor(one) for one in drawn]), "dog")
    best = drawn[int(scores.argmax())]
    assert Image.open(tmp_path / "best.png").tobytes() == best.tobytes()
