"""A project's file: what is saved comes back byte for byte, and files from anywhere are bounded and do no harm."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_images import hostile_images
from page_values import control_values, noise_image, sketch_value
from PIL import Image
from tiny_models import tiny_pipeline

from imagebart.ui import messages
from imagebart.ui.files import publish_file
from imagebart.ui.model_list import ModelChoice
from imagebart.ui.project import MAX_DIRECTORY, open_project, save_project
from imagebart.ui.queries import Queries
from imagebart.ui.runs import Runs
from imagebart.ui.sketchpad.component import pack_mask
from imagebart.ui.sketchpad.stored_images import describe

pytestmark = pytest.mark.usefixtures("own_files")
PIPELINE = tiny_pipeline()


def edited_page() -> dict[str, Any]:
    """A page after an edit of two variants, with a soft mask for the next one."""
    image = noise_image((48, 40))
    sent = sketch_value(image)
    controls = control_values(PIPELINE, variants=2)
    last = list(Runs(ModelChoice(PIPELINE)).edit(sent, **controls))[-1]["run"]
    known = describe(sent["image"], image)
    entry = {**last, "when": 1.7e12, "before": known, "mask": sent["mask"]}
    soft = Image.fromarray(np.arange(48 * 40, dtype=np.uint16).reshape(40, 48).astype(np.uint8))
    return {"image": known, "mask": pack_mask(soft), "controls": controls, "history": [entry], "shown": 0}


def content(path: str) -> bytes:
    return Path(path).read_bytes()


def uploaded(write: Callable[[Path], Any]) -> str:
    return publish_file("upload.imagebart", lambda path: write(path) and None)


def test_what_is_saved_comes_back_byte_for_byte() -> None:
    page = edited_page()
    saved = save_project(page)
    assert saved["left_out"] == 0
    opened = Queries(ModelChoice(PIPELINE)).open_project(saved["path"])
    project = opened["project"]
    assert opened["model"] == PIPELINE.name
    assert project["mask"] == page["mask"] and project["controls"] == page["controls"] and project["shown"] == 0
    assert content(project["image"]["path"]) == content(page["image"]["path"])
    assert project["image"]["path"] != page["image"]["path"]
    (before,), (after,) = page["history"], project["history"]
    for name in ("task", "prompt", "name", "film", "when", "mask"):
        assert after[name] == before[name]
    assert tuple(after["box"]) == tuple(before["box"])
    assert [content(one["path"]) for one in after["results"]] == [content(one["path"]) for one in before["results"]]
    ends = [step for step in before["steps"] if not step["preview"]]
    assert [step["caption"] for step in after["steps"]] == [step["caption"] for step in ends]
    assert content(after["steps"][1]["parts"][0]) == content(ends[1]["parts"][0])
    with zipfile.ZipFile(saved["path"]) as archive:  # any program opens it
        assert archive.testzip() is None and json.loads(archive.read("project.json"))["version"] == 1
        names = archive.namelist()
        assert all(name.endswith((".png", ".json")) for name in names) and len(set(names)) == len(names)


def test_a_run_whose_images_are_gone_is_left_out_and_the_rest_is_saved() -> None:
    page = edited_page()
    gone = edited_page()["history"][0]
    Path(gone["results"][1]["path"]).unlink()
    saved = save_project({**page, "history": [gone, *page["history"]], "shown": 1})
    opened = open_project(saved["path"])["project"]
    assert saved["left_out"] == 1 and len(opened["history"]) == 1 and opened["shown"] == 0
    for wrong in ({}, {**page, "history": 3}, {**page, "image": {"path": "/etc/passwd", "width": 1, "height": 1}}, []):
        assert save_project(wrong)["error"]


def test_foreign_broken_and_newer_files_are_refused_by_a_sentence(tmp_path: Path) -> None:
    good = content(save_project(edited_page())["path"])

    def changed(change: Callable[[dict[str, Any]], Any]) -> str:
        path = tmp_path / "changed.zip"
        path.write_bytes(good)
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "new.zip", "w") as new:
            contents = json.loads(old.read("project.json"))
            change(contents)
            for name in old.namelist():
                new.writestr(name, json.dumps(contents) if name == "project.json" else old.read(name))
        return uploaded(lambda path: path.write_bytes((tmp_path / "new.zip").read_bytes()))

    def opened(data: bytes) -> str:
        return str(open_project(uploaded(lambda path: path.write_bytes(data)))["error"])

    assert "project" in open_project(changed(lambda contents: None))
    assert opened(b"") == opened(b"PK") == opened(b"no zip" * 1000) == messages.NO_PROJECT
    assert open_project("/etc/passwd")["error"] == open_project("../x")["error"] == messages.IMAGE_DELETED
    assert (
        "format version 2, and this page reads up to 1" in open_project(changed(lambda c: c.update(version=2)))["error"]
    )
    assert open_project(changed(lambda c: c.update(format="other")))["error"] == messages.NO_PROJECT
    for cut in (len(good) // 2, len(good) - 10):
        assert opened(good[:cut]) == messages.NO_PROJECT
    assert opened(good.replace(b"IDAT", b"IDAX")) == messages.PROJECT_DAMAGED
    for change in (
        lambda c: c.update(image="../../etc/passwd"),
        lambda c: c.update(image="images/9999.png"),
        lambda c: c["history"][0].update(results=[]),
        lambda c: c["history"][0].update(task="__import__"),
        lambda c: c["history"][0]["steps"][0].update(shown=["project.json"]),
        lambda c: [step.update(shown=[]) for step in c["history"][0]["steps"]],
        lambda c: c["history"][0].update(surplus=1),
        lambda c: c.update(mask=c["history"][0]["steps"][1]["parts"][0]),
        lambda c: c.update(controls={"seed": float("nan")}),
    ):
        assert open_project(changed(change)).get("error") in (messages.PROJECT_DAMAGED, messages.NO_PROJECT)


def test_hostile_files_are_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "hostile.zip"
    project = {"format": "imagebart project", "version": 1, "image": "images/0001.png", "mask": None, "controls": {}}

    def refused(entries: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> str:
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, data in entries.items():
                archive.writestr(name, data)
        began = time.process_time()
        answer = open_project(uploaded(lambda place: place.write_bytes(path.read_bytes())))
        assert time.process_time() - began < 5
        return str(answer.get("error", ""))

    contents = json.dumps(project).encode()
    assert refused({"project.json": b" " * 90_000_000 + contents}) == messages.PROJECT_TOO_LARGE
    assert refused({"project.json": contents, **{f"{i}": b"" for i in range(3000)}}) == messages.PROJECT_TOO_LARGE
    assert refused({"project.json": contents, "x" * 60_000: b"", **{f"{i}" + "y" * 60_000: b"" for i in range(9)}}) == (
        messages.PROJECT_TOO_LARGE
    ), f"over {MAX_DIRECTORY} bytes of names"
    assert refused({"project.json": b"[" * 1_000_000}) == messages.NO_PROJECT
    assert refused({"project.json": contents, "images/0001.png": b""}, zipfile.ZIP_LZMA) == messages.PROJECT_DAMAGED
    assert refused({"project.json": contents, "../../evil.png": b"x"}) == messages.PROJECT_DAMAGED
    assert not list(tmp_path.rglob("evil.png"))
    for name, make in list(hostile_images(300_000))[::5]:
        assert "error " not in refused({"project.json": contents, "images/0001.png": make()}), name
