"""Renders the page's examples into checkpoints/avatars/examples: avatars, a mask for each, and a prompt.

The artwork is by Pablo Stanley, see assets/README.md.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from PIL import Image

from imagebart.atomic_io import write_text
from imagebart.avatars.attributes import PLAIN
from imagebart.imaging.files import save_image
from recipes.avatars.artwork import region_mask, render

FOLDER = Path(__file__).resolve().parent.parent / "checkpoints" / "avatars" / "examples"
SIZE = 256  # twice what the shipped model works on, so that what the mask leaves alone stays crisp

# A name, what differs from PLAIN, what to redraw (`REGIONS` in recipes/avatars/artwork.py), what should be there.
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


def main() -> None:
    """Write all examples."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, values, region, prompt in EXAMPLES:
        pixels = render(replace(PLAIN, **values), SIZE)
        save_image(Image.fromarray(pixels), FOLDER / f"{name}.png", optimize=True)
        save_image(Image.fromarray(region_mask(region, SIZE)), FOLDER / f"{name}.mask.png", optimize=True)
        write_text(FOLDER / f"{name}.txt", prompt + "\n")


if __name__ == "__main__":
    main()
