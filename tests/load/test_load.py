"""Sixteen people at once: no request is lost, every cancel frees the model, memory does not grow.

`make load` takes three minutes, `make soak` ten; a short one is part of every test run. The figures are printed
(`pytest -s`).
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from harness import Report, load
from page_process import page_process

from imagebart.ui.files import MAX_AGE, MAX_AGES, TIDY_INTERVAL

SESSIONS = 16
# MB a minute: what a server may gain once it is warm.
GROWTH = 6.0
# MB between the end of a soak and two minutes after its start.
DRIFT = 30.0


def check(report: Report) -> None:
    assert [request.lost for request in report.requests if request.lost] == []
    assert report.late == [], "a run went on after its cancel was confirmed"
    assert report.unfinished == []
    assert any(request.cancelled is not None for request in report.requests), "nothing was cancelled"


@pytest.mark.slow
def test_sixteen_at_once_for_a_moment(tmp_path: Path) -> None:
    with page_process(tmp_path) as server:
        report = load(server, 5, SESSIONS, tmp_path)
    print(report.text(warm_up=2))
    check(report)


@pytest.mark.load
def test_sixteen_at_once_for_three_minutes(tmp_path: Path) -> None:
    with page_process(tmp_path) as server:
        report = load(server, 180, SESSIONS, tmp_path)
    print(report.text(warm_up=60))
    check(report)
    assert report.slope(warm_up=60) < GROWTH


def overdue(folder: Path) -> list[str]:
    """Files that are older than what is stated of their kind."""
    late = []
    for path in folder.rglob("*"):
        stated = next((age for start, age in MAX_AGES.items() if path.name.startswith(start)), MAX_AGE)
        if path.is_file() and time.time() - path.stat().st_ctime > stated + 2 * TIDY_INTERVAL:
            late.append(path.name)
    return late


@pytest.mark.load
def test_a_soak_of_sixteen_at_once(tmp_path: Path) -> None:
    """SOAK: its length in seconds; one of less than four minutes says nothing of memory."""
    seconds = float(os.environ.get("SOAK", "600"))
    warm_up = 120.0 if seconds >= 240 else seconds / 3
    with page_process(tmp_path) as server:
        report = load(server, seconds, SESSIONS, tmp_path)
        late = overdue(server.files)
        empty = [path.name for path in server.files.rglob("*") if path.is_file() and path.stat().st_size == 0]
    print(report.text(warm_up))
    check(report)
    assert late == [] and empty == []
    around, end = (
        np.median([size for moment, size in report.memory if since <= moment < since + 15])
        for since in (warm_up, report.seconds - 15)
    )
    print(f"memory {around:.0f} MB after {warm_up:.0f} s, {end:.0f} MB at the end; {len(report.requests)} requests")
    assert seconds < 240 or end - around < DRIFT
