"""A run's log as a table."""

import json
from pathlib import Path

import pytest

from imagebart.training.curve import curve


def test_rows_are_means_over_parts_of_the_run(tmp_path: Path) -> None:
    records = [{"step": 10 * i, "loss": float(i), "read": 0.5, "grad": 9.0, "hours": i / 10} for i in range(1, 13)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    heading, _, *rows = curve(tmp_path)
    assert heading == "| hours | steps | loss | read |"
    assert len(rows) == 6
    assert rows[0] == "| 0.20 | 20 | 1.5 | 0.5 |"
    assert rows[-1] == "| 1.20 | 120 | 11.5 | 0.5 |"


def test_a_short_log_has_a_row_for_each_record(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 5, "loss": 2.0, "hours": 0.25}\n')
    assert list(curve(tmp_path))[2:] == ["| 0.25 | 5 | 2 |"]
    with pytest.raises(ValueError, match="expected the folder of a run"):
        list(curve(tmp_path / "nothing"))
