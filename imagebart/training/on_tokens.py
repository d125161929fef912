"""Training the denoiser on tokens alone, and how it does on pictures that were held back."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from imagebart.conditioning import ClassConditioner, Conditioner, NoConditioner, TextConditioner
from imagebart.conditioning.tokenizer import CONTEXT_LENGTH, pieces
from imagebart.diffusion import redraw
from imagebart.imaging.masks import ready
from imagebart.models.denoiser import Denoiser
from imagebart.models.first_stage import FirstStage
from imagebart.models.imagebart import ImageBART
from imagebart.settings import SamplingSettings
from imagebart.training.captioned import text_config
from imagebart.training.config import DenoiserRun, StageShape
from imagebart.training.data import grid
from imagebart.training.denoising import DenoiserTask, denoiser_config
from imagebart.training.follow import Figures
from imagebart.training.loop import Batch
from imagebart.training.regions import unknown_regions
from imagebart.training.tokens import Tokens

SHOWN, HELD = 6, 64  # pictures in a grid; pictures that a figure is of
LEAST_LENGTH = 16  # conditioning tokens a caption
DRAWN = SamplingSettings(top_p=0.95, guidance=2.0, scales=2)


def conditioner_of(kind: str, texts: list[str]) -> Conditioner:
    """What captions ("text") or classes ("class") need: their words, or their names; else nothing."""
    said = [text for text in texts if text]
    if kind == "class" and said:
        return ClassConditioner(tuple(sorted(set(said))), null_class=True)
    if kind == "text" and said:
        longest = max(sum(len(piece.ids) for piece in pieces(text)) for text in set(said))
        return TextConditioner.from_captions(sorted(set(said)), min(max(longest, LEAST_LENGTH), CONTEXT_LENGTH))
    return NoConditioner()


def new_denoiser(first_stage: FirstStage, shape: StageShape, conditioner: Conditioner) -> Denoiser:
    """A denoiser of this shape for the tokens of a first stage; where that sees cells one by one, for cut ones, too."""
    text = text_config(shape, conditioner) if conditioner.kind == "text" else None
    config = denoiser_config(shape, first_stage.config, conditioner, text)
    return Denoiser(replace(config, knows_cut_cells=first_stage.config.encoder == "cells"))


class TokenTask(DenoiserTask):
    """The denoiser on tokens that were made before; only what masks leave of cells that they cut is encoded anew."""

    def __init__(
        self,
        denoiser: Denoiser,
        conditioner: Conditioner,
        first_stage: FirstStage,
        dataset: Tokens,
        held: Tokens,
        run: DenoiserRun,
    ) -> None:
        super().__init__(denoiser, conditioner, first_stage, dataset, run)
        self.held = held

    def tokens(self, batch: Batch) -> Tensor:
        return batch["tokens"]

    def masked(self, batch: Batch, x0: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        if self.first_stage.config.encoder == "cells":
            return super().masked(batch, x0)
        return unknown_regions(len(x0), math.isqrt(x0.shape[1])).float().to(x0.device), x0, None

    @torch.no_grad()
    def sample(self, model: nn.Module) -> Image.Image:
        """Pictures that were held back; their lower halves, their middles drawn anew; and pictures of what they say."""
        assert isinstance(model, Denoiser)
        whole = ImageBART(self.first_stage.to(model.device), model, self.conditioner)
        x0, texts = self.held.middles(SHOWN)
        cond = self._cond(texts)
        side = math.isqrt(x0.shape[1])
        rows = [x0]
        for unknown in (ready(name, side) for name in ("lower half", "centre", "everything")):
            keep = ~torch.from_numpy(unknown).flatten()
            settings = DRAWN if cond is not None and unknown.all() else SamplingSettings(top_p=0.95, scales=2)
            given = cond if unknown.all() else self._cond([""] * len(texts))
            *_, last = whole.stream(len(x0), given, known=x0, keep=keep, settings=settings, seed=0)
            rows.append(last.tokens.cpu())
        pixels = self.first_stage.decode(torch.cat(rows).to(model.device))
        return grid(pixels.float(), columns=len(x0))

    @torch.no_grad()
    def figures(self, model: nn.Module) -> Figures:
        """Mean negative log-likelihood a token of held-back pictures, in nats: with half of them known, and with none.

        The noise is the same each time.
        """
        assert isinstance(model, Denoiser)
        x0, texts = self.held.middles(HELD)
        cond, side = self._cond(texts), math.isqrt(x0.shape[1])
        found: dict[str, list[Any]] = {"loss": [], "half": [], "whole": []}
        for at in range(0, len(x0), 16):
            part = x0[at : at + 16].to(model.device)
            told = None if cond is None else cond[at : at + 16].to(model.device)
            for name, area in (("half", "lower half"), ("whole", "everything")):
                rates = torch.from_numpy(ready(area, side)).flatten().float().expand(len(part), -1).to(model.device)
                c = redraw(part, rates, self.vocab_size, torch.Generator(part.device).manual_seed(at))
                logits = model.logits(part, c, rates, torch.zeros_like(rates), told)
                found[name].append(F.cross_entropy(logits[rates > 0].float(), part[rates > 0], reduction="none"))
        values = {name: float(torch.cat(parts).mean()) for name, parts in found.items() if parts}
        return {"loss": (values["half"] + values["whole"]) / 2, **values}

    def _cond(self, texts: list[str]) -> Tensor | None:
        return self.conditioner.encode(list(texts)).tokens if self.conditioner.length else None
