"""Captions taken apart, and the labels that are made of them."""

from imagebart.pictures.labels import UNSAID, Labels, said


def test_captions_are_taken_apart() -> None:
    assert said("Red roses, green background") == {"class": "roses", "colour": "red", "around": "green background"}
    assert said("a dandelion clock") == {"class": "dandelion clock", "colour": "", "around": ""}
    assert set(said("").values()) == {""}


def test_labels_are_what_enough_captions_say() -> None:
    captions = ["red roses"] * 5 + ["white roses, dark background"] * 5 + ["tulips"] * 6 + ["a dog"]
    labels = Labels.of("text", captions)
    assert labels.groups == {"class": ("roses", "tulips"), "colour": ("red", "white")}
    assert labels.numbers("text", "white tulips") == [1, 1]
    assert labels.numbers("text", "a dog") == [UNSAID, UNSAID]
    assert Labels.of("class", ["cat"] * 4 + ["dog"] * 4).groups == {"class": ("cat", "dog")}
    assert Labels.of("none", [""] * 9).groups == {}
