"""The benchmark runs what it says it runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from imagebart import ImageBART
from imagebart.bench.machine import bytes_per_second, cpu_name, peak_memory
from imagebart.bench.measure import SCALES, Row, _task, as_naive, images_per_second, measure
from imagebart.bench.models import Subject, published_size, shipped, write_stand_in
from imagebart.bench.profile import PURPOSES, Share, shares
from imagebart.bench.report import pass_report, plot, report, scales
from imagebart.bench.whole import keep, measure_whole, whole_table
from imagebart.sampling.packed_linear import engine_of
from imagebart.sampling.speculative import OneByOne
from imagebart.sampling.steps import Condition, StageStep
from imagebart.settings import SamplingSettings
from imagebart.testing import tiny_model, tiny_staged_model
from imagebart.weights import MODELS


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
    staged = tiny_staged_model("class")
    asked.clear()
    rates = images_per_second(staged, staged.conditioner.encode([0]).tokens, batch=3)
    assert list(rates) == [1, 2] and asked == [None, None]
    assert scales({1: 2.0, 2: 1.0}) == "images a second: T = 1: 2.00, T = 2: 1.00"


def test_a_model_is_timed_from_end_to_end(tmp_path: Path) -> None:
    figures = []
    for kind in ("class", "none"):
        tiny_staged_model(kind).save_pretrained(tmp_path / kind)
        found = replace(measure_whole(tmp_path / kind), name=kind)
        assert 0 < found.whole_preview <= found.whole and 0 < found.masked_preview <= found.masked
        assert found.load > 0 and found.original > 0 and found.memory > 1e8
        figures.append(found)
    path = tmp_path / "figures.json"
    older = replace(figures[0], whole=99.0)
    assert keep(older, path) == [older]
    assert keep(figures[1], path) == [older, figures[1]]
    assert keep(figures[0], path) == [figures[1], figures[0]]
    table = list(whole_table(figures))
    assert len(table) == 4 and len({line.count("|") for line in table}) == 1 and table[2].startswith("| `class` | ")


def test_a_stand_in_is_a_whole_model(tmp_path: Path) -> None:
    """Of one published model's kinds of stage each, with names for its classes where there are a thousand."""
    small = {"width": 32, "encoder_depth": 1, "coarsest_width": 32, "coarsest_depth": 1}
    for name in ("cin_4_scales_geometric", "cats_3_scales"):
        model = replace(MODELS[name], **small)
        write_stand_in(model, tmp_path / name)
        made = ImageBART.from_pretrained(tmp_path / name)
        kinds = [model.description(t).kind for t in range(1, model.stages + 1)]
        assert [stage.config.kind for stage in made.stages] == kinds
        assert made.about.name == name and made.vocab_size == model.used_codes
    assert load_file(tmp_path / name / "stage1.safetensors")["decoder.head.weight"].dtype == torch.bfloat16
    classes = ImageBART.from_pretrained(tmp_path / "cin_4_scales_geometric").conditioner
    assert classes.encode(["tench"]).tokens.tolist() == [[0]]


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


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_s_figures_are_those_of_the_row() -> None:
    """60 tokens in 12 passes, 0.5 s of 2.9 before them: 0.2 s a pass, ten times what reading the weights takes."""
    own = Row("tiny", 2, 0.25, 60, "+ drafts", 2.9, 29.0, 12, 0.5, 0.02, 0.75, 1.25)
    one_by_one = replace(own, method="cached", passes=256)
    _, _, drafts, cached = map(cells, report([own, one_by_one]))
    assert drafts == ["tiny, 2, 25%", "+ drafts", "2.900", "10.0", "12", "5.0", "0.500", "10.0", "75.0%", "1.25"]
    assert cached[4:6] == ["256", "1.0"]


def test_what_no_part_of_a_pass_accounts_for_is_the_rest() -> None:
    parts = dict(zip(PURPOSES, (0.004, 0.003, 0.002, 0.0005), strict=True))
    last = [cells(line)[-1] for line in pass_report([Share("a", 4, 1, 0.01, parts), Share("a", 4, 1, 0.005, parts)])]
    assert last[2:] == ["0.50", "0.00"]
