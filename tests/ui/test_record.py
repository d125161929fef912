"""What is kept of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from desk import noise, opened
from PIL import Image

from imagebart.imaging.masks import preset
from imagebart.testing import tiny_pipeline
from imagebart.ui.runs import MOST_PREVIEWS, Recorder
from imagebart.ui.sketchpad.stored_images import compose

pytestmark = pytest.mark.usefixtures("own_files")


def events(size: tuple[int, int], area: str, stages: int = 2) -> tuple[Image.Image, Image.Image, list[Any]]:
    image, mask = noise(size), preset(area, size)
    return image, mask, list(tiny_pipeline(scales=stages).edit(image, mask, "hat", seed=1))


def test_a_step_of_a_large_picture_is_whole_again(tmp_path: Path) -> None:
    image, mask, run = events((700, 600), "centre")
    recorder = Recorder(True, mask.getbbox())
    for moment in run[:-1]:
        recorder.add(moment)
    record = recorder.finish(run[-1])
    assert len(record["steps"]) == len(run)
    base = Path(record["results"][0]["path"]).with_name("base.png")
    image.save(base)
    for step, moment in zip(record["steps"], run, strict=True):
        part = {"base": str(base), "box": record["box"], "part": step["parts"][0]}
        assert opened(compose(part)["picture"]["path"]).tobytes() == moment.image.tobytes()
        assert max(opened(step["shown"][0]).size) == 512


def test_long_runs_keep_a_bounded_number_of_steps() -> None:
    _, _, run = events((32, 32), "centre")
    preview = replace(run[0], kind="preview", stage=1)
    recorder = Recorder(False, None)
    sent = [recorder.add(moment) for moment in [run[0], *[preview] * 150]]
    record = recorder.finish(run[-1])
    assert all(Path(path).is_file() for path in sent), "a slow browser may still ask for them"
    assert MOST_PREVIEWS / 2 <= len(record["steps"]) - 2 <= MOST_PREVIEWS
    written = {Path(path).name for step in record["steps"] for path in (*step["shown"], *step["parts"])}
    result = Path(record["results"][0]["path"])
    assert {path.name for path in result.parent.glob("imagebart-*")} == written | {result.name}
