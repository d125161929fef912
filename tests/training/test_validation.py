"""Metrics of a run as a table and a chart, plateaus, and the table of losses."""

import json
from pathlib import Path

import pytest
from PIL import Image, ImageColor
from torch import nn

from imagebart.imaging.figures import COLOURS, MARGIN, SIZE
from imagebart.training.loop import Validation, has_plateaued, loss_table, read_metrics


def test_metrics_are_written_as_a_table_and_a_chart(tmp_path: Path) -> None:
    said: list[str] = []
    values = iter([3.0, 2.0, 1.5])
    validation = Validation(tmp_path, lambda model: {"loss": next(values)}, said.append)
    for step in (10, 20, 20):
        validation(nn.Identity(), step)
    assert [(row["step"], row["loss"]) for row in read_metrics(tmp_path)] == [(10, 3.0), (20, 1.5)]
    with Image.open(tmp_path / "figures.png") as image:
        assert image.size == SIZE
        least = (MARGIN, SIZE[1] - MARGIN)
        assert image.getpixel(least) == ImageColor.getrgb(COLOURS[0]), "the least value is at the bottom"
    assert said[-1] == "step 20: loss 1.5"


def test_a_plateau_is_reported() -> None:
    assert not has_plateaued([5, 4, 3])
    assert not has_plateaued([5, 4, 3, 2.5, 2.2, 2.0])
    assert has_plateaued([5, 4, 3, 3.01, 3.0, 3.02])
    assert has_plateaued([5, 4, 3, 2.5, 2.4, 2.6, 2.7, 2.8, 2.9])


def test_metrics_before_the_settled_step_do_not_count(tmp_path: Path) -> None:
    said: list[str] = []
    validation = Validation(tmp_path, lambda model: {"error": 1.0}, said.append, settled_after=70)
    for step in range(10, 110, 10):
        validation(nn.Identity(), step)
    assert not any("more hours" in line for line in said)


def test_rows_are_means_over_parts_of_the_run(tmp_path: Path) -> None:
    records = [{"step": 10 * i, "loss": float(i), "read": 0.5, "grad": 9.0, "hours": i / 10} for i in range(1, 13)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    heading, _, *rows = loss_table(tmp_path)
    assert heading == "| hours | steps | loss | read |"
    assert len(rows) == 6
    assert rows[0] == "| 0.20 | 20 | 1.5 | 0.5 |"
    assert rows[-1] == "| 1.20 | 120 | 11.5 | 0.5 |"


def test_a_short_log_has_a_row_for_each_record(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 5, "loss": 2.0, "hours": 0.25}\n')
    assert list(loss_table(tmp_path))[2:] == ["| 0.25 | 5 | 2 |"]
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 6, "hours": 0.5, "foreign": 1}\n{"step": 7, "ho')
    assert list(loss_table(tmp_path))[2:] == ["| 0.25 | 5 | 2 |"], "damaged and foreign records are left out"
    with pytest.raises(ValueError, match="expected the folder of a run"):
        list(loss_table(tmp_path / "nothing"))
