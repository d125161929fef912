"""Random and hostile values from a seed, and limits on the time and memory that one case may take."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

SECONDS = 10  # of the processor, for one case
MEMORY = 1e9  # bytes more than before, for one case
STATUS, REFRESH = Path("/proc/self/status"), Path("/proc/self/clear_refs")
# What JSON can hold, where something else is expected.
ANYTHING: list[Any] = [
    *(None, True, -1, 0, 1, 1.5, 2**31, 10**30, 10**400, 1e308, float("nan"), float("inf")),
    *("", "x", "\ud800", "a\0b", "x" * 5000, [], [1], {}, {"a": 1}),
]
TEXT_PIECES = [
    *("a hat", "round glasses", " ", "\n", "\0", "\ud800", "\udfff", "😀", "赤い", "é", "\u0301", "\u202e", "ﬁ", "İ"),
    *("x" * 300, "<b>", "&amp;", "'\"", "%s", "{}", "\\", "<|endoftext|>", "1e999", "no hat, ", "without ", ",,,"),
]


@dataclass(frozen=True)
class FuzzRun:
    """The short form or the long one, from a seed."""

    long: bool
    seed: int

    def cases(self, short: int, long: int) -> Iterator[tuple[str, Random]]:
        """So many cases: a name for messages, and random numbers that do not depend on earlier cases."""
        for number in range(long if self.long else short):
            yield f"case {number} of seed {self.seed}", Random(f"{self.seed} {number}")


class TooSlow(BaseException):
    """No Exception, so that nothing takes it for a damaged file."""


@contextmanager
def limited(case: str, seconds: float = SECONDS, memory: float = MEMORY) -> Iterator[None]:
    """Fails where the work takes over `seconds` of the processor, or over `memory` (on Linux, which reports it)."""

    def stop(*_: object) -> None:
        raise TooSlow(f"{case} takes more than {seconds} s")

    before = _memory("VmRSS")
    if REFRESH.exists():
        REFRESH.write_text("5")  # resets the peak to what is used now
    previous = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)
    used = _memory("VmHWM") - before
    assert used < memory, f"{case} takes {used / 1e6:.0f} MB"


def _memory(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text(encoding="ascii")) if STATUS.exists() else None
    return 0.0 if found is None else 1000.0 * int(found.group(1))


def mutated(content: bytes, random: Random) -> bytes:
    """Bytes of which some are changed, cut out, repeated, or overwritten by lengths that readers do not expect."""
    changed = bytearray(content)
    for _ in range(random.choice([1, 1, 2, 4, 16])):
        place = random.randrange(len(changed)) if changed else 0
        length = random.choice([1, 2, 4, 8, 100, 5000])
        kind = random.randrange(5)
        if kind == 0:
            changed[place : place + 1] = bytes([random.randrange(256)])
        elif kind == 1:
            del changed[place : place + length]
        elif kind == 2:
            changed[place:place] = changed[random.randrange(len(changed) or 1) :][:length]
        elif kind == 3:
            lengths = [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4), b"\x80\0\0\0"]
            changed[place : place + 4] = random.choice(lengths)
        else:
            changed = changed[: max(place, 1)] if random.random() < 0.2 else changed + random.randbytes(length)
    return bytes(changed)


def any_text(random: Random) -> str:
    """Words, signs and characters of every kind, lone surrogates too."""
    text = "".join(random.choice(TEXT_PIECES) for _ in range(random.randrange(12)))
    if random.random() < 0.3:
        text += "".join(chr(random.randrange(0x110000)) for _ in range(random.randrange(40)))
    return text


def grey_image(values: npt.NDArray[np.uint8], mode: str) -> Image.Image:
    """Grey values [H, W] as an image of any mode."""
    if mode == "I;16":
        return Image.fromarray(values.astype(np.uint16) * 257)
    if mode in ("I", "F"):
        return Image.fromarray(values.astype({"I": np.int32, "F": np.float32}[mode]))
    return Image.fromarray(values).convert(mode)


def check_sentence(text: str, case: str) -> None:
    """An error is one short sentence of characters that a file or a page can hold."""
    assert text[:1].isupper() and text.endswith(".") and len(text) < 400, (case, text)
    text.encode()
