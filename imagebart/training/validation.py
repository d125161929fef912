"""How a run does: on what was held back, a table and a picture in its folder; its losses, as a table for a card."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from imagebart.atomic_io import write_text
from imagebart.imaging.figures import chart
from imagebart.imaging.files import save_image
from imagebart.training.loop import hours_so_far, read_log

TABLE, PICTURE = "figures.csv", "figures.png"
ENOUGH = 5  # records before anything is said of more hours
PARTS = 6  # rows of a run in the table for a card
NOT_LOSSES = {"step", "grad", "lr", "images_s", "hours"}
NO_BETTER = 0.002  # share by which the last third of them has to be better than what was before

Metrics = dict[str, float]


@dataclass(frozen=True)
class Validation:
    """Measures a model whenever the loop shows it. The first figure is the one that counts, the smaller the better."""

    folder: Path
    measure: Callable[[nn.Module], Metrics]
    say: Callable[[str], None] = print
    begin: int = 0  # steps before, after which the figure means something else

    def __call__(self, model: nn.Module, step: int) -> None:
        figures = {"step": float(step), "hours": round(hours_so_far(self.folder), 4), **self.measure(model)}
        rows = [row for row in read_metrics(self.folder) if row["step"] < step]
        rows.append(figures)
        lines = [list(figures), *(row.values() for row in rows)]
        write_text(self.folder / TABLE, "".join(",".join(map(str, line)) + "\n" for line in lines))
        name = list(figures)[2]
        line = [(row["hours"], row[name]) for row in rows]
        save_image(chart({"": line}, "hours", name, bottom=None), self.folder / PICTURE)
        self.say(f"step {step:,}: " + ", ".join(f"{key} {value:.4g}" for key, value in list(figures.items())[2:]))
        if has_plateaued([row[name] for row in rows if row["step"] > self.begin]):
            self.say(f"{name} has not become better for a third of the run: more hours would hardly help.")


def has_plateaued(values: Sequence[float]) -> bool:
    """Whether the best of the last third is no better than the best before: smaller is better."""
    last = max(2, len(values) // 3)
    if len(values) < max(ENOUGH, last + 1):
        return False
    before, after = min(values[:-last]), min(values[-last:])
    return after > before - NO_BETTER * abs(before)


def read_metrics(folder: Path) -> list[Metrics]:
    """The figures of a run so far, a row a time it was measured; [] where there are none yet."""
    path = folder / TABLE
    if not path.is_file():
        return []
    rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    return [{name: float(value) for name, value in row.items()} for row in rows]


def loss_table(folder: Path) -> Iterator[str]:
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
