"""The page in Chromium: words, suggestions and models."""

from __future__ import annotations

import pytest
from page_object import PIPELINE, PageObject
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


def test_words_are_checked_put_right_added_and_undone(wide: PageObject) -> None:
    """Unknown ones are named as they are typed; a click corrects one, or adds a suggestion; Undo takes it back."""
    prompt, line = wide.prompt(), wide.locator("#unknown")
    expect(line).to_be_hidden()
    wide.type_prompt("a zebra hat isn't шляпа")
    expect(line).to_have_text("Not known to this model, will be ignored: zebra isn't шляпа")
    wide.type_prompt("Sunglases")
    expect(line).to_be_hidden()
    wide.locator("#corrections").get_by_role("button", name="Sunglases → sunglasses").click()
    expect(prompt).to_have_value("sunglasses")
    expect(wide.locator("#corrections")).to_be_hidden()
    wide.press("Left half")
    painted = wide.mask()
    attribute, words = next(iter(PIPELINE.suggestions.items()))
    fold = wide.locator("#suggestions [aria-controls]").first
    fold.press("Enter")
    expect(fold).to_have_attribute("aria-expanded", "true")
    group = wide.locator("#suggestions").get_by_role("group", name=attribute)
    chip = group.get_by_role("button", name=words[0], exact=True)
    chip.click()
    expect(prompt).to_have_value(f"sunglasses, {words[0]}")
    expect(chip).to_have_attribute("aria-pressed", "true")
    wide.press("Clear mask")
    wide.press("Surprise me")
    expect(prompt).not_to_have_value(f"sunglasses, {words[0]}")
    expect(wide.note).to_contain_text("Undo brings back your own words")
    assert prompt.input_value() and not PIPELINE.unknown_words(prompt.input_value())
    prompt.focus()
    for words_before in (f"sunglasses, {words[0]}", f"sunglasses, {words[0]}", "sunglasses"):
        wide.keyboard.press("Control+z")
        expect(prompt).to_have_value(words_before)
    assert (wide.mask() == painted).all()


def test_undo_takes_back_words_or_the_result_whichever_came_last(wide: PageObject) -> None:
    wide.type_prompt("a hat")
    wide.edit()
    result = wide.result_address()
    wide.prompt().press("End")
    wide.keyboard.type(" and")
    wide.press("Undo")
    expect(wide.prompt()).to_have_value("a hat")
    assert wide.result_address() == result
    wide.press("Undo")
    wide.expect_review("")


def choose(page: PageObject, name: str, *captions: str) -> None:
    """Another model, with examples of these captions."""
    page.get_by_label("Model", exact=True).click()
    page.get_by_role("option", name=name).click()
    expect(page.locator("#model")).to_contain_text(name)
    buttons = page.get_by_role("group", name="Examples").get_by_role("button")
    expect(buttons).to_have_count(len(captions))
    for number, caption in enumerate(captions):
        expect(buttons.nth(number)).to_have_accessible_name(caption)


def test_each_model_brings_its_examples_and_controls_and_what_was_painted_stays(wide: PageObject) -> None:
    size = wide.image_size
    choose(wide, "animals", "Animals 1")
    expect(size).to_have_text("32 × 32 pixels")
    wide.expect_painted(16)
    expect(wide.locator("#prompt")).to_be_hidden()
    kind = wide.locator("#choice input")
    kind.click()
    kind.fill("bi")
    wide.get_by_role("option", name="bird").click()
    wide.edit()
    wide.press("Discard")
    choose(wide, "tiny", "First: a hat", "Second")
    expect(size).to_have_text("40 × 40 pixels")
    expect(wide.locator("#prompt")).to_be_visible()
    wide.choose_second_example()
    wide.paint()
    painted = wide.mask()
    choose(wide, "plain", "Plain 2")
    expect(size).to_have_text("48 × 40 pixels")
    assert (wide.mask() == painted).all() and painted.any()
    expect(wide.locator("#choice")).to_be_hidden()
    expect(wide.locator("#surprise")).to_be_hidden()
    wide.edit()
