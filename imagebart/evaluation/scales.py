"""The paper's claim in small: models of one, two and three stages side by side, at drawing and at completing.

ImageBART, Table 3 and Fig. 14: given the lower half of a picture, a left-to-right model has to write the upper half
blindly, while a chain of stages sees the lower half from its second stage on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from imagebart.avatars.attributes import VALUES, Attributes
from imagebart.evaluation.avatars import SHOWN, Renders, Study, distance, prompt_accuracy
from imagebart.evaluation.cases import SMALL, found, share_within
from imagebart.evaluation.drawing import rendered
from imagebart.evaluation.intervals import share_of
from imagebart.evaluation.report import Measure, measure
from imagebart.images import to_images

LEAST = 0.1  # the share of an attribute in each half from which the halves have to agree about it
COLUMNS = 8  # pictures a row of the sheet


def compare(study: Study) -> Iterator[Measure]:
    """Prompts, distance and completion of the upper half, without a prompt, of one model."""
    model = study.artist.model
    named = [named for stage in model.stages for named in stage.named_parameters()]
    # The text encoder that reads prompts for all stages draws nothing.
    millions = sum(weights.numel() for name, weights in named if not name.startswith("text.")) / 1e6
    yield Measure("stages", len(model.stages), len(model.stages), len(model.stages), 0)
    yield Measure("weights of the stages, millions", millions, millions, millions, 0)
    accuracy, reading = prompt_accuracy(study)
    yield accuracy
    renders = Renders.of(study)
    yield renders.floor_measure(study)
    yield from distance(renders, reading.features)
    avatars = study.avatars(SHOWN)
    read = study.reader.read(complete(study, avatars))
    yield from distance(renders, read.features, "completion: distance to renders")
    right, asked = [], []
    for avatar, attributes in zip(avatars, read.attributes, strict=True):
        values = avatar.as_dict()
        answers = found(attributes, {name: frozenset({values[name]}) for name in must_agree(avatar)})
        right.append(sum(answers.values()))
        asked.append(len(answers))
    yield measure("completion: attributes that agree with the lower half", share_of(right, asked), len(avatars), "%")


def complete(study: Study, avatars: Sequence[Attributes]) -> Tensor:
    """Renders with their upper half drawn anew: [B, 3, size, size]."""
    mask = upper_half(study.artist.size)
    masks = np.broadcast_to(mask, (len(avatars), *mask.shape)).copy()
    return study.artist.edit(rendered(avatars, study.artist.size), masks, [None] * len(avatars), study.seed)


def upper_half(size: int) -> np.ndarray:
    """True in the upper half: bool [size, size]."""
    return np.arange(size)[:, None].repeat(size, 1) < size // 2


def must_agree(avatar: Attributes) -> list[str]:
    """The attributes of which both halves of the picture show a good part, so that the lower one tells the upper."""
    upper = upper_half(SMALL)
    shares = {name: share_within(avatar, name, upper) for name in VALUES if name in avatar.visible()}
    return [name for name, (least, most) in shares.items() if least >= LEAST and most <= 1 - LEAST]


def sheet(studies: dict[str, Study], prompts: Sequence[str]) -> Image.Image:
    """For each model, named at the left, a row of prompted pictures and a row of completions, seed for seed."""
    avatars = next(iter(studies.values())).avatars(SHOWN, COLUMNS)
    rows = [("lower half given", _grey_above(rendered(avatars, 128)))]
    for name, study in studies.items():
        rows.append((f"{name}: prompts", study.artist.generate(list(prompts[:COLUMNS]), study.seed)))
        rows.append((f"{name}: completions", complete(study, avatars)))
    side, label = 132, 160
    page = Image.new("RGB", (label + COLUMNS * side, len(rows) * side), "white")
    pen = ImageDraw.Draw(page)
    for y, (name, images) in enumerate(rows):
        pen.text((4, y * side + side // 2), name, fill="black")
        for x, picture in enumerate(to_images(images)):
            page.paste(picture.resize((128, 128), Image.Resampling.LANCZOS), (label + x * side, y * side))
    return page


def _grey_above(images: Tensor) -> Tensor:
    shown = images.clone()
    shown[..., : images.shape[-2] // 2, :] = 0
    return shown
