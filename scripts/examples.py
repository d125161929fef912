"""Renders the page's examples into assets/examples: avatars, a mask for each, and a prompt.

The artwork is by Pablo Stanley, see assets/README.md.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from imagebart.avatars.artwork import render
from imagebart.avatars.attributes import Attributes
from imagebart.avatars.regions import region_mask
from imagebart.files import write_text
from imagebart.images import save_image

FOLDER = Path(__file__).resolve().parent.parent / "assets" / "examples"
SIZE = 256  # twice what the shipped model works on, so that what the mask leaves alone stays crisp

PLAIN = {
    "hat_colour": "blue",
    "facial_hair": "none",
    "facial_hair_colour": "brown",
    "accessory": "none",
    "eyes": "open",
    "eyebrows": "normal",
    "mouth": "smile",
    "graphic": "bear",
}
EXAMPLES: dict[str, dict[str, str]] = {
    "1-brown-bob-and-a-hoodie": {
        "top": "bob",
        "hair_colour": "brown",
        "clothing": "hoodie",
        "clothing_colour": "yellow",
        "skin": "tan",
        "background": "blue",
    },
    "2-short-hair-and-a-beard": {
        "top": "short",
        "hair_colour": "black",
        "facial_hair": "beard",
        "facial_hair_colour": "black",
        "clothing": "t-shirt",
        "clothing_colour": "green",
        "skin": "fair",
        "background": "orange",
    },
    "3-long-red-hair": {
        "top": "wavy",
        "hair_colour": "red",
        "clothing": "v-neck",
        "clothing_colour": "blue",
        "skin": "fair",
        "background": "green",
    },
    "4-bald-with-glasses": {
        "top": "bald",
        "hair_colour": "grey",
        "accessory": "glasses",
        "clothing": "sweater",
        "clothing_colour": "red",
        "skin": "brown",
        "background": "yellow",
    },
    "5-curls-and-overalls": {
        "top": "curly",
        "hair_colour": "black",
        "clothing": "overalls",
        "clothing_colour": "blue",
        "skin": "dark",
        "background": "pink",
    },
    "6-pink-beanie": {
        "top": "beanie",
        "hair_colour": "brown",
        "hat_colour": "pink",
        "clothing": "graphic",
        "clothing_colour": "black",
        "skin": "tan",
        "background": "white",
    },
    "7-grey-bun-and-a-blazer": {
        "top": "bun",
        "hair_colour": "grey",
        "clothing": "blazer",
        "clothing_colour": "white",
        "skin": "brown",
        "background": "purple",
    },
    "8-blonde-quiff-and-moustache": {
        "top": "quiff",
        "hair_colour": "blonde",
        "facial_hair": "moustache",
        "facial_hair_colour": "blonde",
        "clothing": "hoodie",
        "clothing_colour": "grey",
        "skin": "fair",
        "background": "red",
    },
}

# What to redraw in each example, a region of imagebart/avatars/regions.py, and what should be there.
TASKS = {
    "1-brown-bob-and-a-hoodie": ("eyes", "sunglasses"),
    "2-short-hair-and-a-beard": ("hair", "long blonde hair"),
    "3-long-red-hair": ("mouth", "tongue out"),
    "4-bald-with-glasses": ("hair", "an afro, black hair"),
    "5-curls-and-overalls": ("clothes", "a red hoodie"),
    "6-pink-beanie": ("background", "a blue background"),
    "7-grey-bun-and-a-blazer": ("chin", "a full beard"),
    "8-blonde-quiff-and-moustache": ("hair", "a green beanie"),
}


def main() -> None:
    """Write all examples."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, values in EXAMPLES.items():
        pixels = render(Attributes(**{**PLAIN, **values}), SIZE)
        save_image(Image.fromarray(pixels), FOLDER / f"{name}.png", optimize=True)
        region, prompt = TASKS[name]
        save_image(Image.fromarray(region_mask(region, SIZE)), FOLDER / f"{name}.mask.png", optimize=True)
        write_text(FOLDER / f"{name}.txt", prompt + "\n")


if __name__ == "__main__":
    main()
