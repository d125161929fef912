"""Variants ranked: by the bundled scorer, a classifier or CLIP; each says which variant it is."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import save_image_classifier, save_model_with_scorer, tiny_model, tiny_pipeline
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, ResNetForImageClassification

from imagebart.cli import main
from imagebart.core.errors import InputError
from imagebart.imaging import masks
from imagebart.imaging.files import read_recipe, to_tensor
from imagebart.pipeline import Pipeline, PipelineEvent
from imagebart.text.conditioners import ClipTextConditioner
from imagebart.text.prompts import END
from imagebart.worlds.ranking import ClipScorer, load_scorer


class Brightest:
    """Prefers bright images, or dark ones where asked for; has no opinion on an empty prompt."""

    def score(self, images: Tensor, prompt: str) -> Tensor:
        assert images.abs().max() <= 1
        return images.mean((1, 2, 3)) * {"a hat": 1, "a blue hat": -1, "": 0}[prompt]


PIPE = Pipeline(tiny_model(), scorer=Brightest())
UPLOAD = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
RUNS: dict[str, Callable[..., Iterator[PipelineEvent]]] = {
    "bright": partial(PIPE.generate, "a hat", seed=5, variants=5),
    "dark": partial(PIPE.generate, "a blue hat", seed=5, variants=5),
    "edit": partial(PIPE.edit, UPLOAD, masks.preset("upper half", UPLOAD.size), "a hat", seed=1, variants=5),
    "vary": partial(PIPE.vary, UPLOAD, 0.9, "a hat", seed=1, variants=5),
}


@pytest.mark.parametrize("run", RUNS)
def test_the_result_is_ordered_and_each_image_is_the_variant_it_says(run: str) -> None:
    *_, drawn = RUNS[run]()
    *events, last = RUNS[run](best_first=True)
    assert all(event.variants[0] == 0 and event.recipe.variant == 0 for event in events)
    assert sorted(last.variants) == [0, 1, 2, 3, 4] == list(drawn.variants) != list(last.variants)
    for number, image in zip(last.variants, last.images, strict=True):
        assert image.tobytes() == drawn.images[number].tobytes()
    assert last.image is last.images[0] and last.recipe == drawn.recipe.replace(variant=last.variants[0])
    light = [np.asarray(image.convert("RGB")).mean() for image in last.images]
    assert run in ("edit", "vary") or light == sorted(light, reverse=run == "bright")


def test_equal_scores_keep_their_order_and_what_cannot_be_ranked_is_said() -> None:
    assert list(PIPE.generate("", seed=5, variants=3, best_first=True))[-1].variants == (0, 1, 2)
    for pipe, prompt, said in ((PIPE, ["a hat", "a blue hat"], "several prompts"), (tiny_pipeline(), "", "no scorer")):
        with pytest.raises(InputError, match=said):
            pipe.generate(prompt, best_first=True)


# Scorers from elsewhere, as small random networks of transformers' own kinds.


@pytest.mark.parametrize(
    ("names", "asked"),
    [
        (["cat", "dog", "bird"], {"cat": 0, "dog": 1, "bird": 2, "1": 1}),
        (["x", "tabby, Bird", "dog", "y"], {"bird": 1, "1": 2}),  # other classes are found by name
    ],
)
def test_a_classifier_scores_by_the_class_asked_for(tmp_path: Path, names: list[str], asked: dict[str, int]) -> None:
    scorer = load_scorer(str(save_image_classifier(tmp_path, names)), tiny_model("class"))
    images = torch.rand(4, 3, 16, 16) * 2 - 1
    normal = (((images + 1) / 2).permute(0, 2, 3, 1) - torch.tensor([0.1, 0.2, 0.3])) / torch.tensor([0.5, 0.4, 0.3])
    network = ResNetForImageClassification.from_pretrained(tmp_path).eval()
    expected = network(normal.permute(0, 3, 1, 2)).logits.softmax(-1).log()
    for name, index in asked.items():
        torch.testing.assert_close(scorer.score(images, name), expected[:, index], atol=1e-5, rtol=0)
    assert scorer.score(images, "").tolist() == [0] * 4
    if "cat" not in asked:
        with pytest.raises(InputError, match='no class "cat": its 4 classes are others'):
            scorer.score(images, "cat")


def test_clip_scores_by_likeness(tmp_path: Path) -> None:
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    seeing = {**small, "image_size": 32, "patch_size": 16}
    network = CLIPModel(CLIPConfig(text_config=small, vision_config=seeing, projection_dim=8)).eval()
    network.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"crop_size": 32, "size": {"shortest_edge": 40}}))
    scorer = load_scorer(str(tmp_path), tiny_model("text"))
    assert isinstance(scorer, ClipScorer)
    images = torch.rand(3, 3, 32, 32) * 2 - 1
    words = ClipTextConditioner().encode(["red hair"]).tokens
    text = network.get_text_features(words[:, : words[0].tolist().index(END) + 1])
    image = network.get_image_features(scorer.prepare(images))
    cosine = torch.nn.functional.cosine_similarity(*(getattr(x, "pooler_output", x) for x in (image, text)))
    scores = scorer.score(images, "red hair")
    assert torch.allclose(scores, cosine * network.logit_scale.exp(), atol=1e-4)
    assert not torch.allclose(scores, scorer.score(images, "round glasses"))


def test_what_is_no_scorer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    cat = save_image_classifier(tmp_path / "cat", ["cat"])
    for path, kind, said in (
        (tmp_path, "none", "nothing that a scorer could look for"),
        (cat, "text", "it is no CLIP model"),
        (tmp_path / "empty", "class", "The scorer .*empty cannot be loaded"),
    ):
        with pytest.raises(InputError, match=said):
            load_scorer(str(path), tiny_model(kind))


@pytest.mark.parametrize("bundled", [True, False])
def test_the_command_line_writes_all_the_best_first_or_the_best_alone(tmp_path: Path, bundled: bool) -> None:
    """By the scorer in the model's folder, or another."""
    model, prompt, more = tmp_path / "model", "red hair", list[str]()
    if bundled:
        save_model_with_scorer(model)
    else:
        tiny_model("class").save_pretrained(model)
        prompt, more = "dog", ["--scorer", str(save_image_classifier(tmp_path / "judge", ["cat", "dog", "bird"]))]
    command = ["generate", "--model", str(model), "--prompt", prompt, "--seed", "3", *more]
    assert main([*command, "--variants", "4", "--best-first", "--out", str(tmp_path / "all.png")]) == 0
    assert main([*command, "--best-of", "4", "--out", str(tmp_path / "best.png")]) == 0
    pipe = Pipeline.from_pretrained(model)
    scorer = pipe.scorer if bundled else load_scorer(more[1], pipe.model)
    *_, drawn = pipe.generate(prompt, seed=3, variants=4)
    scores = scorer.score(torch.cat([to_tensor(image) for image in drawn.images]), prompt)
    for number, variant in enumerate(scores.argsort(descending=True).tolist()):
        path = tmp_path / ("all.png" if number == 0 else f"all-{number + 1}.png")
        recipe = read_recipe(path)
        assert recipe is not None and recipe.variant == variant
        assert Image.open(path).tobytes() == drawn.images[variant].tobytes()
    assert [path.name for path in tmp_path.glob("best*")] == ["best.png"]
    assert Image.open(tmp_path / "best.png").tobytes() == Image.open(tmp_path / "all.png").tobytes()
