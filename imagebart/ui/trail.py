"""The pictures that were on the canvas before, for undo and redo."""

from __future__ import annotations

from dataclasses import dataclass

# Pictures that can be gone back to; the oldest is forgotten first.
MOST_STOPS = 16


@dataclass(frozen=True)
class Stop:
    """A picture that was on the canvas: its file, its mask as a PNG in the canvas's pixels, and the prompt."""

    path: str
    mask: bytes | None = None
    prompt: str = ""


@dataclass(frozen=True)
class Trail:
    """What lies behind the picture on the canvas, nearest last, and ahead of it after undoing, nearest last."""

    back: tuple[Stop, ...] = ()
    forward: tuple[Stop, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes that its masks take in memory."""
        return sum(len(stop.mask or b"") for stop in (*self.back, *self.forward))

    def leave(self, now: Stop) -> Trail:
        """The trail once another picture replaces `now`. What had been undone is forgotten."""
        return Trail((*self.back, now)[-MOST_STOPS:])

    def undo(self, now: Stop) -> tuple[Stop, Trail]:
        """The picture before `now`, and the trail from there. Needs something behind."""
        return self.back[-1], Trail(self.back[:-1], (*self.forward, now))

    def redo(self, now: Stop) -> tuple[Stop, Trail]:
        """The picture after `now`, and the trail from there. Needs something ahead."""
        return self.forward[-1], Trail((*self.back, now), self.forward[:-1])
