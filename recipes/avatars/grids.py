"""Grids of a model's images: 48 prompts, 24 edits, 24 completions, several models side by side. Nothing is chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from recipes.avatars.evaluation import COMPLETED, SERIES, SHOWN, UPPER, Study, complete

SIDE = 128  # pixels of an image in a grid

PROMPTS = tuple(prompts_file("grid").splitlines())


@dataclass(frozen=True)
class Edit:
    """An avatar, the regions of the mask, the prompt."""

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


def prompt_sheet(sampler: ImageSampler) -> Image.Image:
    """An image of each prompt over its words, eight a row."""
    images = to_images(sampler.generate(PROMPTS, seed=0))
    return _captioned([([image], prompt) for image, prompt in zip(images, PROMPTS, strict=True)], columns=8)


def edit_sheet(sampler: ImageSampler) -> Image.Image:
    """Edits, each as the avatar, the avatar with its mask in magenta, and the result, over the prompt; three a row."""
    before = rendered([edit.before for edit in EDITS], sampler.size)
    masks = np.stack([np.any([region_mask(r, sampler.size) for r in edit.regions], axis=0) for edit in EDITS])
    return _edited(sampler, before, masks, [edit.prompt for edit in EDITS])


def completion_sheet(sampler: ImageSampler, count: int = 24) -> Image.Image:
    """Upper halves generated without a prompt, as `edit_sheet` shows edits."""
    before = rendered([sample(COMPLETED + i, SERIES, "train") for i in range(count)], sampler.size)
    return _edited(sampler, before, np.stack([preset_array(UPPER, sampler.size)] * count), [None] * count)


def comparison_sheet(studies: Mapping[str, Study], prompts: Sequence[str] = PROMPTS[:8]) -> Image.Image:
    """For each model, named at the left, a row of prompted images and a row of completions, seed for seed."""
    avatars = next(iter(studies.values())).avatars(SHOWN, len(prompts))
    given = rendered(avatars, SIDE)
    given[..., : SIDE // 2, :] = 0
    rows = {"lower half given": given}
    for name, study in studies.items():
        rows[f"{name}: prompts"] = study.sampler.generate(list(prompts), study.seed)
        rows[f"{name}: completions"] = complete(study, avatars)
    return sheet([to_images(images) for images in rows.values()], SIDE, names=list(rows))


def _edited(sampler: ImageSampler, before: Tensor, masks: np.ndarray, prompts: Sequence[str | None]) -> Image.Image:
    groups = []
    after = to_images(sampler.edit(before, masks, prompts, seed=0))
    for image, mask, result, prompt in zip(to_images(before), masks, after, prompts, strict=True):
        tinted = Image.blend(image, Image.new("RGB", image.size, "magenta"), 0.5)
        masked = Image.composite(tinted, image, Image.fromarray((mask * 255).astype(np.uint8)))
        groups.append(([image, masked, result], prompt or ""))
    return _captioned(groups, columns=3)


def _captioned(groups: Sequence[tuple[list[Image.Image], str]], columns: int) -> Image.Image:
    """Groups of images in rows, each group over its caption."""
    lines = [groups[i : i + columns] for i in range(0, len(groups), columns)]
    rows = [[image for images, _ in line for image in images] for line in lines]
    return sheet(rows, SIDE, captions=[[caption for _, caption in line] for line in lines])
