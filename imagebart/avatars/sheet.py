"""An avatar to begin from, and what must be so for each attribute to show."""

from __future__ import annotations

from imagebart.avatars.attributes import HAT_TOPS, Attributes

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

# What must be so for an attribute to show.
SHOWING = {
    "hat_colour": {"top": HAT_TOPS[0]},
    "facial_hair_colour": {"facial_hair": "beard"},
    "graphic": {"clothing": "graphic"},
}
