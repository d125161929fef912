"""ImageBART: a first stage, what undoes noise step by step, and a conditioner (Esser et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from imagebart.conditioning import Conditioner
from imagebart.diffusion import Schedule
from imagebart.errors import InputError
from imagebart.models.denoiser import Denoiser, check_color_hint_grid
from imagebart.models.stages import Stage
from imagebart.models.text_encoder import TextEncoder
from imagebart.models.vqgan import FirstStage
from imagebart.settings import SamplingSettings

if TYPE_CHECKING:
    from imagebart.sampling.sampler import ChainEvent, Sampler

SCALES = 2  # of a denoiser, where nothing else is said


@dataclass(frozen=True)
class About:
    """What people are told of a model, and the settings it is best used with."""

    name: str = ""
    knows: str = ""  # what its training pictures show, in plain words: "avatars"
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    # Words to add to a prompt, by what they describe: {"glasses": ("sunglasses", "no glasses")}.
    suggestions: dict[str, tuple[str, ...]] = field(default_factory=dict)


class ImageBART(nn.Module):
    """The whole model: N tokens a picture, K different ones.

    Either it has stages, one for each step, `stages[t - 1]` being p(x_{t-1} | x_t) of its schedule, as the published
    models have; or one denoiser for all noise rates, with no schedule of its own.
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
        self.schedule = schedule or Schedule.geometric(len(self.stages) or self.about.sampling.scales or SCALES)
        self.precision: Literal["exact", "rounded"] = "exact"  # what may be done to weights while drawing
        self._sampler: Sampler | None = None
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

    @classmethod
    def from_pretrained(
        cls,
        source: str | PathLike[str],
        device: str = "cpu",
        dtype: str = "float32",
        download: bool = False,
        revision: str | None = None,
    ) -> ImageBART:
        """Loads a folder written by `save_pretrained` or one of published files, a published model, or owner/name.

        The last is a model on the Hub, and revision its branch, tag or commit. download: a published model that is not
        here is fetched and converted, after saying how large it is.

        dtype: float16, bfloat16, float32, float64; or auto, the fastest without visible loss: see `weights.load`.
        Nothing that the files name is imported or run. Raises WeightsError naming the file and what is wrong.
        """
        from imagebart.weights import load

        return load(source, device, dtype, download, revision)

    def save_pretrained(self, folder: str | PathLike[str], dtype: str = "float32") -> None:
        """Writes config.json and safetensors to a folder; `dtype` is what is stored."""
        from imagebart.weights import save

        save(self, folder, dtype)

    def push_to_hub(self, name: str, dtype: str = "float32", revision: str | None = None, private: bool = False) -> str:
        """Writes the model to the Hub as owner/name, on a branch if wanted, with a card; returns the commit's address.

        A folder that has a card, examples and a scorer is sent whole by `imagebart push`.
        """
        from imagebart.weights import push

        return push(self, name, dtype, revision, private)

    @property
    def sampler(self) -> Sampler:
        """What draws from this model."""
        from imagebart.sampling.sampler import Sampler

        if self._sampler is None:
            self._sampler = Sampler(self)
        return self._sampler

    @property
    def tokens(self) -> int:
        """N, tokens a picture."""
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
    def text(self) -> TextEncoder | None:
        """What reads prompts, of the denoiser or the finest stage; None where there is none."""
        return getattr(self.denoiser or self.stages[0], "text", None)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def scales_of(self, scales: int | None) -> int:
        """T, steps from noise to the picture: as asked for, where the model can; else its own.

        A model of stages has as many as it was trained for; raises InputError for others.
        """
        if self.denoiser is not None:
            return scales or self.about.sampling.scales or SCALES
        if scales not in (None, len(self.stages)):
            raise InputError(f"The number of scales is {scales}; this model was trained for {len(self.stages)}.")
        return len(self.stages)

    def sample(
        self,
        batch_size: int = 1,
        cond: Tensor | None = None,
        start: Tensor | None = None,
        known: Tensor | None = None,
        keep: Tensor | None = None,
        *,
        seed: int | None = None,
        start_stage: int | None = None,
        **settings: Any,
    ) -> Tensor:
        """Runs the chain; returns x_0, int64 [B, N]. Arguments as for `stream`.

        settings: as `SamplingSettings` has them, temperature=0.9, top_k=100; its `start` is start_stage here.
        """
        chosen = SamplingSettings(start=start_stage, **settings)
        begun = self.sampler.start(batch_size, chosen, start, known, keep, seed=seed)
        x = begun.x
        for event in self.sampler.stream(begun, cond, chosen):
            x = event.tokens
        return x

    def stream(
        self,
        batch_size: int = 1,
        cond: Tensor | None = None,
        start: Tensor | None = None,
        known: Tensor | None = None,
        keep: Tensor | None = None,
        settings: SamplingSettings | None = None,
        seed: int | None = None,
        strength: float = 1.0,
        noise_level: Tensor | None = None,
        color_hints: Tensor | None = None,
    ) -> Iterator[ChainEvent]:
        """Runs the chain, an event a pass of the decoder; the iterator can be closed at any moment.

        cond: conditioning tokens int64 [B, L]. start: x at the first step to run, int64 [B, N]; drawn where None: noise
        or, if that step expects less, `known` with as many tokens redrawn. known, keep: tokens int64 [B, N] and bool
        [B, N] or [N], True = keep the known token. strength: the share of noise to start from, over 0, at most 1.
        noise_level: of known tokens that are not kept, float [B, N] or [N]; 1 where None. Stages use kept tokens only.
        color_hints: colors of kept parts, bool [B, N, K], for a model that takes them (see `imagebart.inpainting`).
        seed: row b draws from seed + b. Raises ValueError, before the first event, for what does not fit.
        """
        settings = settings or SamplingSettings()
        begun = self.sampler.start(batch_size, settings, start, known, keep, strength, seed, noise_level, color_hints)
        return self.sampler.stream(begun, cond, settings)
