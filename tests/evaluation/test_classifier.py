"""The classifier of someone's images: labels from captions, and what it learns of them."""

from __future__ import annotations

from pathlib import Path

import torch
from image_folders import draw_folder

from imagebart.evaluation.classifier import (
    FILE,
    NO_LABEL,
    Labels,
    augment,
    parse_caption,
    train_or_load_classifier,
)
from imagebart.training.data import ImageStore, inspect_dataset, open_dataset


def test_captions_are_taken_apart() -> None:
    assert parse_caption("Red roses, green background") == {
        "class": "roses",
        "colour": "red",
        "around": "green background",
    }
    assert parse_caption("a dandelion clock") == {"class": "dandelion clock", "colour": "", "around": ""}
    assert set(parse_caption("").values()) == {""}


def test_labels_are_what_enough_captions_say() -> None:
    captions = ["red roses"] * 5 + ["white roses, dark background"] * 5 + ["tulips"] * 6 + ["a dog"]
    labels = Labels.of("text", captions)
    assert labels.groups == {"class": ("roses", "tulips"), "colour": ("red", "white")}
    assert labels.numbers("text", "white tulips") == [1, 1]
    assert labels.numbers("text", "a dog") == [NO_LABEL, NO_LABEL]
    assert Labels.of("class", ["cat"] * 4 + ["dog"] * 4).groups == {"class": ("cat", "dog")}
    assert Labels.of("none", [""] * 9).groups == {}


def test_of_many_pictures_a_label_needs_its_share() -> None:
    few = [*["rose"] * 30, *["tulip"] * 30, *["daisy"] * 7]
    assert Labels.of("class", few).groups == {"class": ("daisy", "rose", "tulip")}
    many = [*["rose"] * 1500, *["tulip"] * 600, *["daisy"] * 7]  # 7 in 2,107 is under 0.4 %
    assert Labels.of("class", many).groups == {"class": ("rose", "tulip")}


def test_of_several_colours_the_first_is_the_thing_s() -> None:
    assert parse_caption("red and white roses")["colour"] == "red"


def test_it_reads_what_it_learnt_in_pictures_that_were_held_back(tmp_path: Path) -> None:
    inspect_dataset(open_dataset(str(draw_folder(tmp_path / "data", "class", count=180))), 32, tmp_path / "pictures")
    store = ImageStore(tmp_path / "pictures")
    classifier = train_or_load_classifier(store, tmp_path / "classifier", 120)
    held = store.index.numbers(True)
    labels = Labels(classifier.config.groups)
    with torch.no_grad():
        (logits,) = classifier(store.images(held))
    answers = torch.tensor([labels.numbers("class", store.index.texts[i]) for i in held])
    assert len(held) >= 9
    assert (logits.argmax(1) == answers[:, 0]).float().mean() >= 0.9
    before = (tmp_path / "classifier" / FILE).read_bytes()
    train_or_load_classifier(store, tmp_path / "classifier", 1)  # it is there: nothing is learnt anew
    assert (tmp_path / "classifier" / FILE).read_bytes() == before


def test_a_picture_is_never_seen_twice_alike_and_keeps_its_colours() -> None:
    torch.manual_seed(0)
    flat = torch.tensor([0.8, -0.5, 0.1])[None, :, None, None].expand(64, 3, 16, 16)
    seen = augment(flat).mean((2, 3))
    assert (seen.argmax(1) == 0).all() and (seen.argmin(1) == 1).all()
    striped = torch.linspace(-1, 1, 16).expand(8, 3, 16, 16)
    different = augment(striped)
    assert different.shape == striped.shape
    assert torch.pdist(different.flatten(1)).min() > 0.5
    assert (augment(striped) != different).any()
