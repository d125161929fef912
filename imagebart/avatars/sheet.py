"""A sheet of all values: one row an attribute, one avatar a value."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from imagebart.avatars.artwork import render
from imagebart.avatars.attributes import HAT_TOPS, VALUES, Attributes

PLAIN = Attributes(
    top="short",
    hair_colour="brown",
    hat_colour="blue",
    facial_hair="none",
    facial_hair_colour="brown",
    accessory="none",
    eyes="open",
    eyebrows="normal",
    mouth="smile",
    clothing="t-shirt",
    clothing_colour="blue",
    graphic="bear",
    skin="fair",
    background="green",
)
"""The avatar whose values the sheet changes one at a time."""

# What must be so for an attribute to show.
SHOWING = {
    "hat_colour": {"top": HAT_TOPS[0]},
    "facial_hair_colour": {"facial_hair": "beard"},
    "graphic": {"clothing": "graphic"},
}


def contact_sheet(size: int = 96, attributes: Sequence[str] = tuple(VALUES)) -> Image.Image:
    """Draw every value of some attributes, named: RGB, a row an attribute, `size` pixels an avatar."""
    caption = 14
    label = 120
    columns = max(len(VALUES[name]) for name in attributes)
    sheet = Image.new("RGB", (label + columns * size, len(attributes) * (size + caption)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, name in enumerate(attributes):
        top = row * (size + caption)
        pen.text((4, top + size // 2), name.replace("_", " "), fill="black")
        for column, value in enumerate(VALUES[name]):
            avatar = Attributes(**{**PLAIN.as_dict(), **SHOWING.get(name, {}), name: value})
            left = label + column * size
            sheet.paste(Image.fromarray(render(avatar, size)), (left, top))
            pen.text((left + 2, top + size), value, fill="black")
    return sheet
