"""The shipped reader is right on fresh avatars, also augmented ones; training it works and resumes as a run does."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from imagebart.training.config import LoopConfig
from imagebart.worlds import save_half
from imagebart.worlds.attribute_classifier import AttributeClassifier, likeliest, load_classifier
from imagebart.worlds.avatars import PLAIN, VALUES
from recipes.avatars import CLASSIFIER
from recipes.avatars.artwork import rendered
from recipes.avatars.dataset import sample
from recipes.avatars.training import HIDDEN, ClassifierRun, augmented, labelled, labels, train_classifier

AVATARS = [sample(i, 424_242, "all") for i in range(400)]


@pytest.mark.parametrize(("size", "bound"), [(128, 0.99), (256, 0.98)])
def test_fresh_renders_are_read_right(size: int, bound: float) -> None:
    avatars = AVATARS if size == 128 else AVATARS[:100]
    read = likeliest(load_classifier(CLASSIFIER)(rendered(avatars, size)))
    right, asked = Counter[str](), Counter[str]()
    for truth, reading in zip(avatars, read, strict=True):
        asked.update(truth.visible())
        right.update(name for name in truth.visible() if getattr(truth, name) == getattr(reading, name))
    assert set(asked) == set(VALUES)
    assert {name: n for name, n in asked.items() if right[name] < bound * n} == {}


def test_augmented_renders_are_read_right() -> None:
    torch.manual_seed(0)
    images = augmented(rendered(AVATARS[:100], 128))
    read = likeliest(load_classifier(CLASSIFIER)(images))
    answers = [
        getattr(a, name) == getattr(b, name) for a, b in zip(AVATARS[:100], read, strict=True) for name in a.visible()
    ]
    assert sum(answers) > 0.985 * len(answers)


def test_the_weights_are_small() -> None:
    assert CLASSIFIER.stat().st_size < 5_000_000
    assert sum(t.numel() for t in load_file(CLASSIFIER).values()) < 1_000_000


def test_hidden_attributes_have_no_label() -> None:
    numbers = dict(zip(VALUES, labels(PLAIN).tolist(), strict=True))
    assert {name for name, n in numbers.items() if n == HIDDEN} == {"hat_color", "facial_hair_color", "graphic"}
    assert all(VALUES[name][n] == getattr(PLAIN, name) for name, n in numbers.items() if n != HIDDEN)
    item = labelled(7, seed=3)
    assert torch.equal(item["labels"], labels(sample(7, 3, "all")))


def test_augmentation_changes_images_and_little() -> None:
    torch.manual_seed(1)
    images = rendered(AVATARS[:64], 128)
    changed = (augmented(images) - images).abs().flatten(1).mean(1)
    assert int((changed > 1e-3).sum()) >= 48
    assert 1e-2 < float(changed.max()) < 0.3


def test_training_lowers_the_loss_and_writes_a_reader(tmp_path: Path) -> None:
    loop = LoopConfig(steps=12, batch_size=16, lr=4e-3, warmup=2, ema=0.5, mixed_precision="no", log_every=1)
    trained = train_classifier(ClassifierRun(loop=loop), tmp_path)
    log = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert sum(log[-4:]) < 0.98 * sum(log[:4])
    images = rendered(AVATARS[:2], 128)
    written = load_classifier(tmp_path / "attribute_classifier.safetensors")
    for name, answers in trained.eval()(images).items():
        torch.testing.assert_close(written(images)[name], answers, atol=2e-2, rtol=0)


def test_a_reader_of_other_attributes_is_refused(tmp_path: Path) -> None:
    save_half(
        AttributeClassifier(), tmp_path / "reader.safetensors", {"values": json.dumps(VALUES | {"skin": ["blue"]})}
    )
    with pytest.raises(ValueError, match="knows other attributes"):
        load_classifier(tmp_path / "reader.safetensors")
