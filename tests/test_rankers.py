"""Judges from elsewhere, as small random networks of transformers' own kinds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_models import tiny_model
from transformers import CLIPConfig, CLIPModel, ResNetConfig, ResNetForImageClassification

from imagebart import Pipeline
from imagebart.cli import main
from imagebart.conditioning import ClipTextConditioner
from imagebart.errors import InputError
from imagebart.imaging.files import to_tensor
from imagebart.ranking import ClassifierScorer, ClipScorer, load_scorer


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
    assert (scorer.label("bird"), scorer.label("1")) == (1, 2)
    with pytest.raises(InputError, match='no class "cat": its 4 classes are others'):
        scorer.label("cat")


def test_clip_scores_by_likeness(tmp_path: Path) -> None:
    scorer = load_scorer(str(clip(tmp_path)), tiny_model("text"))
    assert isinstance(scorer, ClipScorer)
    images = torch.rand(3, 3, 32, 32) * 2 - 1
    network = CLIPModel.from_pretrained(tmp_path).eval()
    words = ClipTextConditioner().encode(["red hair"]).tokens
    seen = scorer.view.prepare(images)
    text = network.get_text_features(words[:, : words[0].tolist().index(49407) + 1])
    image = network.get_image_features(seen)
    text, image = (getattr(x, "pooler_output", x) for x in (text, image))
    cosine = torch.nn.functional.cosine_similarity(image, text)
    scores = scorer.score(images, "red hair")
    assert torch.allclose(scores, cosine * network.logit_scale.exp(), atol=1e-4)
    assert not torch.allclose(scores, scorer.score(images, "round glasses"))


def test_what_is_no_judge_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="nothing that a scorer could look for"):
        load_scorer(str(tmp_path), tiny_model("none"))
    with pytest.raises(InputError, match="is no CLIP model"):
        load_scorer(str(classifier(tmp_path / "a", ["cat"])), tiny_model("text"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="The scorer .*empty cannot be had"):
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
