"""The networks of an ImageBART model: a first stage, a denoiser or stages, and a conditioner (Esser et al. 2021)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from imagebart.diffusion import Schedule
from imagebart.errors import InputError
from imagebart.models.denoiser import Denoiser, check_color_hint_grid
from imagebart.models.stages import Stage
from imagebart.models.text_encoder import TextEncoder
from imagebart.models.vqgan import FirstStage
from imagebart.settings import SamplingSettings, Settings
from imagebart.text.conditioners import ClassConditioner, Conditioner

Model = TypeVar("Model", bound="ImageBARTModel")
DEFAULT_SCALES = 2  # of a denoiser


class About(Settings):
    """A model's description for people, and the settings that it is best used with."""

    name: str = ""
    knows: str = ""  # what its training images show: "avatars"
    sampling: SamplingSettings = SamplingSettings()
    # Words to add to a prompt, by what they describe: {"glasses": ("sunglasses", "no glasses")}.
    suggestions: dict[str, tuple[str, ...]] = {}
    surprises: Annotated[int, Field(ge=1, le=20)] = 4  # suggestions in a random prompt, at most
    frame: Annotated[int, Field(ge=0, le=64)] = (
        0  # patches along the box in which edits are drawn, see `fitting`; 0: none
    )
    in_domain_psnr: float = 17.0  # dB of encode and decode, under which an image is unlike the training images


class ImageBARTModel(nn.Module):
    """The networks of a model: N tokens an image, K different ones. See `imagebart.model.ImageBART`.

    Either it has stages, one for each step, `stages[t - 1]` being p(x_{t-1} | x_t) of its schedule, as the published
    models have; or one denoiser for all noise levels, with which T can be chosen.
    """

    def __init__(
        self,
        first_stage: FirstStage,
        network: Denoiser | Sequence[Stage],
        conditioner: Conditioner,
        about: About | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__()
        self.first_stage = first_stage
        self.denoiser = network if isinstance(network, Denoiser) else None
        self.stages: Sequence[Stage] = nn.ModuleList(  # type: ignore[assignment]
            [] if isinstance(network, Denoiser) else network
        )
        self.conditioner = conditioner
        self.about = about or About()
        self.schedule = schedule or Schedule.geometric(len(self.stages) or self.about.sampling.scales or DEFAULT_SCALES)
        self._check()
        self.eval().requires_grad_(False)

    def _check(self) -> None:
        """Raises ValueError where the parts do not fit each other."""
        codes = self.first_stage.config.vocab_size
        if self.denoiser is not None:
            if self.denoiser.config.vocab_size != codes:
                raise ValueError(f"the denoiser was made for {self.denoiser.config.vocab_size} codes, expected {codes}")
            check_color_hint_grid(self.color_hint_grid, self.first_stage.config)
            return
        if len(self.stages) != self.schedule.stages:
            raise ValueError(f"{len(self.stages)} stages, but the schedule has {self.schedule.stages} betas")
        for t, stage in enumerate(self.stages, 1):
            if stage.config.t != t or stage.config.vocab_size != codes:
                raise ValueError(
                    f"stage {t} was made for t = {stage.config.t} and {stage.config.vocab_size} codes, "
                    f"expected t = {t} and the first stage's {codes}"
                )

    @property
    def tokens(self) -> int:
        """N, tokens of an image."""
        return (self.denoiser or self.stages[0]).config.tokens

    @property
    def vocab_size(self) -> int:
        """K, different tokens."""
        return self.first_stage.config.vocab_size

    @property
    def cond_length(self) -> int:
        """Conditioning tokens."""
        return (self.denoiser or self.stages[0]).config.cond_length

    @property
    def color_hint_grid(self) -> int:
        """P: color hints of P x P parts of a patch (see `imagebart.inpainting`); 0: none."""
        return 0 if self.denoiser is None else self.denoiser.config.color_hint_grid

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of a class model's classes; () for others."""
        return self.conditioner.names if isinstance(self.conditioner, ClassConditioner) else ()

    @property
    def text(self) -> TextEncoder | None:
        """The text encoder of the denoiser or the finest stage, if any."""
        return getattr(self.denoiser or self.stages[0], "text", None)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def condition(self, tokens: Tensor, settings: SamplingSettings) -> tuple[Tensor | None, SamplingSettings]:
        """The conditioning tokens [B, L], if the model has any, and settings without guidance if no prompt is there."""
        if self.conditioner.length == 0:
            return None, settings
        if settings.guidance != 1 and torch.equal(tokens, self.conditioner.unconditional(len(tokens))):
            settings = settings.replace(guidance=1.0)  # nothing to guide towards
        return tokens, settings

    def scales_of(self, scales: int | None) -> int:
        """T, the steps from noise to the image: as given, else the model's default.

        Raises InputError for another number than that of a model's stages.
        """
        if self.denoiser is not None:
            return scales or self.about.sampling.scales or DEFAULT_SCALES
        if scales not in (None, len(self.stages)):
            raise InputError(f"The number of scales is {scales}; this model was trained for {len(self.stages)}.")
        return len(self.stages)


# Copies of weights are safe from whatever happens to their files. Those that would take more than a quarter of memory,
# as of the largest published model, 12 GB, on a machine of 16, are not made: the weights are mapped, and the system
# may drop them and read them again. Packed weights are copies, of as many stages as fit into the same share.

MEMORY_SHARE = 0.25  # that copies may take
MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def too_large(modules: Iterable[nn.Module], dtype: torch.dtype) -> bool:
    """Whether copies of these modules' weights, as numbers of a type, would take too much memory."""
    numbers = sum(p.numel() for module in modules for p in module.parameters())
    return numbers * dtype.itemsize > MEMORY_SHARE * available_memory()


def available_memory() -> int:
    """Bytes that this process can have: the machine's, or its container's where that is less."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if hasattr(os, "sysconf") else [8 << 30]
    for path in MEMORY_LIMITS:
        text = path.read_text().strip() if path.is_file() else "max"
        sizes += [int(text)] if text.isdigit() else []
    return min(sizes)
