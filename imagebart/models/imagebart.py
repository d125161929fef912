"""The networks of an ImageBART model: a first stage, a denoiser or stages, and a conditioner (Esser et al. 2021)."""

from collections.abc import Sequence
from typing import Annotated, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from imagebart.core.errors import InputError
from imagebart.core.settings import SamplingSettings, Settings
from imagebart.models.denoiser import Denoiser, Stage, StageConfig, check_color_hint_grid
from imagebart.models.diffusion import Schedule
from imagebart.models.transformer import TextEncoder
from imagebart.models.vqgan import FirstStage
from imagebart.text.conditioners import ClassConditioner, Conditioner, NoConditioner

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
    in_domain_psnr: float = 17.0  # dB of encode and decode, under which an image is unlike the training images


class ImageBARTModel(nn.Module):
    """The networks of a model: N tokens an image, K different ones. See `imagebart.model.ImageBART`.

    Either it has stages, one for each step, `stages[t - 1]` being p(x_{t-1} | x_t) of its schedule, as the published
    models have; or one denoiser for all noise levels, with which T can be chosen. While it is trained it may lack
    networks (`lacks`): then `first_stage` is None, or `stages` are some of the schedule's; `text_encoder` is one that
    no network has yet.
    """

    def __init__(
        self,
        first_stage: FirstStage | None = None,
        network: Denoiser | Sequence[Stage] = (),
        conditioner: Conditioner | None = None,
        about: About | None = None,
        schedule: Schedule | None = None,
        text_encoder: TextEncoder | None = None,
    ) -> None:
        super().__init__()
        self.first_stage: FirstStage = first_stage  # type: ignore[assignment]
        self.text_encoder = text_encoder
        self.denoiser = network if isinstance(network, Denoiser) else None
        stages = nn.ModuleList([] if isinstance(network, Denoiser) else network)
        self.stages: Sequence[Stage] = stages  # type: ignore[assignment]
        self.conditioner = conditioner or NoConditioner()
        self.about = about or About()
        self.schedule = schedule or Schedule.geometric(len(self.stages) or self.about.sampling.scales or DEFAULT_SCALES)
        self._check()
        self.eval().requires_grad_(False)

    def _check(self) -> None:
        """Raises ValueError where the networks do not fit each other, the conditioner or the schedule."""
        networks = [self.denoiser.config] if self.denoiser is not None else [stage.config for stage in self.stages]
        for config in networks:
            name = f"stage {config.t}" if isinstance(config, StageConfig) else "the denoiser"
            if self.first_stage is not None and config.vocab_size != self.vocab_size:
                raise ValueError(f"{name} was made for {config.vocab_size} codes, expected {self.vocab_size}")
            if config.cond_length != (length := self.conditioner.length):
                raise ValueError(f"{name} has cond_length {config.cond_length}, expected the conditioner's {length}")
        if self.first_stage is not None:
            check_color_hint_grid(self.color_hint_grid, self.first_stage.config)
        stages, times = [stage.config for stage in self.stages], [stage.config.t for stage in self.stages]
        if times != sorted(set(times) & set(range(1, self.schedule.stages + 1))):
            raise ValueError(f"stages are for t = {times}, expected ascending ones of 1 to {self.schedule.stages}")
        for stage in stages:
            beta, tokens = self.schedule.betas[stage.t - 1], stage.decoder.vocab_in
            if stage.beta != beta:
                raise ValueError(f"stage {stage.t} has beta {stage.beta}, expected the schedule's {beta}")
            if stage.start_token >= tokens:
                raise ValueError(f"stage {stage.t} has the start_token {stage.start_token}, expected one of {tokens}")

    def lacks(self) -> str | None:
        """What a model needs before it can make images; None of a whole one."""
        if self.first_stage is None:
            return "a first stage"
        if self.denoiser is None and len(self.stages) < self.schedule.stages:
            return "a denoiser, or all stages of its schedule"
        return None

    @property
    def tokens(self) -> int:
        """N, tokens of an image."""
        return (self.denoiser or self.stages[0]).config.tokens

    @property
    def vocab_size(self) -> int:
        """K, different tokens."""
        return self.first_stage.config.vocab_size

    @property
    def color_hint_grid(self) -> int:
        """P: color hints of P x P parts of a patch (see `imagebart.sampling.inpainting`); 0: none."""
        return 0 if self.denoiser is None else self.denoiser.config.color_hint_grid

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of a class model's classes; () for others."""
        return self.conditioner.names if isinstance(self.conditioner, ClassConditioner) else ()

    @property
    def text(self) -> TextEncoder | None:
        """The text encoder of the denoiser or the finest stage, if any."""
        network = self.denoiser or (self.stages[0] if self.stages else None)
        return getattr(network, "text", self.text_encoder)

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
        """T: as given, else the model's default. Raises InputError for another number than that of a model's stages."""
        if self.denoiser is not None:
            return scales or self.about.sampling.scales or DEFAULT_SCALES
        if scales not in (None, len(self.stages)):
            raise InputError(f"The number of scales is {scales}; this model was trained for {len(self.stages)}.")
        return len(self.stages)
