"""Measured numbers, and the tables and files made of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from imagebart.atomic_io import write_text
from imagebart.avatars.attributes import VALUES
from imagebart.evaluation.metrics import Interval, share_of


@dataclass(frozen=True)
class Measure:
    """A number with its 95 % interval; shares are 0 to 1. `group` is "" for what sums up, else what it is a part of."""

    name: str
    value: float
    low: float
    high: float
    pictures: int
    unit: str = ""  # "%" for shares
    goal: str = ""
    group: str = ""


def measure(name: str, interval: Interval, pictures: int, unit: str = "", goal: str = "", group: str = "") -> Measure:
    """A measure of an interval."""
    return Measure(name, interval.value, interval.low, interval.high, pictures, unit, goal, group)


def in_all(name: str, pictures: Sequence[Mapping[str, bool]], goal: str = "") -> Measure:
    """The share of answers that are yes, given the answers by attribute of each picture, of which some has one."""
    right, asked = [sum(answers.values()) for answers in pictures], [len(answers) for answers in pictures]
    return measure(name, share_of(right, asked), sum(map(bool, asked)), "%", goal)


def by_attribute(
    pictures: Sequence[Mapping[str, bool]], group: str, names: Iterable[str] = VALUES
) -> Iterator[Measure]:
    """The same of each attribute, as far as there are answers."""
    for name in names:
        answers = [row[name] for row in pictures if name in row]
        if answers:
            yield measure(plainly(name), share_of(answers), len(answers), "%", group=group)


def fit_measures(name: str, fit: Sequence[Mapping[str, bool]], group: str) -> Iterator[Measure]:
    """Both of how what is drawn fits what is kept. Nothing where no picture has an answer."""
    if any(fit):
        yield in_all(name, fit, "≥ 97 %")
    yield from by_attribute(fit, group)


def plainly(attribute: str) -> str:
    """An attribute's name in words."""
    return attribute.replace("_", " ")


def table(measures: Sequence[Measure]) -> str:
    """Measures as Markdown tables, the sums first, then group by group."""
    groups = dict.fromkeys(m.group for m in measures)
    blocks = []
    for group in groups:
        head = f"| {group or 'measure'} | value | 95 % interval | pictures | goal |\n|---|---:|---:|---:|---|"
        rows = [
            f"| {m.name} | {_number(m.value, m.unit)} | {_number(m.low, m.unit)} to {_number(m.high, m.unit)} "
            f"| {m.pictures} | {m.goal} |"
            for m in measures
            if m.group == group
        ]
        blocks.append("\n".join([head, *rows]))
    return "\n\n".join(blocks)


def side_by_side(columns: Mapping[str, Sequence[Measure]]) -> str:
    """The sums of several models, a column a model; value ± half the 95 % interval."""
    names = dict.fromkeys(m.name for measures in columns.values() for m in measures if not m.group)
    head = "| measure | " + " | ".join(columns) + " |\n|---|" + "---:|" * len(columns)
    rows = []
    for name in names:
        cells = []
        for measures in columns.values():
            found = [m for m in measures if m.name == name]
            cells.append(f"{_number(found[0].value, found[0].unit)} ± {_half(found[0])}" if found else "")
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([head, *rows])


def write_json(path: Path, about: dict[str, Any], measures: Sequence[Measure]) -> None:
    """Writes what was measured, of what and how, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {**about, "measures": [asdict(m) for m in measures]}
    write_text(path, json.dumps(content, indent=1) + "\n")


def _number(value: float, unit: str) -> str:
    if unit == "%":
        return f"{100 * value:.1f} %"
    return f"{value:.3g}" + (f" {unit}" if unit else "")


def _half(m: Measure) -> str:
    half = (m.high - m.low) / 2
    return f"{100 * half:.1f}" if m.unit == "%" else f"{half:.2g}"
