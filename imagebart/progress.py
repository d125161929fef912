"""How far a long job is, on standard error: a line that moves in a terminal, the last state elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")


def progress(unit: str, shown: bool = True) -> Progress:
    """A rich Progress, to be entered; unit: what is counted, "pictures"."""
    return bars(TaskProgressColumn(), MofNCompleteColumn(), TextColumn(unit), shown=shown)


def bars(*columns: ProgressColumn, shown: bool = True) -> Progress:
    """A rich Progress on standard error: what is done, a bar, these columns, and how long the rest will take."""
    about, end = TextColumn("{task.description}", markup=False), TimeRemainingColumn()
    console = Console(stderr=True, soft_wrap=True)
    return Progress(about, BarColumn(), *columns, end, console=console, refresh_per_second=4, disable=not shown)


def tracked(items: Iterable[T], unit: str, total: int, done: int = 0, shown: bool = True) -> Iterator[T]:
    """The items, with a bar of how many of all were taken; done: those of an earlier run."""
    with progress(unit, shown) as bar:
        yield from bar.track(items, total, completed=done, description="")
