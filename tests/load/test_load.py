"""Sixteen people at once: no request is lost, every cancel frees the model, memory does not grow.

`make load` takes three minutes; a short one is part of every test run. The figures are printed (`pytest -s`).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import Report, load
from serving import serving

SESSIONS = 16
# MB a minute: what a server may gain once it is warm.
GROWTH = 6.0


def check(report: Report) -> None:
    assert [request.lost for request in report.requests if request.lost] == []
    assert report.late == [], "a run went on after its cancel was confirmed"
    assert report.unfinished == []
    assert any(request.cancelled is not None for request in report.requests), "nothing was cancelled"


@pytest.mark.slow
def test_sixteen_at_once_for_a_moment(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        report = load(server, 8, SESSIONS, tmp_path)
    print(report.text(warm_up=4))
    check(report)


@pytest.mark.load
def test_sixteen_at_once_for_three_minutes(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        report = load(server, 180, SESSIONS, tmp_path)
    print(report.text(warm_up=60))
    check(report)
    assert report.slope(warm_up=60) < GROWTH
