"""Grids of a model's images: 48 prompts, 24 edits, 24 completions, several models side by side. Nothing is chosen.

And the page's examples: avatars, a mask for each, and a prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from imagebart.atomic_io import write_text
from imagebart.evaluation.image_sampler import ImageSampler
from imagebart.imaging.figures import sheet
from imagebart.imaging.files import save_image, to_images
from imagebart.imaging.masks import MASK_SUFFIX, preset_array
from imagebart.worlds.avatars import PLAIN, Attributes
from recipes.avatars import data_file
from recipes.avatars.artwork import background_mask, region_mask, render, rendered
from recipes.avatars.dataset import read_values, sample
from recipes.avatars.evaluation import COMPLETED, SERIES, SHOWN, UPPER, Study, complete

SIDE = 128  # pixels of an image in a grid

PROMPTS = tuple(data_file("prompts_grid.txt").splitlines())
BORDER = 8  # pixels at the left and right of the page's examples that are kept, so that the background keeps its color


@dataclass(frozen=True)
class Edit:
    """A named avatar, the regions of the mask, the prompt."""

    name: str
    before: Attributes
    regions: tuple[str, ...]
    prompt: str


def read_edits(name: str) -> Iterator[Edit]:
    """Edits of the recipe's data: an avatar a line, what differs from `PLAIN`, and its edits in lines below."""
    for line in data_file(f"{name}.txt").splitlines():
        first, rest = line.strip().split(": ")
        if not line.startswith(" "):
            title, before = first, replace(PLAIN, **read_values(rest))
        else:
            yield Edit(title, before, tuple(first.split(" + ")), rest)


def prompt_sheet(sampler: ImageSampler) -> Image.Image:
    """An image of each prompt over its words, eight a row."""
    images = to_images(sampler.generate(PROMPTS, seed=0))
    return _captioned([([image], prompt) for image, prompt in zip(images, PROMPTS, strict=True)], columns=8)


def edit_sheet(sampler: ImageSampler) -> Image.Image:
    """Edits, each as the avatar, the avatar with its mask in magenta, and the result, over the prompt; three a row."""
    edits = list(read_edits("edits_grid"))
    before = rendered([edit.before for edit in edits], sampler.size)
    masks = np.stack([np.any([region_mask(r, sampler.size) for r in edit.regions], axis=0) for edit in edits])
    return _edited(sampler, before, masks, [edit.prompt for edit in edits])


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
        rows[f"{name}: completions"] = complete(study, avatars)[1]
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


def write_examples(folder: Path, size: int) -> None:
    """Writes the page's examples: NAME.png, NAME.mask.png and NAME.txt, the prompt, of images of `size` pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    for edit in read_edits("edits_examples"):
        (region,) = edit.regions
        background = background_mask(edit.before, size)
        mask = background if region == "background" else region_mask(region, size)
        if region == "hair":  # with the background around it
            mask = mask | background
            mask[:, :BORDER] = mask[:, -BORDER:] = False
        if region == "chin":  # a beard's sides, but not the eyes between them
            mask[: size // 2, size // 3 : 2 * size // 3] = False
        path = folder / edit.name
        save_image(Image.fromarray(render(edit.before, size)), path.with_suffix(".png"), optimize=True)
        save_image(Image.fromarray(mask), path.with_suffix(MASK_SUFFIX), optimize=True)
        write_text(path.with_suffix(".txt"), edit.prompt + "\n")
