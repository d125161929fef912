"""The benchmark runs what it says it runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from imagebart import ImageBART
from imagebart.bench.machine import bytes_per_second, cpu_name, peak_memory
from imagebart.bench.measure import SCALES, _task, as_naive, images_per_second, measure
from imagebart.bench.models import Subject, published_size, shipped
from imagebart.bench.profile import shares
from imagebart.bench.report import pass_report, plot, report, scales
from imagebart.sampling.draft_length import OneByOne
from imagebart.sampling.engine import engine_of
from imagebart.sampling.step_run import Condition
from imagebart.sampling.steps import StageStep
from imagebart.settings import SamplingSettings
from imagebart.testing import tiny_model, tiny_staged_model


def subjects(guidance: float = 1.0) -> list[Subject]:
    """A denoiser's two steps, and the stages of another model."""
    found = shipped(tiny_model("text"), "red hair") + shipped(tiny_staged_model("none"), "")
    return [replace(subject, settings=SamplingSettings(guidance=guidance)) for subject in found]


def test_steps_are_timed_coarse_to_fine() -> None:
    assert [subject.name for subject in subjects()] == ["tiny, step 2", "tiny, step 1"] * 2
    rates = [(s.step.rate, s.step.next_rate) for s in subjects()[:2]]  # type: ignore[attr-defined]
    assert rates == [(1.0, 0.5), (0.5, 0.0)]
    assert all(isinstance(subject.step, StageStep) for subject in subjects()[2:])


def test_rows_compare_with_naive() -> None:
    timed = subjects(guidance=2.0)[:2] + subjects()[2:3]
    rows = list(measure(timed, (1.0, 0.25), (1, 2)))
    methods = ["naive", "cached", "+ known tokens skipped", "+ drafts"]
    for method in methods:
        assert len([row for row in rows if row.method == method]) == 3 * 2 * 2
    for row in rows:
        assert row.tokens == round(64 * row.share) and row.seconds > 0 and row.limit > 0 and row.memory > 0
        if row.method in methods[:2]:
            assert row.passes == 64
        elif row.method == methods[2]:
            assert row.passes == row.tokens
        else:
            assert 1 <= row.passes <= row.tokens
        # float32 may round another way once; rounded weights draw other tokens, but not all others
        assert row.same > (0.9 if row.method in methods else 0.3)
    table = list(report(rows))
    assert len(table) == 2 + len(rows)
    assert table[2].startswith("| tiny, step 2, 1, 100% | naive | ")
    assert len({line.count("|") for line in table}) == 1
    picture = plot(rows)
    assert len(picture.convert("RGB").getcolors(2**20)) > 4  # two lines on their axes


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_as_naive_sees_one_wrong_token(guidance: float) -> None:
    """Of every kind of step, and where a part is known."""
    for subject in subjects(guidance):
        for share in (1.0, 0.25):
            task = _task(subject, share, 1)
            *_, (_, passes, tokens) = [task.run(engine_of("exact", *subject.step.networks), OneByOne)]
            drawn = round(64 * share)
            assert passes == drawn and as_naive(task, tokens) == 1
            wrong, last = tokens.clone(), int((~task.keep[0]).nonzero()[-1])
            wrong[0, last] = (wrong[0, last] + 1) % 24
            assert as_naive(task, wrong) == pytest.approx((drawn - 1) / drawn)


def test_images_a_second_are_of_whole_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("none")
    asked: list[int | None] = []
    stream = ImageBART.stream

    def noted(model: ImageBART, *arguments: Any, settings: SamplingSettings, **more: Any) -> Any:
        asked.append(settings.scales)
        return stream(model, *arguments, settings=settings, **more)

    monkeypatch.setattr(ImageBART, "stream", noted)
    rates = images_per_second(model, None)
    assert list(rates) == asked == list(SCALES)
    assert all(0 < rate < 1e4 for rate in rates.values())
    assert scales({1: 2.0, 2: 1.0}) == "images a second: T = 1: 2.00, T = 2: 1.00"


def test_a_pass_is_accounted_for() -> None:
    passes = list(shares(shipped(tiny_model("text"), "red hair"), "exact"))
    assert [(share.rows, share.subject[:4]) for share in passes] == [(4, "tiny"), (16, "tiny")] * 2
    for share in passes:
        assert share.seconds > 0 and all(seconds > 0 for seconds in share.parts.values())
    table = list(pass_report(passes))
    assert table[0] == "| a pass of | rows | threads | ms | weights | attention | norms, GELU | copies, sums | rest |"
    assert len(table) == 2 + len(passes) and len({line.count("|") for line in table}) == 1


def test_published_size() -> None:
    """203 million weights in an encoder-decoder stage; a pass of its decoder reads 55, all but those used once."""
    with torch.device("meta"):
        coarsest, finest = published_size()
    assert isinstance(coarsest.step, StageStep) and coarsest.step.stage.config.kind == "decoder_only"
    assert isinstance(finest.step, StageStep) and finest.step.stage.config.kind == "residual"
    assert coarsest.tokens == finest.tokens == 256 and finest.condition == Condition(None, None)
    stage = finest.step.stage
    maps = [(n, m) for n, m in stage.decoder.named_modules() if isinstance(m, torch.nn.Linear)]
    assert round(sum(m.weight.numel() for n, m in maps if not n.endswith("cross.kv")) / 1e6) == 55
    assert round(sum(p.numel() for p in stage.parameters()) / 1e6) == 203


def test_the_machine_says_what_it_is() -> None:
    assert cpu_name()
    assert bytes_per_second(1 << 20, 0.01) > 1e6
    assert 0.01 < peak_memory() < 1000
