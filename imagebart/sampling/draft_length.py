"""How many tokens to verify at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Protocol

LEAST = 4  # steps of a pass: for fewer, kernels add in another order
QUANTUM = 2  # steps are multiples of this
WIDTHS = (4, 6, 8, 12, 16, 24, 32, 64)  # drafts of a pass, of tokens to draw
NEWEST = 0.3  # what the last pass counts in a mean
PRIOR = 2  # passes that the power counts for


class DraftLength(Protocol):
    """Chooses how many drafts a pass verifies, and is told how it went."""

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
    """The length that draws the most tokens a second, by what a pass costs and by how many tokens passes drew so far.

    A single draft draws one token; more of them a power of their number, the width. It is less than 1, for drafts fail,
    and more than 0, for those that wait are predicted again in every pass: 1/2 is assumed at first. What passes of a
    width drew counts the more, the more of them there were.
    """

    def __init__(self, seconds: Callable[[int], float], rows: int) -> None:
        """seconds: of a pass, by the steps of all rows. rows: variants, twice that under guidance."""
        self.seconds, self.rows = seconds, rows
        self.power, self.passes = 0.5, 0
        self.drawn: dict[int, tuple[int, float]] = {}  # passes of a width, and tokens that one draws
        self.width, self.whole = WIDTHS[0], False  # of the last pass; whether it was one of WIDTHS

    def learn(self, drawn: float) -> None:
        if self.whole:
            passes, mean = self.drawn.get(self.width, (0, 0.0))
            self.drawn[self.width] = passes + 1, mean + max(NEWEST, 1 / (passes + 1)) * (drawn - mean)
            self.passes += 1
            share = max(NEWEST, 1 / (self.passes + 1))  # 1/2 counts as a pass
            self.power += share * (math.log(max(drawn, 1.0)) / math.log(self.width) - self.power)

    def steps(self, needed: int, drafts: Iterable[bool]) -> int:
        spans = _spans(drafts)
        widths = [*(width for width in WIDTHS if width in spans), len(spans)]
        self.width = max(widths, key=lambda w: self._drawn(w) / self.seconds(spans[w] * self.rows)) if spans else 1
        self.whole = self.width in WIDTHS
        span = spans.get(self.width, 1)
        return max(-(-(needed - 1 + span) // QUANTUM) * QUANTUM, LEAST)

    def _drawn(self, width: int) -> float:
        """What a pass of a width draws, or should."""
        passes, mean = self.drawn.get(width, (0, 0.0))
        return (passes * mean + PRIOR * width**self.power) / (passes + PRIOR)


def _spans(drafts: Iterable[bool]) -> dict[int, int]:
    """For 1, 2, ... tokens to draw, up to the largest width: how many positions it takes to reach them."""
    spans: dict[int, int] = {}
    for ahead, drawn in enumerate(drafts, 1):
        if drawn:
            spans[len(spans) + 1] = ahead
            if len(spans) == WIDTHS[-1]:
                break
    return spans
