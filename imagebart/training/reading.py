"""A second lesson for stages with captions: say, halfway up the decoder, what the caption claims.

The picture's tokens teach words slowly: a colour named once moves a few of 256 tokens. Where a data set knows what
its captions claim, a linear head on the last position before the picture learns it directly, from the layer in the
middle, so that the layers above can use what was read. The head is not part of the stage and is not shipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from imagebart.stage import Stage

HEAD = "reading.safetensors"


def reading_layers(depth: int) -> int:
    """How many of a decoder's layers read captions; those above use what was read."""
    return max(depth // 2, 1)


class ReadingStage(nn.Module):
    """A stage in training with its reading head: `groups` are the numbers of values of each thing to read."""

    def __init__(self, stage: Stage, groups: Sequence[int]) -> None:
        super().__init__()
        self.stage = stage
        width = stage.config.decoder.width
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, sum(groups)))

    def read(self, cond: Tensor) -> Tensor:
        """What is read from captions alone, int64 [B, cond_length] -> logits [B, sum(groups)]."""
        decoder = self.stage.decoder
        tokens = self.stage.prefix(len(cond), cond)
        x = decoder.token_embedding(tokens) + decoder.position_embedding[: tokens.shape[1]]
        phrases = self.stage.read_phrases(tokens)
        x = x if phrases is None else x + phrases
        for block in decoder.blocks[: reading_layers(len(decoder.blocks))]:
            x = block(x, None, True, None)
        return self.head(x[:, -1])

    def forward(self, x: Tensor, c: Tensor, cond: Tensor) -> tuple[Tensor, Tensor]:
        """The stage's logits [B, N, K], and what was read from the caption, logits [B, sum(groups)]."""
        decoder, seen = self.stage.decoder, []
        middle = decoder.blocks[reading_layers(len(decoder.blocks)) - 1]
        hook = middle.register_forward_hook(lambda module, inputs, output: seen.append(output))
        try:
            logits = self.stage(x, c, cond)
        finally:
            hook.remove()
        last = self.stage.config.cond_length  # the prefix is [t, cond...]
        return logits, self.head(seen[0][:, last])


def save_head(model: ReadingStage, folder: Path) -> None:
    """Writes a reading head beside its stage, for a stage that begins from it and goes on reading."""
    save_file(model.head.state_dict(), folder / HEAD)


def load_head(model: ReadingStage, folder: Path) -> None:
    """Takes over the reading head of the stage in a run's folder, if it has one."""
    if (folder / HEAD).is_file():
        model.head.load_state_dict(load_file(folder / HEAD))


def reading_loss(readings: Tensor, claims: Tensor, groups: Sequence[int]) -> Tensor:
    """Mean negative log-likelihood of what captions claim, over the things that they speak of.

    readings: logits [B, sum(groups)]. claims: bool, the same shape: the values of which a caption would be true;
    all of a group where it says nothing of it. A caption that is left out claims nothing.
    """
    losses, spoken = readings.new_zeros(()), readings.new_zeros(())
    for logits, allowed in zip(readings.float().split(list(groups), 1), claims.split(list(groups), 1), strict=True):
        loss = logits.logsumexp(1) - logits.masked_fill(~allowed, -torch.inf).logsumexp(1)
        losses = losses + loss.sum()
        spoken = spoken + (~allowed).any(1).sum()
    return losses / spoken.clamp(min=1)


def reading_accuracy(readings: Tensor, claims: Tensor, groups: Sequence[int]) -> Tensor:
    """Share of the things spoken of that the likeliest reading gets right: shapes as in `reading_loss`."""
    right, spoken = readings.new_zeros(()), readings.new_zeros(())
    for logits, allowed in zip(readings.split(list(groups), 1), claims.split(list(groups), 1), strict=True):
        said = (~allowed).any(1)
        chosen = F.one_hot(logits.argmax(1), logits.shape[1]).bool()
        right = right + ((chosen & allowed).any(1) & said).sum()
        spoken = spoken + said.sum()
    return right / spoken.clamp(min=1)
