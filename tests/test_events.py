"""The clock of a run: previews stay within their share of the time, and come at a steady rate."""

from __future__ import annotations

import weakref
from itertools import pairwise

import pytest
from PIL import Image

from imagebart import pipeline as events
from imagebart.pipeline import FIRST_SHARE, PREVIEW_SHARE, Clock, LazyImages


class Time:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    told = Time()
    monkeypatch.setattr(events, "time", told)
    return told


@pytest.mark.parametrize("token", [0.001, 0.02, 0.3])
@pytest.mark.parametrize("look", [0.002, 0.04, 0.5])
def test_previews_take_their_share_and_no_more(time: Time, token: float, look: float) -> None:
    """A run of two stages of 400 tokens. At every moment the share holds; where a look is cheap, it is used up."""
    began, shown = time.now, []
    clock = Clock(resamples=1, first=2)
    time.now += look
    clock.record("start", look)
    for number in range(800):
        time.now += token
        if number == 400:
            time.now += look
            clock.record("stage", look)
        elif clock.preview_due():
            time.now += look
            clock.record("preview", look)
            shown.append(time.now)
        assert look * len(shown) <= (PREVIEW_SHARE if len(shown) > 1 else FIRST_SHARE) * clock.elapsed() + 1e-9
    total = time.now - began
    assert clock.elapsed() == pytest.approx(total)
    expected = min(PREVIEW_SHARE * total / look, 799)
    assert 0.6 * expected - 1 <= len(shown) <= max(expected, 1), "the first comes sooner than its share"
    gaps = [b - a for a, b in pairwise(shown)]
    if len(gaps) > 3:
        assert max(gaps) <= 2 * min(gaps) + 2 * look + token


def test_a_look_that_became_dear_delays_the_next(time: Time) -> None:
    clock = Clock(resamples=1, first=2)
    clock.record("start", 0.01)
    time.now += 0.5
    assert clock.preview_due()
    clock.record("preview", 0.2)
    time.now += 3.0
    assert not clock.preview_due()
    time.now += 0.6
    assert clock.preview_due()


def test_what_a_late_look_costs_counts_too(time: Time) -> None:
    clock = Clock(resamples=1, first=2)
    clock.record("start", 0.01)
    clock.add_preview_cost("start", 0.19)
    time.now += 0.3
    assert not clock.preview_due()
    time.now += 0.2
    assert clock.preview_due()
    clock.record("preview", 0.01)
    clock.add_preview_cost("preview", 0.19)
    time.now += 3.4
    assert not clock.preview_due()
    time.now += 0.2
    assert clock.preview_due()


def test_pictures_are_made_once_and_what_they_are_made_of_is_let_go() -> None:
    upload, calls = Image.new("RGB", (16, 16)), []
    gone = weakref.ref(upload)

    def make(upload: Image.Image = upload) -> list[Image.Image]:
        calls.append(upload.size)
        return [upload.copy()]

    pictures = LazyImages(make)
    assert calls == []
    del upload, make
    (first,), (second,) = pictures(), pictures()
    assert first is second and calls == [(16, 16)] and gone() is None
