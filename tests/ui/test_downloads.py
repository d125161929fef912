"""Published models that people on the page have downloaded: who may, what goes wrong, and a server's restart."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faulty_server import apart_from_the_net, holding, refusing, serving_file
from published_files import write_package, write_tiny
from tiny_models import tiny_model, tiny_pipeline

from imagebart.errors import InputError
from imagebart.pipeline import Pipeline
from imagebart.published.registry import MODELS, cache_dir, converted_folder, model_folder, published_folder
from imagebart.ui import downloads
from imagebart.ui.downloads import Downloads, EditTimes, PipeProgress, add_examples, fetch
from imagebart.ui.environment import downloads_allowed
from imagebart.ui.examples import find_examples
from imagebart.ui.model_list import ModelChoice, Models

NAME = "cats_3_scales"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = apart_from_the_net(tmp_path, monkeypatch)
    monkeypatch.setenv("HF_HOME", str(home))  # for the processes
    return home


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("package")
    write_tiny(folder / "files", stages=3)
    write_package(folder / "package.zip", folder / "files", f"{NAME}/")
    return (folder / "package.zip").read_bytes()


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def test_on_a_space_only_its_owner_allows_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPACE_ID", raising=False)
    assert downloads_allowed(None) and not downloads_allowed(False)
    monkeypatch.setenv("SPACE_ID", "owner/name")
    assert not downloads_allowed(None) and downloads_allowed(True)
    with pytest.raises(InputError, match="has not allowed it"):
        Downloads().start(NAME)
    with pytest.raises(InputError, match="Did you mean cats_3_scales"):
        Downloads(True).start("cat_3_scales")
    assert not cache_dir().exists()


def test_what_goes_wrong_is_a_sentence_without_a_folder_of_the_server(
    package: bytes, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Any] = []
    with serving_file(package) as server:
        monkeypatch.setenv("IMAGEBART_MIRRORS", server.address)
        monkeypatch.setattr(type(MODELS[NAME]), "url", server.address + "/gone.zip")

        def failure() -> str:
            error = fetch(NAME, PipeProgress(said.append)).error
            assert error.endswith(".") and str(home) not in error and str(home) not in str(said)
            assert not model_folder(NAME).exists()
            return error

        usage = namedtuple("usage", "total used free")(10**9, 10**9 - 1000, 1000)
        with monkeypatch.context() as full:
            full.setattr(shutil, "disk_usage", lambda _: usage)
            assert "There is no room for cats_3_scales" in failure()
        server.faults += [refusing(404), refusing(410)]
        assert "the server says 410 Gone" in failure() and any("404" in str(line) for line in said)
        cache_dir().mkdir(exist_ok=True)
        (cache_dir() / "recorded.json").write_text(json.dumps({NAME: "0" * 64}))
        assert f"expected the one of the first download, {'0' * 64}" in failure()


@pytest.mark.parametrize(("limit", "count"), [(0.0, 1), (3.0, 4)])
def test_examples_are_limited_by_computing_not_by_waiting_for_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: float, count: int
) -> None:
    tiny_model("none").save_pretrained(tmp_path)
    monkeypatch.setattr(downloads, "EXAMPLE_SECONDS", limit)
    add_examples(tmp_path, PipeProgress(lambda _: time.sleep(0.2)))  # as where others have the cores
    assert len(find_examples(tmp_path / "examples")) == count


@pytest.mark.slow
def test_a_server_that_starts_again_goes_on_with_what_was_wanted(
    package: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = threading.Event()
    with serving_file(package) as server:
        monkeypatch.setenv("IMAGEBART_MIRRORS", server.address)
        server.faults.append(holding(len(package) // 2, let_go))
        first = Downloads(True)
        first.start(NAME)
        with pytest.raises(InputError, match="is being downloaded already"):
            first.start(NAME)
        with pytest.raises(InputError, match=f"{NAME} is being downloaded; get churches_3_scales when"):
            first.start("churches_3_scales")
        part = published_folder(NAME).with_name(f"{NAME}.zip.part")
        wait_until(lambda: part.is_file() and part.stat().st_size > 10_000)
        assert ModelChoice(tiny_pipeline(), Models(None), downloads=first).names() == ["tiny"]
        # The process dies without a word, as for lack of memory; its server with it, as far as the files know.
        process = first._process
        assert process is not None and process.pid is not None
        wanted = published_folder(NAME).with_name(f"{NAME}.wanted")
        os.kill(process.pid, signal.SIGKILL)
        wait_until(lambda: first.all()[NAME].failed)
        assert "ended unexpectedly" in first.all()[NAME].line and not wanted.exists()
        wanted.touch()
        let_go.set()
        times = EditTimes(cache_dir() / "times.json")
        again = Downloads(True, times)
        Downloads(False).resume()
        again.resume()
        wait_until(lambda: not again.all()[NAME].running)
    assert not again.all()[NAME].failed, again.all()[NAME].line
    assert server.requests[1]["range"].startswith("bytes=") and len(server.requests) == 2
    assert not wanted.exists()
    choice = ModelChoice(tiny_pipeline(), Models(None), downloads=again)
    assert choice.names() == ["tiny", NAME]
    assert Pipeline.from_pretrained(converted_folder(NAME)).conditioning == "none"
    row = next(row for row in choice.rows() if row["name"] == NAME)
    assert row["here"] and "measured here" in row["facts"]
    assert EditTimes(cache_dir() / "times.json").get(NAME) == times.get(NAME) is not None
    examples = find_examples(converted_folder(NAME) / "examples")
    assert [example.caption for example in examples] == 4 * ["Generated by this model"]
    mask = examples[0].mask()
    assert mask is not None and mask.getbbox() == (4, 4, 12, 12) and examples[0].open().size == (16, 16)
