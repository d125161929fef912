"""Captions taken apart, and the labels that are made of them."""

from imagebart.evaluation.classifier import NO_LABEL, Labels, said


def test_captions_are_taken_apart() -> None:
    assert said("Red roses, green background") == {"class": "roses", "colour": "red", "around": "green background"}
    assert said("a dandelion clock") == {"class": "dandelion clock", "colour": "", "around": ""}
    assert set(said("").values()) == {""}


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
    assert said("red and white roses")["colour"] == "red"
