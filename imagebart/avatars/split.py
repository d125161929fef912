"""Which avatars the model may learn from: index to attributes, with some pairs of values kept for judging."""

from __future__ import annotations

from imagebart.avatars.attributes import Attributes, draw, generator

Pair = tuple[tuple[str, str], tuple[str, str]]

HELD_OUT_PAIRS: tuple[Pair, ...] = (
    (("hair_colour", "pink"), ("accessory", "sunglasses")),
    (("hair_colour", "blue"), ("top", "afro")),
    (("hair_colour", "red"), ("top", "bob")),
    (("hair_colour", "blonde"), ("top", "dreadlocks")),
    (("hair_colour", "grey"), ("clothing", "hoodie")),
    (("hair_colour", "black"), ("background", "pink")),
    (("hair_colour", "brown"), ("background", "purple")),
    (("facial_hair_colour", "red"), ("facial_hair", "long beard")),
    (("facial_hair_colour", "pink"), ("facial_hair", "moustache")),
    (("facial_hair_colour", "grey"), ("facial_hair", "goatee")),
    (("facial_hair", "curled moustache"), ("accessory", "round glasses")),
    (("facial_hair", "long beard"), ("top", "bun")),
    (("facial_hair", "goatee"), ("top", "turban")),
    (("facial_hair", "beard"), ("top", "flowers")),
    (("facial_hair", "beard"), ("mouth", "tongue")),
    (("accessory", "eyepatch"), ("top", "beanie")),
    (("accessory", "eyepatch"), ("mouth", "slight smile")),
    (("accessory", "glasses"), ("top", "spiky")),
    (("accessory", "glasses"), ("eyes", "hearts")),
    (("accessory", "round glasses"), ("clothing", "blazer")),
    (("accessory", "white sunglasses"), ("top", "wavy")),
    (("accessory", "white sunglasses"), ("clothing", "overalls")),
    (("accessory", "sunglasses"), ("top", "hat")),
    (("eyes", "wink"), ("mouth", "smile")),
    (("eyes", "crying"), ("eyebrows", "raised")),
    (("eyes", "wide"), ("eyebrows", "unibrow")),
    (("eyes", "dizzy"), ("mouth", "vomit")),
    (("eyes", "closed"), ("background", "red")),
    (("eyebrows", "angry"), ("mouth", "scream")),
    (("eyebrows", "one raised"), ("mouth", "grimace")),
    (("mouth", "sad"), ("background", "yellow")),
    (("clothing", "hoodie"), ("clothing_colour", "green")),
    (("clothing", "overalls"), ("clothing_colour", "blue")),
    (("clothing", "sweater"), ("clothing_colour", "red")),
    (("clothing", "t-shirt"), ("clothing_colour", "yellow")),
    (("graphic", "pizza"), ("clothing_colour", "black")),
    (("graphic", "skull"), ("clothing_colour", "pink")),
    (("top", "hijab"), ("hat_colour", "yellow")),
    (("top", "beanie"), ("hat_colour", "red")),
    (("skin", "dark"), ("background", "green")),
)
"""Pairs of (attribute, value) that no training picture shows together."""


def held_out(attributes: Attributes) -> bool:
    """Whether an avatar has a held-out pair."""
    values = attributes.as_dict()
    return any(all(values[name] == value for name, value in pair) for pair in HELD_OUT_PAIRS)


def sample(index: int, seed: int = 0, split: str = "train") -> Attributes:
    """Return the attributes of the avatar with this number: the same for the same index, seed and split.

    split: "train" draws again, for as long as it takes, where a held-out pair turns up; "all" does not.
    """
    if split not in ("train", "all"):
        raise ValueError(f"The split of avatars is 'train' or 'all', not {split!r}.")
    random = generator(index, seed, 0)
    attributes = draw(random)
    while split == "train" and held_out(attributes):
        attributes = draw(random)
    return attributes
