"""How a download goes, on standard error: what came, how fast, and how long the rest will take."""

from __future__ import annotations

import sys
from types import TracebackType

from tqdm import tqdm


class ProgressBar:
    """A bar for one file after the other (see `imagebart.weights.fetch.Bar`)."""

    def __init__(self) -> None:
        self._bar: tqdm[None] | None = None

    def start(self, what: str, total: int | None, done: int) -> None:
        self._close()
        self._bar = tqdm(
            total=total, initial=done, desc=what, unit="B", unit_scale=True, mininterval=1.0, file=sys.stderr
        )

    def advance(self, count: int) -> None:
        if self._bar is not None:
            self._bar.update(count)

    def say(self, sentence: str) -> None:
        tqdm.write(sentence, file=sys.stderr)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
