"""Renders the page's examples into checkpoints/avatars/examples: avatars, a mask for each, and a prompt.

The artwork is by Pablo Stanley, see assets/README.md.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from imagebart.atomic_io import write_text
from imagebart.avatars.attributes import PLAIN, Attributes
from imagebart.imaging.files import save_image
from recipes.avatars.artwork import background_mask, region_mask, render

FOLDER = Path(__file__).resolve().parent.parent / "checkpoints" / "avatars" / "examples"
SIZE = 256  # as the shipped model's images

BORDER = 8  # pixels at the left and right that are kept, so that the background keeps its color

# A name, what differs from PLAIN, what to regenerate (`REGIONS` in recipes/avatars/artwork.py), what should be there.
EXAMPLES: tuple[tuple[str, dict[str, str], str, str], ...] = (
    (
        "1-brown-bob-and-a-hoodie",
        {"top": "bob", "clothing": "hoodie", "clothing_colour": "yellow", "skin": "tan", "background": "blue"},
        *("eyes", "sunglasses"),
    ),
    (
        "2-short-hair-and-a-beard",
        {"hair_colour": "black", "facial_hair": "beard", "facial_hair_colour": "black", "clothing_colour": "green"}
        | {"background": "orange"},
        *("hair", "long blonde hair"),
    ),
    (
        "3-long-red-hair",
        {"top": "wavy", "hair_colour": "red", "clothing": "v-neck"},
        *("mouth", "tongue out"),
    ),
    (
        "4-bald-with-glasses",
        {"top": "bald", "hair_colour": "grey", "accessory": "glasses", "clothing": "sweater", "clothing_colour": "red"}
        | {"skin": "brown", "background": "yellow"},
        *("hair", "an afro, black hair"),
    ),
    (
        "5-curls-and-overalls",
        {"top": "curly", "hair_colour": "black", "clothing": "overalls", "skin": "dark", "background": "pink"},
        *("clothes", "a red hoodie"),
    ),
    (
        "6-pink-beanie",
        {"top": "beanie", "hat_colour": "pink", "clothing": "graphic", "clothing_colour": "black", "skin": "tan"}
        | {"background": "white"},
        *("background", "a blue background"),
    ),
    (
        "7-grey-bun-and-a-blazer",
        {"top": "bun", "hair_colour": "grey", "clothing": "blazer", "clothing_colour": "white", "skin": "brown"}
        | {"background": "purple"},
        *("chin", "a full beard"),
    ),
    (
        "8-blonde-quiff-and-moustache",
        {"top": "quiff", "hair_colour": "blonde", "facial_hair": "moustache", "facial_hair_colour": "blonde"}
        | {"clothing": "hoodie", "clothing_colour": "grey", "background": "red"},
        *("hair", "a green beanie"),
    ),
)


def mask(avatar: Attributes, region: str) -> np.ndarray:
    """What to paint in order to change a region of an avatar, bool [SIZE, SIZE]; hair with the background around it."""
    if region == "background":
        return background_mask(avatar, SIZE)
    painted = region_mask(region, SIZE)
    if region == "hair":
        painted = painted | background_mask(avatar, SIZE)
        painted[:, :BORDER] = painted[:, -BORDER:] = False
    return painted


def main() -> None:
    """Write all examples."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, values, region, prompt in EXAMPLES:
        avatar = replace(PLAIN, **values)
        save_image(Image.fromarray(render(avatar, SIZE)), FOLDER / f"{name}.png", optimize=True)
        save_image(Image.fromarray(mask(avatar, region)), FOLDER / f"{name}.mask.png", optimize=True)
        write_text(FOLDER / f"{name}.txt", prompt + "\n")


if __name__ == "__main__":
    main()
