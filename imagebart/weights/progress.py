"""How a download goes, on standard error: what came, how fast, and how long the rest will take."""

from __future__ import annotations

from types import TracebackType

from rich.progress import DownloadColumn, TaskID, TransferSpeedColumn

from imagebart.progress import bars


class ProgressBar:
    """A bar for each file (see `imagebart.weights.fetch.Bar`)."""

    def __init__(self) -> None:
        self._progress = bars(DownloadColumn(), TransferSpeedColumn())
        self._task: TaskID | None = None

    def start(self, what: str, total: int | None, done: int) -> None:
        if self._task is None:
            self._progress.start()
        else:
            self._progress.stop_task(self._task)
        self._task = self._progress.add_task(what, total=total, completed=done)

    def advance(self, count: int) -> None:
        if self._task is not None:
            self._progress.advance(self._task, count)

    def say(self, sentence: str) -> None:
        self._progress.console.print(sentence, markup=False, highlight=False)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._progress.stop()
