"""Avatars by number: index to attributes, image and caption. Nothing is stored; an index is always the same avatar.

Some pairs of values are held out for the evaluation: no training image shows them together.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from imagebart.imaging.files import normalize
from imagebart.training.masks import PARTS_PER_PATCH, painted_masks
from imagebart.worlds.avatars import VALUES, Attributes
from recipes import generator
from recipes.avatars import data_file
from recipes.avatars.artwork import around_anyone, background_mask, render
from recipes.avatars.captions import Caption, describe
from recipes.training import pixels_first


def read_values(text: str) -> dict[str, str]:
    """Values by attribute, from text such as "hair_color=blue, top=afro"."""
    return dict(part.split("=") for part in text.split(", "))


HELD_OUT_PAIRS = tuple(map(read_values, data_file("held_out_pairs.txt").splitlines()))  # one of them a line

WEIGHTS = {  # how much likelier than its attribute's other values a value is
    ("facial_hair", "none"): 10 / 3,  # faces without facial hair or glasses are the common ones
    ("accessory", "none"): 10 / 3,
    ("clothing", "graphic"): 2.0,  # printed shirts have a further attribute to learn
    ("eyes", "open"): 2.0,
    ("eyebrows", "normal"): 2.0,
}
SHARES = {name: np.array([WEIGHTS.get((name, value), 1) for value in VALUES[name]]) for name in VALUES}
SHARES = {name: weights / weights.sum() for name, weights in SHARES.items()}


def held_out(attributes: Attributes) -> bool:
    return any(pair.items() <= vars(attributes).items() for pair in HELD_OUT_PAIRS)


def sample(index: int, seed: int = 0, split: str = "train") -> Attributes:
    """The attributes of the avatar of a number, independent of each other: the same for the same index, seed and split.

    split: "train" leaves out held-out pairs, "all" does not.
    """
    random = generator(index, seed, 0)
    while True:
        avatar = Attributes(**{name: str(random.choice(VALUES[name], p=SHARES[name])) for name in VALUES})
        if split == "all" or not held_out(avatar):
            return avatar


def caption(index: int) -> Caption:
    """The caption of the training avatar of a number."""
    return describe(sample(index), generator(index, 0, 1))


def avatar_item(number: int, size: int) -> dict[str, Any]:
    """The avatar of a number: image, uint8 [3, size, size]; text, its caption."""
    return {"image": pixels_first(render(sample(number), size)), "text": caption(number).text}


GRID = 16  # patches along an image
NEW_BACKGROUND_SHARE = 0.1  # of images: a mask that leaves some of the background, and a caption that names another
MAX_LEFT = 4  # parts of a patch around head and shoulders where the background is left
CAPTION_TRIES = 40


def edit_item(number: int, size: int) -> dict[str, Any]:
    """The edit of a number. In most, what is masked is as random as in `painted_masks`, and the caption is true of all.

    In some, the mask leaves slivers of a background, and the caption names another, which is what the mask then shows:
    slivers would win over words if training never showed otherwise. Image, uint8 [3, size, size]; text; mask, bool
    [side, side] of PARTS_PER_PATCH parts along each patch; needs_text, whether only the caption says what the mask
    shows.
    """
    random = generator(number, 0, 4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(random.integers(2**62)))
        item = _new_background(number, size, random) if random.random() < NEW_BACKGROUND_SHARE else None
        if item is None:
            item = avatar_item(number, size) | {"needs_text": False}
            item["mask"] = painted_masks(normalize(item["image"][None]), GRID)[0]
    return item


def _new_background(number: int, size: int, random: np.random.Generator) -> dict[str, Any] | None:
    """None where no caption was found that names the background."""
    before = sample(number)
    side = GRID * PARTS_PER_PATCH
    ground = around_anyone(side) if random.random() < 0.4 else background_mask(before, side)
    left = int(random.integers(MAX_LEFT + 1))
    subject = torch.from_numpy(~ground)[None, None].float()
    mask = F.max_pool2d(subject, 2 * left + 1, 1, left)[0, 0] == 0
    others = [color for color in VALUES["background"] if color != before.background]
    after = replace(before, background=str(random.choice(others)))
    if held_out(after):
        return None
    tries = (describe(after, random, int(random.integers(1, 4))) for _ in range(CAPTION_TRIES))
    said = next((s for s in tries if before.background not in s.claims.get("background", {before.background})), None)
    if said is None:
        return None
    pixels = mask.repeat_interleave(size // side, 0).repeat_interleave(size // side, 1).numpy()
    image = np.where(pixels[..., None], render(after, size), render(before, size))
    return {"image": pixels_first(image), "text": said.text, "mask": mask, "needs_text": True}
