"""A running page on a tiny random model, Chromium, and windows of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from driving import PIPELINE, WIDE, Site, gradient, opened
from playwright.sync_api import Browser, Page, sync_playwright

from imagebart.masks import preset
from imagebart.models import Models
from imagebart.testing import tiny_model
from imagebart.ui.examples import find_examples
from imagebart.ui.launch import launch_page
from imagebart.ui.page import build_page


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The page, with two examples, the first with a mask and a prompt, and two more models to switch to."""
    examples, models = tmp_path_factory.mktemp("examples"), tmp_path_factory.mktemp("models")
    gradient((40, 40), 0).save(examples / "01-first.png")
    preset("centre", (40, 40)).save(examples / "01-first.mask.png")
    (examples / "01-first.txt").write_text("a hat", encoding="utf-8")
    gradient((48, 40), 200).save(examples / "02-second.png")
    tiny_model("class").save_pretrained(models / "animals")
    tiny_model("none").save_pretrained(models / "plain")
    page = build_page(PIPELINE, find_examples(examples), Models(models))
    _, url, _ = launch_page(page, prevent_thread_lock=True, server_name="127.0.0.1", quiet=True)
    yield Site(url, examples)
    page.close(verbose=False)


# Not for the session: Playwright keeps an event loop running in this thread, and other tests run their own.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    path = os.environ.get("IMAGEBART_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.fail("There is no Chromium: `make test` installs one, or name it in IMAGEBART_CHROMIUM.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def wide(chromium: Browser, site: Site) -> Iterator[Page]:
    with opened(chromium, site.url, viewport=WIDE) as page:
        yield page


@pytest.fixture
def gradients(tmp_path: Path) -> Path:
    """An upload that is no square."""
    path = tmp_path / "upload.png"
    gradient((64, 32), 33).save(path)
    return path
