"""What a pass of a decoder costs on this machine, by its rows and by the number of threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from imagebart.sampling.network import Network

SHORT, LONG = 8, 32  # tokens of the passes that are timed


@dataclass(frozen=True)
class Cost:
    """Seconds of a pass: fixed (reading the weights) and for each row (a token of one variant), in blocks of rows."""

    fixed: float
    row: float
    block: int = 1

    def seconds(self, rows: int) -> float:
        return self.fixed + self.row * _whole(rows, self.block)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Computes on a number of threads of the processor."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def calibrate(network: Network, block: int) -> dict[int, Cost]:
    """What passes of a decoder cost on one thread and on all; block: rows that its kernel takes at once."""
    return {count: _cost(network, count, block) for count in sorted({1, torch.get_num_threads()})}


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
