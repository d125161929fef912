"""The page in Chromium without a pointer: stops of the Tab key, and arrows within a toolbar."""

from __future__ import annotations

import numpy as np
import pytest
from driving import edit, expect_regenerated, mask, press, result_pixels, unfold
from playwright.sync_api import Page, expect

from imagebart.imaging.masks import preset

pytestmark = pytest.mark.browser
FOCUSED = "document.activeElement.id || document.activeElement.ariaLabel || document.activeElement.textContent.trim()"


def stops(page: Page, most: int) -> list[str]:
    """Names of what the Tab key comes to, from the page's first control to Edit; fails beyond so many."""
    page.get_by_label("Model", exact=True).focus()
    found = ["Model"]
    while "edit" not in found:
        assert len(found) < most, found
        page.keyboard.press("Tab")
        found.append(page.evaluate(FOCUSED))
    return found


def test_edit_is_among_the_first_ten_stops_before_and_after_a_run(wide: Page) -> None:
    found = stops(wide, 10)
    assert [found.count(name) for name in ("First: a hat", "Brush", "Upper half")] == [1, 1, 0], found
    edit(wide)
    stops(wide, 10)


def test_who_passes_the_list_of_models_loses_no_settings(wide: Page) -> None:
    unfold(wide, "Settings")
    wide.locator("#seed input").fill("77")
    asked: list[str] = []
    wide.on("request", lambda request: asked.append(request.url))
    wide.get_by_label("Model", exact=True).focus()
    wide.keyboard.press("Tab")
    expect(wide.get_by_role("button", name="First: a hat")).to_be_focused()
    press(wide, "Upper half")
    expect_regenerated(wide, 32)
    assert len(asked) == 1, "more was asked for than the grid"
    expect(wide.locator("#seed input")).to_have_value("77")


def test_what_is_written_into_the_settings_as_they_open_stays(wide: Page) -> None:
    wide.evaluate(
        """() => {
            document.querySelector("#settings > button").click();
            const seed = document.querySelector("#seed input");
            seed.value = "77";
            seed.dispatchEvent(new Event("input", { bubbles: true }));
        }"""
    )
    press(wide, "Upper half")
    expect_regenerated(wide, 32)
    expect(wide.locator("#seed input")).to_be_visible()
    expect(wide.locator("#seed input")).to_have_value("77")


def test_arrows_reach_every_tool_and_nothing_else_is_changed_by_them(wide: Page) -> None:
    before = mask(wide)
    wide.get_by_role("button", name="Brush", exact=True).focus()
    reached = []
    while reached[-1:] != ["Keys"]:
        assert len(reached) < 20, reached
        wide.keyboard.press("ArrowRight")
        reached.append(wide.evaluate(FOCUSED))
    assert {"Eraser", "Lasso", "Brush size", "Zoom in"} < set(reached) and "Redo" not in reached, "it is disabled"
    assert (mask(wide) == before).all() and wide.get_by_label("Brush size").input_value() == "40"
    for key, name in {"ArrowRight": "Brush", "ArrowLeft": "Keys", "Home": "Brush", "End": "Keys"}.items():
        wide.keyboard.press(key)
        expect(wide.get_by_role("button", name=name, exact=True)).to_be_focused()
    size = wide.get_by_label("Brush size")
    size.focus()
    wide.keyboard.press("ArrowUp")
    expect(size).to_have_value("41")


def test_arrows_lead_along_masks_and_examples(wide: Page) -> None:
    wide.get_by_role("button", name="Upper half").focus()
    for name in ("Lower half", "Left half"):
        wide.keyboard.press("ArrowRight")
        expect(wide.get_by_role("button", name=name)).to_be_focused()
    wide.keyboard.press("Enter")
    assert (mask(wide) == np.asarray(preset("left half", (40, 40)))).all()
    wide.get_by_role("button", name="First: a hat").focus()
    wide.keyboard.press("ArrowRight")
    wide.keyboard.press("Enter")
    expect(wide.locator("#image-size")).to_contain_text("48 × 40")


def test_variants_are_chosen_by_arrows_and_each_row_stays_one_stop(wide: Page) -> None:
    wide.get_by_role("radio", name="3").check()
    edit(wide)
    first = result_pixels(wide)
    chosen = wide.get_by_role("button", name="Variant 2")
    wide.get_by_role("button", name="Variant 1").focus()
    wide.keyboard.press("ArrowRight")
    expect(chosen).to_be_focused()
    wide.keyboard.press("Enter")
    expect(chosen).to_have_attribute("aria-pressed", "true")
    assert (result_pixels(wide) != first).any()
    press(wide, "Keep")
    edit(wide, "Vary")
    for name in ("Examples", "Variants", "Runs"):
        buttons = wide.locator(f"[aria-label={name}] button").all()
        assert sum(button.get_attribute("tabindex") == "0" for button in buttons) <= 1, name
        assert all(button.get_attribute("tabindex") in ("0", "-1") for button in buttons), name
