"""The benchmark times whole models, and random ones of published shapes."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_model, tiny_staged_model

from imagebart.weights.registry import MODELS

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import bench


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("kind", ["denoiser", "stages"])
def test_a_row_for_every_number_of_scales(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_model("text") if kind == "denoiser" else tiny_staged_model("class")
    model.save_pretrained(tmp_path)
    scales = ["--scales", "1", "2"] if kind == "denoiser" else []
    bench.main([str(tmp_path), "--repeats", "1", *scales])
    machine, _, heading, _, *rows = capsys.readouterr().out.splitlines()
    assert "torch" in machine and len(rows) == (2 if scales else 1)
    for row, number in zip(rows, ("1", "2") if scales else ("2",), strict=True):
        assert len(cells(row)) == len(cells(heading))
        name, t, _, whole, preview, edit, edit_preview, memory, original, times = cells(row)
        assert t == number and name
        assert 0 < float(preview) <= float(whole) and 0 < float(edit_preview) <= float(edit)
        assert float(original) >= 0 and int(times) >= 0 and memory.endswith("GB")


@pytest.mark.parametrize("name", ["cin_4_scales_geometric", "cats_3_scales"])
def test_a_random_model_has_the_published_shapes(name: str) -> None:
    small = {"width": 32, "encoder_depth": 1, "coarsest_width": 32, "coarsest_depth": 1}
    published = replace(MODELS[name], **small)
    made = bench.random_model(published)
    kinds = [published.stage(t).config.kind for t in range(1, published.stages + 1)]
    assert [stage.config.kind for stage in made.stages] == kinds
    assert made.about.name == name and made.vocab_size == published.used_codes
    with torch.device("meta"):
        full = bench.random_model(MODELS[name])
    assert sum(p.numel() for p in full.parameters()) > 100 * sum(p.numel() for p in made.parameters()) / 10
