"""How good a model of a folder of images is, measured on those that were held back."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from imagebart.evaluation.image_sampler import ImageSampler
from imagebart.evaluation.metrics import TEST_STEPS, Measure, mean_of, two_sample_test
from imagebart.imaging.figures import sheet
from imagebart.imaging.files import to_images
from imagebart.imaging.masks import preset_array
from imagebart.models.vqgan import psnr

HOLES = {"center box": "center", "lower half": "lower half"}  # presets of masks
COLUMNS = 12  # of the sheet


def spread(numbers: Sequence[int], most: int) -> list[int]:
    """`most` numbers at most, evenly spread over all."""
    count = min(most, len(numbers))
    return [numbers[i * len(numbers) // count] for i in range(count)]


def make_images(sampler: ImageSampler, images: Tensor, texts: Sequence[str], seed: int) -> dict[str, Tensor]:
    """What a model makes of images [B, 3, H, W]: reconstructions, holes filled without a prompt, images of captions."""
    made = {"reconstruction": sampler.reconstruct(images)}
    for name, preset in HOLES.items():
        holes = np.stack([preset_array(preset, sampler.size)] * len(images))
        made[f"{name} filled"] = sampler.edit(images, holes, [None] * len(images), seed)
    takes_prompts = sampler.model.conditioner.kind != "none"
    made["generated images"] = sampler.generate([text if text and takes_prompts else None for text in texts], seed)
    return made


def evaluate_folder(
    images: Tensor, made: Mapping[str, Tensor], test_steps: int = TEST_STEPS, seed: int = 0
) -> Iterator[Measure]:
    """All measures of a model, each as soon as it is known; of the two-sample tests 50 % is best."""
    errors = psnr(images, made["reconstruction"])
    yield Measure("reconstruction: PSNR", *mean_of(errors.tolist()), len(errors), "dB")
    for name, others in made.items():
        interval = two_sample_test(images, others, test_steps, seed)
        yield Measure(f"{name}: two-sample test", *interval, len(images), "%")


def folder_sheet(images: Tensor, made: Mapping[str, Tensor]) -> Image.Image:
    """A row of held-back images, and one of each kind of image made of them."""
    shown, rows = spread(range(len(images)), COLUMNS), {"held back": images, **made}
    return sheet([to_images(row[shown]) for row in rows.values()], images.shape[-1], names=[*rows])
