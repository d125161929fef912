"""Images sampled in batches are those that the pipeline samples one by one."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import tiny_model

from imagebart.core.settings import SamplingSettings
from imagebart.evaluation.image_sampler import ImageSampler
from imagebart.imaging.files import to_images
from imagebart.pipeline import Pipeline
from recipes.avatars.artwork import region_mask

SETTINGS = SamplingSettings(guidance=2.0, top_k=5)
PROMPTS = ["a hat", "red hair", "round glasses"]


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return Pipeline(tiny_model())


def difference(a: Image.Image, b: Image.Image) -> int:
    return int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max())


def test_generated_images_are_the_pipelines(pipe: Pipeline) -> None:
    images = to_images(ImageSampler(pipe.model, SETTINGS, batch=2).generate(PROMPTS, seed=5))
    for i, (prompt, image) in enumerate(zip(PROMPTS, images, strict=True)):
        *_, last = pipe.generate(prompt, seed=5 + i, settings=SETTINGS)
        assert difference(last.image, image) <= 1


def test_edited_images_are_the_pipelines(pipe: Pipeline) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    masks = np.stack([region_mask(name, 32) for name in ("eyes", "eyes", "clothes")])
    edited = to_images(ImageSampler(pipe.model, SETTINGS, batch=2).edit(images, masks, PROMPTS, seed=9))
    for i, prompt in enumerate(PROMPTS):
        mask = Image.fromarray((masks[i] * 255).astype(np.uint8))
        *_, last = pipe.edit(Image.fromarray(pixels[i]), mask, prompt, seed=9 + i, settings=SETTINGS, exact=True)
        assert difference(last.image, edited[i]) <= 1
        assert (np.asarray(edited[i])[~masks[i]] == pixels[i][~masks[i]]).all()
        assert (np.asarray(edited[i])[masks[i]] != pixels[i][masks[i]]).any()


def test_without_a_prompt_there_is_nothing_to_guide_towards(pipe: Pipeline) -> None:
    unguided = ImageSampler(pipe.model, SamplingSettings(top_k=5)).generate([None, None], seed=3)
    assert torch.equal(ImageSampler(pipe.model, SETTINGS).generate([None, None], seed=3), unguided)


def test_reconstructions_are_the_first_stages(pipe: Pipeline) -> None:
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    first = pipe.model.first_stage
    expected = first.decode(first.encode(images)).clamp(-1, 1)
    assert torch.allclose(ImageSampler(pipe.model, SETTINGS, batch=2).reconstruct(images), expected, atol=1 / 127)
