"""The part of an image that a prompt is about, and what an image shows, on a tiny model that knows where hats go."""

import numpy as np
import pytest
import torch
from fake_models import HAT_TOKENS, hat_model
from PIL import Image
from tiny_models import TOKENS, tiny_model, tiny_pipeline, tiny_staged_model
from torch import Tensor

from imagebart import InputError
from imagebart.fitting import COMPLETE_PROMPT_GUIDANCE
from imagebart.imaging.masks import preset
from imagebart.pipeline import Pipeline
from imagebart.sampling.inpainting import NEIGHBOR_WEIGHT, THRESHOLD, distances, threshold

MODEL = tiny_model()
KNOWN = torch.randint(24, (1, TOKENS), generator=torch.Generator().manual_seed(1))


def apart(asked: str | None, instead: str | None, seed: int = 0) -> Tensor:
    cond, other = (MODEL.conditioner.encode([prompt]).tokens for prompt in (asked, instead))
    return distances(MODEL.denoiser, KNOWN, cond, other, seed)  # type: ignore[arg-type]


def test_the_same_words_are_no_distance_apart_and_others_are_both_ways() -> None:
    assert apart("red hair", "red hair").max() < 1e-3
    there = apart("red hair", "a hat")
    assert there.shape == (TOKENS,) and 0.01 < there.max() <= 1
    assert torch.allclose(there, apart("a hat", "red hair"), atol=1e-3)
    assert torch.equal(there, apart("red hair", "a hat")) and not torch.allclose(there, apart("red hair", "a hat", 4))


def test_a_distance_is_hellingers() -> None:
    """Of two predictions that are known: uniform over all 24 codes, and over the first 12."""

    class Known(torch.nn.Module):
        config = MODEL.denoiser.config  # type: ignore[union-attr]

        def logits(self, x_s: Tensor, x_t: Tensor, noise_t: Tensor, noise_s: Tensor, cond: Tensor) -> Tensor:
            assert (noise_t > 0).all() and torch.equal(x_s, x_t)
            half = torch.where(torch.arange(24) < 12, 0.0, -1e9)
            return torch.where(cond[:, :1, None] > 0, half, 0.0).expand(len(x_s), TOKENS, 24)

    found = distances(Known(), KNOWN, torch.ones(1, 2).long(), torch.zeros(1, 2).long())  # type: ignore[arg-type]
    assert found.tolist() == pytest.approx([(1 - 0.5**0.5) ** 0.5] * TOKENS, abs=1e-4)


def test_a_place_is_where_distances_and_those_beside_them_are_large() -> None:
    distance = torch.rand(9, 7) * 2 * THRESHOLD
    around = np.array([NEIGHBOR_WEIGHT, 1, NEIGHBOR_WEIGHT])
    weights, padded = np.outer(around, around) / around.sum() ** 2, np.pad(distance.numpy(), 1, mode="edge")
    expected = [[(padded[y : y + 3, x : x + 3] * weights).sum() > THRESHOLD for x in range(7)] for y in range(9)]
    assert threshold(distance).tolist() == expected and 0 < np.mean(expected) < 1


# The same in a pipeline


class Scorer:
    """Sees a hat in light images, and nothing for sure in dark ones; to a prompt it adds what else there is."""

    def __init__(self, rest: str = "") -> None:
        self.rest = rest

    def score(self, images: Tensor, prompt: str) -> Tensor:
        return images.mean((1, 2, 3))

    def describe(self, image: Tensor) -> str | None:
        return "a hat" if image.mean() > 0 else None

    def contrast(self, image: Tensor, prompt: str) -> tuple[str, str] | None:
        return None if image.mean() <= 0 else (prompt + self.rest, "a hat")


LIGHT, DARK = Image.new("RGB", (32, 32), "white"), Image.new("RGB", (32, 32))


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return Pipeline(hat_model(), scorer=Scorer())


@pytest.mark.parametrize("size", [(32, 32), (45, 61), (1000, 1003)], ids=str)
def test_the_mask_redraws_the_tokens_found_and_no_others(size: tuple[int, int]) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8))
    mask, side = Pipeline(hat_model()).suggest_mask(image, "a hat"), max(size)
    # In the square around the whole image a pixel is painted where all patches that it touches are.
    edges, hat = torch.arange(side + 1) * 8 / side, HAT_TOKENS
    first, last = edges[:-1].floor().long(), edges[1:].ceil().long() - 1
    wide = hat[first][:, first] & hat[first][:, last] & hat[last][:, first] & hat[last][:, last]
    left, top = ((side - length) // 2 for length in size)
    expected = wide[top : top + size[1], left : left + size[0]].numpy() * 255
    assert mask.mode == "L" and np.array_equal(np.asarray(mask), expected)


def test_words_are_set_against_what_the_image_shows(pipe: Pipeline) -> None:
    """In a light image the scorer sees a hat: to ask for one changes nothing, to ask for none does."""
    with pytest.raises(InputError, match='nothing that "a hat" would change'):
        pipe.suggest_mask(LIGHT, "a hat")
    assert pipe.suggest_mask(LIGHT, "red hair").tobytes() == pipe.suggest_mask(DARK, "a hat").tobytes()


@pytest.mark.parametrize(
    ("prompt", "said"),
    [(None, "Without words"), ("  ", "Without words"), ("zzqx 3", "no word of"), ("red hair", "nothing that")],
)
def test_words_without_a_place_are_a_sentence(pipe: Pipeline, prompt: str | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        pipe.suggest_mask(DARK, prompt)


def test_a_prompt_is_completed_where_the_scorer_is_sure_of_the_rest() -> None:
    pipe = Pipeline(hat_model(), scorer=Scorer(", red hair"))
    best, mask = pipe.defaults.replace(guidance=3.0), preset("everything", LIGHT.size)
    pipe.model.about = pipe.model.about.replace(sampling=best)
    fitted = pipe.fit_mask(LIGHT, mask, "a hat")
    assert (fitted.passes[0].prompt, fitted.settings.guidance) == ("a hat, red hair", COMPLETE_PROMPT_GUIDANCE)
    for other in (pipe.fit_mask(DARK, mask, "a hat"), tiny_pipeline().fit_mask(LIGHT, mask, "a hat", settings=best)):
        assert (other.passes[0].prompt, other.settings) == ("a hat", best)
    assert pipe.fit_mask(LIGHT, mask, None).passes[0].prompt is None
    wanted = best.replace(guidance=5.0)  # somebody wants it so
    assert pipe.fit_mask(LIGHT, mask, "a hat", settings=wanted).settings == wanted


def test_an_image_is_described_where_the_scorer_is_sure(pipe: Pipeline) -> None:
    assert pipe.describe(LIGHT) == "a hat"
    with pytest.raises(InputError, match="knows nothing only and cannot say for sure"):
        pipe.describe(DARK)


def test_models_that_cannot_find_or_describe_say_so() -> None:
    for model in (tiny_model("class"), tiny_staged_model("text")):
        with pytest.raises(InputError, match="cannot find a place by words"):
            Pipeline(model).suggest_mask(DARK, "a hat")
    with pytest.raises(InputError, match="cannot say what an image shows"):
        tiny_pipeline().describe(LIGHT)
