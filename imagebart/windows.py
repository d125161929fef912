"""How many tokens to verify at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Protocol

LEAST = 4  # steps of a pass: for fewer, kernels add in another order
QUANTUM = 2  # steps are multiples of this
WIDTHS = (4, 6, 8, 12, 16, 24, 32, 64)  # tokens to draw in a window
NEWEST = 0.3  # what the last pass counts in a mean


class Windows(Protocol):
    """Chooses windows, and is told how they went."""

    def steps(self, needed: int, drafts: Iterable[bool]) -> int:
        """Steps of the next pass.

        needed: steps up to the first prediction that counts. drafts: for each position from that one on, whether it
        must be drawn; others are known.
        """

    def learn(self, drawn: float) -> None:
        """How many tokens of a row the pass drew, the mean of all rows."""


class OneByOne:
    """No drafts: a pass for every token drawn."""

    def steps(self, needed: int, drafts: Iterable[bool]) -> int:
        return needed

    def learn(self, drawn: float) -> None:
        pass


class Adaptive:
    """The window that draws the most tokens a second, by what a pass costs and by how many tokens passes drew so far.

    A window of one position draws one token; between that and the nearest width that was tried, and beyond, a power of
    the width is assumed. It is less than 1, for drafts fail, and more than 0, for those that wait are predicted again
    in every pass. The first window is the best if it is 1/2: its rows then cost what a pass costs anyway.
    """

    def __init__(self, seconds: Callable[[int], float], rows: int) -> None:
        """seconds: of a pass, by the steps of all rows. rows: variants, twice that under guidance."""
        self.seconds, self.rows = seconds, rows
        self.width = max(WIDTHS, key=lambda width: math.sqrt(width) / seconds(width * rows))
        self.drawn: dict[int, float] = {}  # tokens that a pass of this width draws
        self.whole = True  # there was as much to draw as the window is wide

    def learn(self, drawn: float) -> None:
        if self.whole:
            before = self.drawn.get(self.width, drawn)
            self.drawn[self.width] = before + NEWEST * (drawn - before)

    def steps(self, needed: int, drafts: Iterable[bool]) -> int:
        spans = _spans(drafts)
        self.whole = True
        if self.drawn:
            possible = [width for width in WIDTHS if width in spans]
            self.whole = bool(possible)
            if possible:
                self.width = max(possible, key=lambda w: self._drawn(w) / self.seconds(spans[w] * self.rows))
        else:
            self.whole = self.width in spans
        span = spans[self.width] if self.whole else max(spans.values(), default=1)
        return max(-(-(needed - 1 + span) // QUANTUM) * QUANTUM, LEAST)

    def _drawn(self, width: int) -> float:
        """What a pass of a width draws, or should."""
        if width in self.drawn:
            return self.drawn[width]
        near = min(self.drawn, key=lambda tried: abs(math.log(width / tried)))
        return self.drawn[near] ** (math.log(width) / math.log(near))


def _spans(drafts: Iterable[bool]) -> dict[int, int]:
    """For 1, 2, ... tokens to draw, up to the widest window: how many positions it takes to reach them."""
    spans: dict[int, int] = {}
    for ahead, drawn in enumerate(drafts, 1):
        if drawn:
            spans[len(spans) + 1] = ahead
            if len(spans) == WIDTHS[-1]:
                break
    return spans
