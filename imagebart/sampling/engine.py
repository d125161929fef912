"""What draws a step: its networks with their weights in the order that suits the machine, and what a pass costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from imagebart.memory import too_large
from imagebart.models.transformer import Transformer
from imagebart.sampling.calibration import Cost, calibrate
from imagebart.sampling.kernels import HALF_ROWS, Kernel, Precision, brain, half, kernels, multiplies_bfloat16
from imagebart.sampling.network import Network

WORTH = 0.9  # more threads have to take less than this share of one's time: they wait for each other on a busy machine


@dataclass(frozen=True)
class Engine:
    """A step's networks, and what a pass of the decoder costs here, by the number of threads."""

    decoder: Network
    costs: Mapping[int, Cost]
    kernel: Kernel
    encoder: Network | None = None  # where what is computed once a step may be rounded, too

    def threads(self, rows: int) -> int:
        """On how many threads a pass of so many rows is computed."""
        fewest, most = min(self.costs), max(self.costs)
        faster = self.costs[most].seconds(rows) < WORTH * self.costs[fewest].seconds(rows)
        return most if faster else fewest

    def seconds(self, rows: int) -> float:
        """What a pass of so many rows takes."""
        return self.costs[self.threads(rows)].seconds(rows)

    @property
    def rounds(self) -> bool:
        """Whether what is computed once a step may be rounded to bfloat16, too."""
        return rounds(self.kernel)


def rounds(kernel: Kernel) -> bool:
    """Whether weights in this order allow the rest to be rounded to bfloat16, where that is fast."""
    return kernel is brain and multiplies_bfloat16()


class Engines:
    """The engines of a model's networks, made when they are first needed and again when the weights have changed.

    They are never copied or saved with the model. Where there is no room for another, all others go: a stage's weights
    are ordered again in less time than it takes to draw.
    """

    def __init__(self) -> None:
        self.made: dict[Transformer, tuple[object, Engine]] = {}

    def __deepcopy__(self, memo: object) -> Engines:
        return Engines()

    def __reduce__(self) -> tuple[type[Engines], tuple[()]]:
        return Engines, ()

    def get(self, precision: Precision, decoder: Transformer, encoder: Transformer | None = None) -> Engine:
        """As `engine_of`."""
        parts = [decoder] if encoder is None else [decoder, encoder]
        state = precision, *((p.data_ptr(), p._version) for part in parts for p in part.parameters())
        if self.made.get(decoder, (None,))[0] != state:
            self.made.pop(decoder, None)  # the old order's memory goes before the new one's comes
            if not self.has_room(precision, decoder, encoder):
                self.made.clear()
            self.made[decoder] = state, engine_of(precision, decoder, encoder)
        return self.made[decoder][1]

    def has_room(self, precision: Precision, decoder: Transformer, encoder: Transformer | None = None) -> bool:
        """Whether these networks' ordered weights fit into memory beside those that are there."""
        if decoder.position_embedding.device.type != "cpu":
            return True  # they stay as they are
        rounded = precision == "rounded"
        there = [engine for _, engine in self.made.values()]
        networks = [network.transformer for e in there for network in (e.decoder, e.encoder) if network is not None]
        networks += [decoder] if encoder is None or not rounded else [decoder, encoder]
        return not too_large(networks, torch.bfloat16 if rounded else torch.float32)


@torch.no_grad()
def engine_of(precision: Precision, decoder: Transformer, encoder: Transformer | None = None) -> Engine:
    """Orders the weights, and times passes of the decoder on one thread and on all.

    The order decides how sums are rounded, so that it is never chosen by time: the same seed has to draw the same
    picture at every start. Threads share out columns, which changes no sum. precision: how far the order may round
    weights. Raises ValueError for a decoder that is not causal.
    """
    if not decoder.config.causal:
        raise ValueError("a transformer that sees in both directions cannot draw")
    maps = [m for m in decoder.modules() if isinstance(m, nn.Linear)]
    *_, kernel = kernels(maps, precision, decoder.position_embedding.dtype)
    network = Network(decoder, kernel)
    costs = calibrate(network, HALF_ROWS if kernel is half else 1)
    rounded = None
    if encoder is not None and rounds(kernel):
        rounded = Network(encoder, partial(brain, rows=encoder.config.positions))  # a picture at once
    return Engine(network, costs, kernel, rounded)
