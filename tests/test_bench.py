"""The benchmark runs what it says it runs."""

from __future__ import annotations

import pytest
import torch

from imagebart.bench import measure, pass_report, plot, report, scales, shares, shipped
from imagebart.bench.machine import bytes_per_second, cpu_name, peak_memory
from imagebart.bench.measure import _task, as_naive, images_per_second
from imagebart.bench.models import published_size
from imagebart.sampling.draft_length import OneByOne
from imagebart.sampling.speculative import decode_stage
from imagebart.testing import tiny_model


def test_rows_compare_with_naive() -> None:
    rows = list(measure(shipped(tiny_model("text"), "red hair"), (1.0, 0.25), (1, 2)))
    methods = ["naive", "cached", "+ known tokens skipped", "+ drafts"]
    for method in methods:
        assert len([row for row in rows if row.method == method]) == 2 * 2 * 2
    for row in rows:
        assert row.tokens == round(64 * row.share) and row.seconds > 0 and row.limit > 0 and row.memory > 0
        if row.method in methods[:2]:
            assert row.passes == 64
        elif row.method == methods[2]:
            assert row.passes == row.tokens
        else:
            assert 1 <= row.passes <= row.tokens
        assert row.same > 0.9 or row.method == "+ float16 weights"  # float32 may round another way once
    table = list(report(rows))
    assert len(table) == 2 + len(rows)
    assert table[2].startswith("| tiny, stage 2, 1, 100% | naive | ")
    assert len({line.count("|") for line in table}) == 1
    picture = plot(rows)
    assert len(picture.convert("RGB").getcolors(2**20)) > 4  # two lines on their axes


def test_as_naive_sees_one_wrong_token() -> None:
    task = _task(shipped(tiny_model("none"), "")[1], 1.0, 1)
    rest = (task.keep, task.condition, task.settings, task.noise)
    *_, drawn = decode_stage(task.stage, task.c, task.c, *rest, OneByOne())
    assert as_naive(task, drawn.tokens) == 1
    wrong = drawn.tokens.clone()
    wrong[0, -1] = (wrong[0, -1] + 1) % 24
    assert as_naive(task, wrong) == pytest.approx(63 / 64)


def test_images_a_second_fall_with_every_stage() -> None:
    rates = images_per_second(shipped(tiny_model("none"), ""))
    assert list(rates) == [1, 2, 3, 4, 5]
    values = list(rates.values())
    assert all(a > b > 0 for a, b in zip(values, values[1:], strict=False))
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
    assert coarsest.stage.config.kind == "decoder_only" and finest.stage.config.kind == "residual"
    maps = [(n, m) for n, m in finest.stage.decoder.named_modules() if isinstance(m, torch.nn.Linear)]
    assert round(sum(m.weight.numel() for n, m in maps if not n.endswith("cross.kv")) / 1e6) == 55
    assert round(sum(p.numel() for p in finest.stage.parameters()) / 1e6) == 203


def test_the_machine_says_what_it_is() -> None:
    assert cpu_name()
    assert bytes_per_second(1 << 20, 0.01) > 1e6
    assert 0.01 < peak_memory() < 1000
