"""How much is tried, from which seed, and within which bounds."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

SECONDS = 10  # of the processor, for one case
MEMORY = 1e9  # bytes more than before, for one case
STATUS, REFRESH = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Effort:
    """The short form or the long one, from a seed."""

    long: bool
    seed: int

    def cases(self, short: int, long: int) -> Iterator[tuple[str, Random]]:
        """So many cases: what a failing test says of each, and its own random numbers, whatever came before."""
        for number in range(long if self.long else short):
            yield f"case {number} of seed {self.seed}", Random(f"{self.seed} {number}")


class TooSlow(BaseException):
    """No Exception, so that nothing takes it for a damaged file."""


@contextmanager
def bounded(case: str) -> Iterator[None]:
    """Fails where the work takes over SECONDS of the processor, or MEMORY (where Linux keeps account of it)."""

    def stop(*_: object) -> None:
        raise TooSlow(f"{case} takes more than {SECONDS} s")

    before = _memory("VmRSS")
    if REFRESH.exists():
        REFRESH.write_text("5")  # the highest so far is what there is now
    kept = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, kept)
    took = _memory("VmHWM") - before
    assert took < MEMORY, f"{case} takes {took / 1e6:.0f} MB"


def _memory(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text(encoding="ascii")) if STATUS.exists() else None
    return 0.0 if found is None else 1000.0 * int(found.group(1))


def mutated(content: bytes, chance: Random) -> bytes:
    """Bytes of which some were changed, cut out, doubled, or overwritten by what readers trip over."""
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 4, 16])):
        place = chance.randrange(len(changed)) if changed else 0
        length = chance.choice([1, 2, 4, 8, 100, 5000])
        kind = chance.randrange(5)
        if kind == 0:
            changed[place : place + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            del changed[place : place + length]
        elif kind == 2:
            changed[place:place] = changed[chance.randrange(len(changed) or 1) :][:length]
        elif kind == 3:
            changed[place : place + 4] = chance.choice(
                [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4), b"\x80\0\0\0"]
            )
        else:
            changed = changed[: max(place, 1)] if chance.random() < 0.2 else changed + chance.randbytes(length)
    return bytes(changed)


PIECES = [
    *("a hat", "round glasses", " ", "\n", "\0", "\ud800", "\udfff", "😀", "赤い", "é", "\u0301", "\u202e", "ﬁ", "İ"),
    *("x" * 300, "<b>", "&amp;", "'\"", "%s", "{}", "\\", "<|endoftext|>", "1e999", "no hat, ", "without ", ",,,"),
]


def any_text(chance: Random) -> str:
    """Words, signs and characters of every kind, halves of characters too."""
    text = "".join(chance.choice(PIECES) for _ in range(chance.randrange(12)))
    if chance.random() < 0.3:
        text += "".join(chr(chance.randrange(0x110000)) for _ in range(chance.randrange(40)))
    return text
