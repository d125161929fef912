"""The benchmark times whole models, and random ones of published shapes; the example for Ray edits a folder."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import tiny_model, tiny_staged_model

from imagebart.imaging.masks import preset
from imagebart.pipeline import Pipeline
from imagebart.weights.registry import MODELS

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import bench

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("scales", [["1", "2"], []])
def test_the_benchmark_prints_its_rows(tmp_path: Path, scales: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (tiny_model("text") if scales else tiny_staged_model("class")).save_pretrained(tmp_path)
    bench.main([str(tmp_path), "--repeats", "1", *(["--scales", *scales] if scales else [])])
    times, _, parts = capsys.readouterr().out.rpartition("\n\n")
    machine, _, heading, _, *rows = times.splitlines()
    assert "torch" in machine and len(rows) == len(scales or ["2"])
    for row, number in zip(rows, scales or ["2"], strict=True):
        name, t, _, whole, preview, edit, edit_preview, memory, original, speed_up = row.strip("| ").split(" | ")
        assert t == number and name and row.count("|") == heading.count("|")
        assert 0 < float(preview) <= float(whole) and 0 < float(edit_preview) <= float(edit)
        assert float(original) >= 0 and int(speed_up) >= 0 and memory.endswith("GB")
    for row in parts.splitlines()[2:]:
        *each, total = map(float, row.strip("| ").split(" | ")[1:])
        assert total == pytest.approx(sum(each), abs=4) and total > 0


@pytest.mark.parametrize("name", ["cin_4_scales_geometric", "cats_3_scales"])
def test_a_random_model_has_the_published_shapes(name: str) -> None:
    published = MODELS[name]
    with torch.device("meta"):
        made = bench.random_model(published)
    assert len(made.stages) == published.stages
    for t, stage in enumerate(made.stages, 1):
        shapes, wanted = stage.config, published.stage(t).config
        assert (shapes.kind, shapes.encoder, shapes.decoder) == (wanted.kind, wanted.encoder, wanted.decoder)
    assert made.about.name == name and made.vocab_size == published.used_codes


@pytest.mark.release
def test_two_workers_edit_a_folder_as_the_pipeline_does(tmp_path: Path) -> None:
    tiny_model("text").save_pretrained(tmp_path / "model")
    (tmp_path / "in").mkdir()
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{i}.png")
    mask = preset("center", (32, 32))
    mask.save(tmp_path / "mask.png")
    command = [sys.executable, ROOT / "examples" / "ray_batch.py", "in", "out", "mask.png"]
    command += ["--prompt", "a red hat", "--model", tmp_path / "model"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    pipe = Pipeline.from_pretrained(tmp_path / "model")
    for i in range(4):
        *_, event = pipe.edit(tmp_path / "in" / f"{i}.png", mask, "a red hat", seed=0)
        assert (np.asarray(Image.open(tmp_path / "out" / f"{i}.png")) == np.asarray(event.image)).all()
