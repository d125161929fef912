"""Metrics of held-out data during a run, as a table and a chart in its folder; its losses as a table for a card."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from imagebart.atomic_io import write_text
from imagebart.imaging.figures import chart
from imagebart.imaging.files import save_image
from imagebart.training.loop import hours_so_far, read_log

TABLE, CHART = "figures.csv", "figures.png"
MIN_RECORDS = 5  # before a plateau is reported
MIN_GAIN = 0.002  # share by which the last third of the records has to be better than those before
TABLE_ROWS = 6  # of the losses
NOT_LOSSES = {"step", "grad", "lr", "images_s", "hours"}

Metrics = dict[str, float]


@dataclass(frozen=True)
class Validation:
    """Measures a model whenever the loop calls it. The first metric is the one that counts; smaller is better."""

    folder: Path
    measure: Callable[[nn.Module], Metrics]
    say: Callable[[str], None] = print
    settled_after: int = 0  # the step from which the metric means the same

    def __call__(self, model: nn.Module, step: int) -> None:
        metrics = self.measure(model)
        rows = [row for row in read_metrics(self.folder) if row["step"] < step]
        rows.append({"step": float(step), "hours": round(hours_so_far(self.folder), 4), **metrics})
        lines = [list(rows[-1]), *(row.values() for row in rows)]
        write_text(self.folder / TABLE, "".join(",".join(map(str, line)) + "\n" for line in lines))
        name = next(iter(metrics))
        save_image(chart({"": [(r["hours"], r[name]) for r in rows]}, "hours", name, bottom=None), self.folder / CHART)
        self.say(f"step {step:,}: " + ", ".join(f"{key} {value:.4g}" for key, value in metrics.items()))
        if has_plateaued([row[name] for row in rows if row["step"] > self.settled_after]):
            self.say(f"{name} has not improved for a third of the run: more hours would hardly help.")


def has_plateaued(values: Sequence[float]) -> bool:
    """Whether the best of the last third is no better than the best before: smaller is better."""
    last = max(2, len(values) // 3)
    if len(values) < max(MIN_RECORDS, last + 1):
        return False
    before, after = min(values[:-last]), min(values[-last:])
    return after > before - MIN_GAIN * abs(before)


def read_metrics(folder: Path) -> list[Metrics]:
    """The metrics of a run so far, a row for each validation."""
    path, metrics = folder / TABLE, []
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for row in csv.DictReader(text.replace("\0", "").splitlines()):
        with suppress(ValueError, TypeError):  # a line that is damaged
            numbers = {name: float(value) for name, value in row.items()}
            if {"step", "hours"} < numbers.keys():
                metrics.append(numbers)
    return metrics


def loss_table(folder: Path) -> Iterator[str]:
    """Lines of a Markdown table: hours, steps, mean losses in each sixth of a run. Raises ValueError without a log."""
    records = read_log(folder)
    if not records:
        raise ValueError(f"{folder} has no log.jsonl with records; expected the folder of a run")
    names = [name for name in records[0] if name not in NOT_LOSSES]
    records = [record for record in records if record.keys() >= set(names)]
    rows = [["hours", "steps", *names], ["---:"] * (len(names) + 2)]
    for part in np.array_split(np.array(records, object), min(TABLE_ROWS, len(records))):
        means = [sum(record[name] for record in part) / len(part) for name in names]
        rows.append([f"{part[-1]['hours']:.2f}", f"{part[-1]['step']:.0f}", *(f"{mean:.3g}" for mean in means)])
    for row in rows:
        yield "| " + " | ".join(row) + " |"
