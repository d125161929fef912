"""A sampler that knows what every prompt claims, and renders it: what a perfect model would score."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from tiny_models import tiny_model
from torch import Tensor

from imagebart.evaluation.image_sampler import ImageSampler
from imagebart.settings import SamplingSettings
from imagebart.worlds.avatars import VALUES, Attributes
from recipes.avatars.artwork import rendered
from recipes.avatars.cases import EditCase, PromptCase, found
from recipes.avatars.evaluation import sample_claimed


@dataclass(frozen=True)
class Oracle(ImageSampler):
    """Renders an avatar of which a prompt's claims are true; `late`: of the prompt so many places before."""

    cases: tuple[PromptCase, ...] = ()
    edits: tuple[EditCase, ...] = ()
    late: int = 0

    @property
    def size(self) -> int:
        return 128

    def avatars(self, prompts: Sequence[str | None], seed: int) -> list[Attributes]:
        claims = {case.text: case.claims for case in self.cases}
        wanted = [claims[str(prompt)] for prompt in np.roll(np.array(prompts, object), self.late)]
        return [true_of(c, np.random.default_rng((seed, i))) for i, c in enumerate(wanted)]

    def generate(self, prompts: Sequence[str | None], seed: int) -> Tensor:
        return rendered(self.avatars(prompts, seed), self.size)

    def reconstruct(self, images: Tensor) -> Tensor:
        return images

    def edit(self, images: Tensor, masks: np.ndarray, prompts: Sequence[str | None], seed: int) -> Tensor:
        after = []
        for image, mask, prompt in zip(images, masks, prompts, strict=True):
            case = next(c for c in self.edits if c.prompt.text == prompt and (c.mask == mask).all() and same(c, image))
            after.append(changed(case))
        return torch.where(torch.from_numpy(masks)[:, None], rendered(after, self.size), images)


def same(case: EditCase, image: Tensor) -> bool:
    return torch.equal(rendered([case.before], image.shape[-1])[0], image)


def true_of(claims: dict[str, frozenset[str]], random: np.random.Generator) -> Attributes:
    """An avatar of which claims are true and show."""
    for _ in range(10_000):
        avatar = sample_claimed(claims, random)
        if all(found(avatar, claims).values()):
            return avatar
    raise AssertionError(f"no avatar shows {claims}")


def changed(case: EditCase) -> Attributes:
    """The avatar with nothing changed but what the prompt claims."""
    names = [name for name in case.prompt.claims if name in VALUES]
    for values in product(*(sorted(case.prompt.claims[name]) for name in names)):
        kept = {n: getattr(case.before, n) for n in names if getattr(case.before, n) in case.prompt.claims[n]}
        after = replace(case.before, **{**dict(zip(names, values, strict=True)), **kept})
        if all(found(after, case.prompt.claims).values()):
            return after
    raise AssertionError(f"nothing shows {case.prompt}")


def oracle(cases: Sequence[PromptCase] = (), edits: Sequence[EditCase] = (), late: int = 0) -> Oracle:
    return Oracle(tiny_model(), SamplingSettings(), cases=tuple(cases), edits=tuple(edits), late=late)
