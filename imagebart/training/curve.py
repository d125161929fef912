"""How a run's losses fell, as a table for a model's card."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from imagebart.training.loop import read_log

PARTS = 6  # rows a run
NOT_LOSSES = {"step", "grad", "lr", "images_s", "hours"}


def curve(folder: Path) -> Iterator[str]:
    """Lines of a Markdown table: hours, steps, and the mean of each loss over the records of each part of a run.

    Raises ValueError for a folder without a log.
    """
    records = read_log(folder)
    if not records:
        raise ValueError(f"{folder} has no log.jsonl with records; expected the folder of a run")
    names = [name for name in records[0] if name not in NOT_LOSSES]
    yield _line(["hours", "steps", *names])
    yield _line(["---:"] * (len(names) + 2))
    for part in np.array_split(np.array(records, object), min(PARTS, len(records))):
        means = [sum(record[name] for record in part) / len(part) for name in names]
        last = part[-1]
        yield _line([f"{last['hours']:.2f}", f"{last['step']:.0f}", *(f"{mean:.3g}" for mean in means)])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
