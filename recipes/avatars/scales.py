"""The paper's claim in small: one network with T = 1, 2, 3, 4, 8 scales, beside one that draws left to right.

ImageBART, Table 3 and Fig. 14: more scales see more of the picture, and given the lower half of a picture, a
transformer that writes from left to right ("TT", as VQGAN has it) has to write the upper half blindly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from PIL import Image

from imagebart.evaluation.image_sampler import BASELINE, left_to_right, sampling_parameters
from imagebart.evaluation.metrics import Measure
from imagebart.imaging.figures import sheet as drawn_sheet
from imagebart.imaging.files import to_images
from recipes.avatars.artwork import rendered
from recipes.avatars.evaluation import SHOWN, Renders, Study, complete, completions, distance, edits, prompt_accuracy

SCALES = (1, 2, 3, 4, 8)
IMAGES_EACH = 3  # images that `compare` has a model draw, over the samples of its study
COLUMNS = 8  # pictures a row of the sheet


def studies(study: Study, scales: Sequence[int] = SCALES, baseline: Study | None = None) -> dict[str, Study]:
    """A model drawing with each number of scales in turn, after the baseline, by name.

    Raises ValueError for a model that was trained for one number of scales, and for a baseline that sees what follows.
    """
    if study.sampler.model.denoiser is None:
        stages = len(study.sampler.model.stages)
        raise ValueError(f"the model was trained for {stages} scales, expected one that any number can be chosen for")
    found: dict[str, Study] = {}
    if baseline is not None:
        found[BASELINE] = replace(baseline, sampler=left_to_right(baseline.sampler))
    for count in scales:
        settings = replace(study.sampler.settings, scales=count)
        found[f"T = {count}"] = replace(study, sampler=replace(study.sampler, settings=settings))
    return found


def compare(study: Study, renders: Renders) -> Iterator[Measure]:
    """Prompts, distance, completions of the upper half and edits of one model."""
    yield sampling_parameters(study.sampler)
    accuracy, reading = prompt_accuracy(study)
    yield accuracy
    yield from distance(renders, reading.features)
    yield from completions(study)
    yield from edits(study)


def sheet(columns: Mapping[str, Study], prompts: Sequence[str]) -> Image.Image:
    """For each model, named at the left, a row of prompted pictures and a row of completions, seed for seed."""
    avatars = next(iter(columns.values())).avatars(SHOWN, COLUMNS)
    given = rendered(avatars, 128)
    given[..., :64, :] = 0
    rows = [("lower half given", given)]
    for name, study in columns.items():
        rows.append((f"{name}: prompts", study.sampler.generate(list(prompts[:COLUMNS]), study.seed)))
        rows.append((f"{name}: completions", complete(study, avatars)))
    return drawn_sheet([to_images(images) for _, images in rows], 128, names=[name for name, _ in rows])
