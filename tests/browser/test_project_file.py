"""A project in Chromium: saved, opened again in another tab as it was, and refused without losing anything."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_object import PageObject, Site
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

PAGE = """() => {
    const { state, history, review } = document.querySelector(".sp").sketchpad;
    const { image } = state;
    return { image: [image.width, image.height], shown: review.finished,
        history: history.entries.map(({ task, prompt, mask, when, name }) => ({ task, prompt, mask, when, name })) };
}"""


def state(page: PageObject) -> tuple[Any, ...]:
    """What is on the page: its state, image and results as files, mask, prompt, settings."""
    files = page.evaluate(
        """() => {
            const { state, history } = document.querySelector(".sp").sketchpad;
            return [state.image.path, ...history.entries.flatMap(({ results }) => results.map(({ path }) => path))];
        }"""
    )
    contents = [page.request.get(f"{page.url}gradio_api/file={path}").body() for path in files]
    settings = [page.get_by_label(name).first.input_value() for name in ("Seed", "What should be there?")]
    return page.evaluate(PAGE), contents, page.mask().tolist(), settings


def test_a_project_is_opened_as_it_was_saved(wide: PageObject, site: Site, gradients: Path, tmp_path: Path) -> None:
    wide.edit()
    wide.upload(gradients, (64, 32))
    wide.press("Left half")
    wide.wait_until_ready()
    wide.type_prompt("a hat, sunglasses")
    wide.edit()
    wide.press("Discard")
    wide.paint()
    wide.type_prompt("a beanie")
    wide.mouse.move(2, 2)
    wide.wait_until_ready()
    before = state(wide)
    canvas = wide.canvas().screenshot()
    wide.button("Save project").focus()
    with wide.expect_download() as download:
        wide.keyboard.press("Enter")
    assert download.value.suggested_filename.endswith(".imagebart")
    project = tmp_path / "saved.imagebart"
    download.value.save_as(project)
    expect(wide.locator(".sp-note")).to_have_text("The project is saved.")

    with wide.open_tab(site.url) as tab:
        with tab.expect_file_chooser() as chooser:
            tab.button("Open project").focus()
            tab.keyboard.press("Enter")
        chooser.value.set_files(project)
        expect(tab.locator("#messages")).to_contain_text("The project is open")
        expect(tab.prompt()).to_have_value("a beanie")
        assert state(tab) == before
        tab.wait_until(lambda: tab.canvas().screenshot() == canvas)
        # A run of the history is opened, and undo leads back to what was there before the project.
        tab.get_by_role("region", name="History").get_by_role("button").first.click()
        tab.expect_review("finished")
        tab.get_by_role("group", name="Scales").get_by_role("button").first.click()
        tab.press("Discard")
        tab.press("Undo")
        tab.press("Undo")
        expect(tab.locator("#image-size")).to_contain_text("40 × 40")
        # Bad files, chosen or dropped: a sentence, and everything stays.
        kept = state(tab)
        tab.on("dialog", lambda dialog: dialog.accept())
        with zipfile.ZipFile(tmp_path / "newer.imagebart", "w") as archive:
            archive.writestr("project.json", json.dumps({"format": "imagebart project", "version": 9}))
        (tmp_path / "broken.imagebart").write_bytes(project.read_bytes()[:5000])
        for name, sentence in (("newer", "format version 9"), ("broken", "is no project of this page")):
            tab.get_by_label("Project", exact=True).set_input_files(tmp_path / f"{name}.imagebart")
            expect(tab.locator(".sp-note")).to_contain_text(sentence)
            assert state(tab) == kept
        # Dropped on a page with a history of its own, after a question.
        tab.drop(project)
        tab.wait_for("() => document.querySelector('.sp').sketchpad.state.image.width === 64")
        assert np.array_equal(tab.mask(), np.array(before[2]))


def test_a_project_brings_its_model_and_its_result_that_is_shown(wide: PageObject, site: Site, tmp_path: Path) -> None:
    wide.locator("#models > button").click()
    wide.press("Use plain")
    expect(wide.locator("#model")).to_contain_text("Model plain")
    wide.press("Centre")
    wide.edit()
    result = wide.result_pixels()
    with wide.expect_download() as download:
        wide.press("Save project")
    download.value.save_as(tmp_path / "saved.imagebart")
    with wide.open_tab(site.url) as tab:
        tab.get_by_label("Project", exact=True).set_input_files(tmp_path / "saved.imagebart")
        expect(tab.locator("#model")).to_contain_text("Model plain")
        tab.expect_review("finished")
        assert np.array_equal(tab.result_pixels(), result)
        expect(tab.locator("#messages")).to_contain_text("The project is open")
