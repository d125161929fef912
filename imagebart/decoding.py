"""Drawing the tokens of one stage in raster order.

Tokens that the mask keeps are never drawn: runs of them are fed in one forward together with the next unknown token,
and nothing is computed after the last unknown one. So a stage takes as many forwards as it has tokens to draw.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from imagebart.settings import SamplingSettings
from imagebart.stage import Stage


@dataclass(frozen=True)
class Condition:
    """Conditioning tokens [B, L] and those of an absent condition, for guidance; None where a model has none."""

    cond: Tensor | None
    null: Tensor | None


def gumbel_noise(shape: tuple[int, ...], generators: list[torch.Generator]) -> Tensor:
    """Gumbel noise [B, *shape], row b from generator b: a row's draws do not depend on the rows beside it."""
    rows = [torch.empty(shape).exponential_(generator=generator) for generator in generators]
    return -torch.stack(rows).log()


def filter_logits(logits: Tensor, settings: SamplingSettings) -> Tensor:
    """Temperature, top-k and top-p: logits [..., K] -> float32 [..., K], excluded tokens at -inf."""
    logits = logits.float() / settings.temperature
    if settings.top_k is not None and settings.top_k < logits.shape[-1]:
        least = logits.topk(settings.top_k).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if settings.top_p is not None and settings.top_p < 1:
        ordered, order = logits.softmax(-1).sort(descending=True)
        before = ordered.cumsum(-1) - ordered  # the likeliest token always stays
        excluded = (before >= settings.top_p).scatter(-1, order, before >= settings.top_p)
        logits = logits.masked_fill(excluded, -torch.inf)
    return logits


def draw(logits: Tensor, noise: Tensor, settings: SamplingSettings) -> Tensor:
    """Draws from softmax(filtered logits) by the Gumbel-max trick: logits, noise [..., K] -> tokens [...]."""
    return (filter_logits(logits, settings) + noise).argmax(-1)


class GuidedStage:
    """A stage under classifier-free guidance: null + guidance (cond - null), in one batch of twice the size.

    With guidance 1, or without a condition, the stage itself.
    """

    def __init__(self, stage: Stage, c: Tensor, condition: Condition, guidance: float) -> None:
        self.stage, self.guidance = stage, guidance
        cond = condition.cond
        self.guided = guidance != 1 and cond is not None and cond.shape[1] > 0
        if self.guided:
            if condition.null is None:
                raise ValueError("guidance needs a model that was trained with its condition dropped at random")
            assert cond is not None
            c, cond = torch.cat([c, c]), torch.cat([cond, condition.null])
        self.state = stage.start(c, cond)

    def advance(self, x: Tensor, position: int) -> Tensor:
        """Logits [B, K] at a position, given x [B, N] before it."""
        if not self.guided:
            return self.stage.advance(self.state, x, position)
        with_cond, without = self.stage.advance(self.state, torch.cat([x, x]), position).float().chunk(2)
        return without + self.guidance * (with_cond - without)


@torch.no_grad()
def decode_stage(
    stage: Stage,
    c: Tensor,
    x: Tensor,
    keep: Tensor,
    condition: Condition,
    settings: SamplingSettings,
    noise: Tensor,
) -> Iterator[Tensor]:
    """Draws x_{t-1} given x_t = c; yields x [B, N] after every token drawn.

    x int64 [B, N] holds the known tokens where keep [B, N] is true, anything elsewhere; noise is Gumbel [B, N, K].
    A position is drawn if any row needs it; rows that keep it are left alone. The yielded tensors are the
    caller's to keep.
    """
    x = x.clone()
    unknown = (~keep).any(0).nonzero()[:, 0].tolist()
    if not unknown:
        return
    guided = GuidedStage(stage, c, condition, settings.guidance)
    for position in unknown:
        logits = guided.advance(x, position)
        tokens = draw(logits, noise[:, position], settings)
        x[:, position] = torch.where(keep[:, position], x[:, position], tokens)
        yield x.clone()
