"""Getting a stage's transformers ready to draw: the order of their weights, and what a pass costs on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imagebart.inference import Network
from imagebart.matrices import HALF_ROWS, Packing, Precision, brain, half, int8, multiplies_bfloat16, packings
from imagebart.transformer import Transformer

SHORT, LONG = 8, 32  # tokens of the passes that are timed
WORTH = 0.9  # more threads have to take less than this share of one's time: they wait for each other on a busy machine


@dataclass(frozen=True)
class Cost:
    """Seconds of a pass: fixed (reading the weights) and for each row (a token of one variant), in blocks of rows."""

    fixed: float
    row: float
    block: int = 1

    def seconds(self, rows: int) -> float:
        return self.fixed + self.row * _whole(rows, self.block)


@dataclass(frozen=True)
class Prepared:
    """A stage's networks, and what a pass of the decoder costs here, by the number of threads."""

    decoder: Network
    costs: Mapping[int, Cost]
    packing: Packing
    encoder: Network | None = None  # where what is computed once a stage may be rounded, too

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
        """Whether what is computed once a stage may be rounded to bfloat16, too."""
        return rounds(self.packing)


def rounds(packing: Packing) -> bool:
    """Whether weights in this order allow the rest to be rounded to bfloat16, where that is fast."""
    return packing in (brain, int8) and multiplies_bfloat16()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Computes on a number of threads of the processor."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Preparation:
    """A stage's `Prepared`, made when it is first needed and again when the weights have changed.

    It is never copied or saved with the stage.
    """

    def __init__(self) -> None:
        self.made: tuple[object, Prepared] | None = None

    def __deepcopy__(self, memo: object) -> Preparation:
        return Preparation()

    def __reduce__(self) -> tuple[type[Preparation], tuple[()]]:
        return Preparation, ()

    def get(self, precision: Precision, decoder: Transformer, encoder: Transformer | None = None) -> Prepared:
        """As `prepare`."""
        parts = [decoder] if encoder is None else [decoder, encoder]
        state = precision, *((p.data_ptr(), p._version) for part in parts for p in part.parameters())
        if self.made is None or self.made[0] != state:
            self.made = None  # the old order's memory goes before the new one's comes
            self.made = state, prepare(precision, decoder, encoder)
        return self.made[1]


@torch.no_grad()
def prepare(precision: Precision, decoder: Transformer, encoder: Transformer | None = None) -> Prepared:
    """Orders the weights, and times passes of the decoder on one thread and on all.

    The order decides how sums are rounded, so that it is never chosen by time: the same seed has to draw the same
    picture at every start. Threads share out columns, which changes no sum. precision: how far the order may round
    weights. Raises ValueError for a decoder that is not causal.
    """
    if not decoder.config.causal:
        raise ValueError("a transformer that sees in both directions cannot draw")
    *_, packing = packings([m for m in decoder.modules() if isinstance(m, nn.Linear)], precision)
    network = Network(decoder, packing)
    block = HALF_ROWS if packing is half else 1
    costs = {count: _cost(network, count, block) for count in sorted({1, torch.get_num_threads()})}
    rounded = Network(encoder, brain) if encoder is not None and rounds(packing) else None
    return Prepared(network, costs, packing, rounded)


def _cost(network: Network, count: int, block: int) -> Cost:
    """Of passes on some threads."""
    short, long = _seconds(network, SHORT, count), _seconds(network, LONG, count)
    fewer, more = _whole(SHORT, block), _whole(LONG, block)
    row = max(long - short, 0.0) / (more - fewer)
    return Cost(max(short - fewer * row, 0.1 * short), row, block)


def _whole(rows: int, block: int) -> int:
    return -(-rows // block) * block


def _seconds(network: Network, tokens: int, count: int, repeats: int = 3) -> float:
    """The shortest of some passes over a number of tokens, on some threads."""
    once, taken = trial(network, tokens), []
    with threads(count):
        for _ in range(repeats + 1):
            began = time.perf_counter()
            once().float().softmax(-1).sort()  # as drawing tokens does
            taken.append(time.perf_counter() - began)
    return min(taken[1:])


def trial(network: Network, tokens: int) -> Callable[[], Tensor]:
    """A pass of a decoder over a number of tokens (all, if it has fewer) at the last positions: logits [tokens, K]."""
    config, cache, head = network.config, network.new_cache(1), network.head
    assert head is not None, "a transformer without logits cannot draw"
    tokens = min(tokens, config.positions)
    some = network.kept.new_zeros(1, config.heads, config.positions, config.head_size)
    memory = [(some, some)] * config.depth if config.cross else None
    fed = torch.zeros(1, tokens, dtype=torch.long, device=some.device)
    return lambda: head(network.forward(fed, [config.positions - tokens], cache, memory).flatten(0, 1))
