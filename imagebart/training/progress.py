"""How far a long job is, on standard error: a line that moves in a terminal, the last state elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

T = TypeVar("T")


def progress(unit: str, shown: bool = True) -> Progress:
    """A rich Progress, to be entered: what is done, a bar, how many, and how long the rest will take.

    unit: what is counted, "images".
    """
    counted = (TaskProgressColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
    console = Console(stderr=True, soft_wrap=True)
    about = TextColumn("{task.description}", markup=False)
    return Progress(about, BarColumn(), *counted, console=console, refresh_per_second=4, disable=not shown)


def tracked(items: Iterable[T], unit: str, total: int, done: int = 0, shown: bool = True) -> Iterator[T]:
    """The items, with a bar of how many of all were taken; done: those of an earlier run."""
    with progress(unit, shown) as bar:
        yield from bar.track(items, total, completed=done, description="")
