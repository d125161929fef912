"""ImageBART as people call it: load, sample, save. It stands above the networks, the sampling and the files."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from imagebart import locate
from imagebart.models.imagebart import ImageBARTModel
from imagebart.sampling.sampler import ChainEvent, Sampler
from imagebart.sampling.steps import KnownTokens
from imagebart.settings import SamplingSettings
from imagebart.weights.folder import save_folder


class ImageBART(ImageBARTModel):
    """A model with what loads it, samples from it and saves it."""

    _sampler: Sampler | None = None

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

        dtype: of the weights: float16, bfloat16, float32, float64. Nothing that the files name is imported or run.
        Raises WeightsError naming the file and what is wrong, and ValueError for an unknown device or dtype.
        """
        return locate.load(source, device, dtype, download, revision, cls)

    def save_pretrained(self, folder: str | PathLike[str], dtype: str = "float32") -> None:
        """Writes config.json and safetensors to a folder; `dtype` is what is stored. Other files are left alone."""
        save_folder(self, folder, dtype)

    def push_to_hub(self, name: str, dtype: str = "float32", revision: str | None = None, private: bool = False) -> str:
        """Writes the model to the Hub as owner/name, on a branch if wanted, with a card; returns the commit's address.

        A folder that has a card, examples and a scorer is sent whole by `imagebart push`. Raises WeightsError.
        """
        from imagebart.published.hub import push_folder  # late: what uses the network takes a quarter of a second

        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, dtype)
            return push_folder(Path(folder), name, revision, private)

    @property
    def sampler(self) -> Sampler:
        """What samples from this model."""
        if self._sampler is None:
            self._sampler = Sampler(self)
        return self._sampler

    def sample(
        self,
        batch_size: int = 1,
        cond: Tensor | None = None,
        start: Tensor | None = None,
        known: Tensor | None = None,
        keep: Tensor | None = None,
        *,
        seed: int | None = None,
        strength: float = 1.0,
        **settings: Any,
    ) -> Tensor:
        """Runs the chain; returns x_0, int64 [B, N]. Arguments as for `stream`.

        settings: as `SamplingSettings` has them: temperature=0.9, top_k=100.
        """
        chosen = SamplingSettings.parse(**settings)
        kept = _known(known, keep)
        state = self.sampler.prepare(batch_size, chosen, cond, start=start, known=kept, strength=strength, seed=seed)
        x = state.x
        for event in self.sampler.stream(state, chosen):
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
    ) -> Iterator[ChainEvent]:
        """Runs the chain, an event a pass of the decoder; the iterator can be closed at any moment.

        cond: conditioning tokens int64 [B, L]. start: x at the first step to run, int64 [B, N]; None: noise or, if that
        step expects less, `known` with as much noise. known, keep: tokens int64 [B, N] and bool [B, N] or [N], True =
        keep the known token; `Sampler.prepare` takes more of them (`KnownTokens`). strength: the noise level to start
        from, over 0, at most 1. seed: row b samples from seed + b. Raises ValueError, before the first event, for what
        does not fit.
        """
        settings, kept = settings or SamplingSettings(), _known(known, keep)
        state = self.sampler.prepare(batch_size, settings, cond, start=start, known=kept, strength=strength, seed=seed)
        return self.sampler.stream(state, settings)


def _known(tokens: Tensor | None, keep: Tensor | None) -> KnownTokens | None:
    if tokens is not None:
        return KnownTokens(tokens, keep)
    if keep is not None:
        raise ValueError("keep was given without known, the tokens to keep")
    return None
