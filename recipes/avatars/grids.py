"""Grids of a model's pictures to look at: 48 prompts, 24 edits, 24 completions. Seeds are fixed, nothing is chosen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image
from torch import Tensor

from imagebart.avatars.attributes import PLAIN, Attributes
from imagebart.evaluation.image_sampler import ImageSampler
from imagebart.imaging.figures import sheet
from imagebart.imaging.files import to_images
from imagebart.imaging.masks import preset_array
from recipes.avatars.artwork import region_mask, rendered
from recipes.avatars.cases import prompts_file
from recipes.avatars.dataset import sample
from recipes.avatars.evaluation import COMPLETED, SERIES, UPPER

SHOWN = 128  # pixels a side

PROMPTS = tuple(prompts_file("grid").splitlines())


@dataclass(frozen=True)
class Edit:
    """An avatar, the regions to paint, the prompt."""

    before: Attributes
    regions: tuple[str, ...]
    prompt: str


_MAN = replace(PLAIN, facial_hair="beard", clothing="hoodie", clothing_colour="grey", background="blue")
_WOMAN = replace(PLAIN, top="wavy", hair_colour="red", skin="brown", clothing="v-neck", background="white")
_READER = replace(PLAIN, top="bun", hair_colour="grey", accessory="glasses", clothing="blazer", background="purple")
_BALD = replace(PLAIN, top="bald", facial_hair="moustache", skin="dark", clothing_colour="white", background="orange")
_HAT = replace(PLAIN, top="beanie", hat_colour="pink", mouth="serious", skin="tan", clothing_colour="black")

EDITS = (
    Edit(_MAN, ("eyes",), "sunglasses"),
    Edit(_MAN, ("hair",), "red curly hair"),
    Edit(_MAN, ("chin",), "no beard"),
    Edit(_MAN, ("clothes",), "a blazer"),
    Edit(_MAN, ("background",), "yellow background"),
    Edit(_WOMAN, ("hair",), "a blue hat"),
    Edit(_WOMAN, ("hair",), "short black hair"),
    Edit(_WOMAN, ("eyes",), "round glasses"),
    Edit(_WOMAN, ("mouth",), "tongue out"),
    Edit(_WOMAN, ("clothes",), "a green hoodie"),
    Edit(_READER, ("eyes",), "no glasses"),
    Edit(_READER, ("hair",), "black afro"),
    Edit(_READER, ("chin",), "a grey beard"),
    Edit(_READER, ("clothes",), "a red t-shirt"),
    Edit(_READER, ("hair", "background"), "long blonde hair, pink background"),
    Edit(_BALD, ("hair",), "dreadlocks"),
    Edit(_BALD, ("chin",), "a long blonde beard"),
    Edit(_BALD, ("eyes",), "an eyepatch"),
    Edit(_BALD, ("clothes",), "a shirt with a bear"),
    Edit(_HAT, ("hair",), "a green turban"),
    Edit(_HAT, ("hair",), "no hat"),
    Edit(_HAT, ("eyes",), "heart eyes"),
    Edit(_HAT, ("mouth",), "a big smile"),
    Edit(_HAT, ("clothes",), "yellow overalls"),
)


def prompt_sheet(sampler: ImageSampler, prompts: Sequence[str] = PROMPTS) -> Image.Image:
    """A picture of each prompt over its words, eight a row."""
    pictures = to_images(sampler.generate(prompts, seed=0))
    return _sheet([([picture], prompt) for picture, prompt in zip(pictures, prompts, strict=True)], columns=8)


def edit_sheet(sampler: ImageSampler, edits: Sequence[Edit] = EDITS) -> Image.Image:
    """Edits, each as the avatar, the avatar with its mask in magenta, and the result, over the prompt; three a row."""
    before = rendered([edit.before for edit in edits], sampler.size)
    masks = np.stack([np.any([region_mask(r, sampler.size) for r in edit.regions], axis=0) for edit in edits])
    after = sampler.edit(before, masks, [edit.prompt for edit in edits], seed=0)
    shown = zip(_steps(before, masks, after), edits, strict=True)
    return _sheet([(pictures, edit.prompt) for pictures, edit in shown], columns=3)


def completion_sheet(sampler: ImageSampler, count: int = 24) -> Image.Image:
    """Upper halves drawn anew without a prompt, as `edit_sheet` shows edits."""
    before = rendered([sample(COMPLETED + i, SERIES, "train") for i in range(count)], sampler.size)
    masks = np.stack([preset_array(UPPER, sampler.size)] * count)
    after = sampler.edit(before, masks, [None] * count, seed=0)
    return _sheet([(pictures, "") for pictures in _steps(before, masks, after)], columns=3)


def _steps(before: Tensor, masks: np.ndarray, after: Tensor) -> Iterator[list[Image.Image]]:
    """Each picture, with its mask in magenta, and its result."""
    for picture, mask, result in zip(to_images(before), masks, to_images(after), strict=True):
        paint = Image.fromarray((mask * 255).astype(np.uint8))
        tinted = Image.blend(picture, Image.new("RGB", picture.size, "magenta"), 0.5)
        yield [picture, Image.composite(tinted, picture, paint), result]


def _sheet(groups: Sequence[tuple[list[Image.Image], str]], columns: int) -> Image.Image:
    """Groups of pictures in rows, each group over its caption."""
    lines = [groups[i : i + columns] for i in range(0, len(groups), columns)]
    rows = [[picture for pictures, _ in line for picture in pictures] for line in lines]
    return sheet(rows, SHOWN, captions=[[caption for _, caption in line] for line in lines])
