"""The classifier of someone's images: labels from captions, and what it learns of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from image_folders import draw_folder

from imagebart.evaluation.classifier import NO_LABEL, Labels, augment, parse_caption, train_classifier
from imagebart.training.data import ImageStore, inspect_dataset, open_dataset


@pytest.mark.parametrize(
    ("text", "thing", "colour", "around"),
    [
        ("Red roses, green background", "roses", "red", "green background"),
        ("a dandelion clock", "dandelion clock", "", ""),
        ("red and white roses", "roses", "red", ""),
        ("", "", "", ""),
    ],
)
def test_captions_are_parsed(text: str, thing: str, colour: str, around: str) -> None:
    assert parse_caption(text) == {"class": thing, "colour": colour, "around": around}


def test_labels_are_what_enough_captions_say() -> None:
    captions = ["red roses"] * 5 + ["white roses, dark background"] * 5 + ["tulips"] * 6 + ["a dog"]
    labels = Labels.of("text", captions)
    assert labels.groups == {"class": ("roses", "tulips"), "colour": ("red", "white")}
    assert labels.numbers("text", "white tulips") == [1, 1]
    assert labels.numbers("text", "a dog") == [NO_LABEL, NO_LABEL]
    assert Labels.of("class", ["cat"] * 4 + ["dog"] * 4).groups == {"class": ("cat", "dog")}
    assert Labels.of("none", [""] * 9).groups == {}
    few = [*["rose"] * 30, *["tulip"] * 30, *["daisy"] * 7]
    assert Labels.of("class", few).groups == {"class": ("daisy", "rose", "tulip")}
    many = [*["rose"] * 1500, *["tulip"] * 600, *["daisy"] * 7]  # 7 in 2,107 is under 0.4 %
    assert Labels.of("class", many).groups == {"class": ("rose", "tulip")}


def test_held_back_images_are_classified_right_and_a_trained_one_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "imagebart.evaluation.classifier.CHANNELS", (32, 48, 64, 64)
    )  # seconds in place of half a minute
    inspect_dataset(open_dataset(str(draw_folder(tmp_path / "data", "class", count=150))), 32, tmp_path / "pictures")
    store = ImageStore(tmp_path / "pictures")
    classifier = train_classifier(store, tmp_path / "classifier", 120)
    held = store.index.numbers(True)
    labels = Labels(classifier.config.groups)
    with torch.no_grad():
        (logits,) = classifier(store.images(held))
    answers = torch.tensor([labels.numbers("class", store.index.texts[i]) for i in held])
    assert len(held) >= 7
    assert (logits.argmax(1) == answers[:, 0]).float().mean() >= 0.9
    again = train_classifier(store, tmp_path / "classifier", 1)
    pairs = zip(classifier.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(first, second) for first, second in pairs)


def test_augmentation_varies_images_and_keeps_their_colours() -> None:
    torch.manual_seed(0)
    flat = torch.tensor([0.8, -0.5, 0.1])[None, :, None, None].expand(64, 3, 16, 16)
    augmented = augment(flat).mean((2, 3))
    assert (augmented.argmax(1) == 0).all() and (augmented.argmin(1) == 1).all()
    striped = torch.linspace(-1, 1, 16).expand(8, 3, 16, 16)
    views = augment(striped)
    assert views.shape == striped.shape
    assert torch.pdist(views.flatten(1)).min() > 0.5
    assert (augment(striped) != views).any()
