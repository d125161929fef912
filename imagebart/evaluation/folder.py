"""How good a model of a folder of images is, measured on those that were held back."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image
from torch import Tensor

from imagebart.evaluation.image_sampler import ImageSampler
from imagebart.evaluation.metrics import TEST_STEPS, Measure, mean_of, two_sample_test
from imagebart.imaging.figures import sheet
from imagebart.imaging.files import to_images
from imagebart.imaging.masks import preset_array
from imagebart.models.vqgan import psnr
from imagebart.training.data import ImageStore

HOLES = {"center box": "centre", "lower half": "lower half"}  # presets of masks
COLUMNS = 12  # of the sheet


@dataclass(frozen=True)
class FolderStudy:
    """A model and the images that it is measured on."""

    sampler: ImageSampler
    store: ImageStore
    samples: int  # held-back images, at most
    seed: int = 0
    test_steps: int = TEST_STEPS  # of each network of the two-sample test

    @cached_property
    def held(self) -> list[int]:
        """The numbers of the held-back images that are measured on: evenly spread over the folder's order."""
        return spread(self.store.index.numbers(True), self.samples)

    @cached_property
    def images(self) -> Tensor:
        """These images, float [B, 3, H, W] in [-1, 1]."""
        return self.store.images(self.held)

    @cached_property
    def made(self) -> dict[str, Tensor]:
        """What the model makes of them: reconstructions, holes filled without a prompt, images of their captions."""
        count, conditioner = len(self.images), self.sampler.model.conditioner
        images = {"reconstruction": self.sampler.reconstruct(self.images)}
        for name, preset in HOLES.items():
            holes = np.stack([preset_array(preset, self.sampler.size)] * count)
            images[f"{name} filled"] = self.sampler.edit(self.images, holes, [None] * count, self.seed)
        texts = [self.store.index.texts[i] for i in self.held]
        prompts = [text if text and conditioner.kind != "none" else None for text in texts]
        images["generated images"] = self.sampler.generate(prompts, self.seed)
        return images


def spread(numbers: list[int], most: int) -> list[int]:
    """`most` numbers at most, evenly spread over all."""
    count = min(most, len(numbers))
    return [numbers[i * len(numbers) // count] for i in range(count)]


def evaluate_folder(study: FolderStudy) -> Iterator[Measure]:
    """All measures of a model, each as soon as it is known; of the two-sample tests 50 % is best."""
    errors = psnr(study.images, study.made["reconstruction"])
    yield Measure("reconstruction: PSNR", *mean_of(errors.tolist()), len(errors), "dB")
    for name, images in study.made.items():
        interval = two_sample_test(study.images, images, study.test_steps, study.seed)
        yield Measure(f"{name}: two-sample test", *interval, len(images), "%")


def folder_sheet(study: FolderStudy) -> Image.Image:
    """A row of held-back images, and one of each kind of image made of them."""
    shown = spread(list(range(len(study.images))), COLUMNS)
    rows = {"held back": study.images, **study.made}
    return sheet([to_images(images[shown]) for images in rows.values()], study.sampler.size, names=[*rows])
