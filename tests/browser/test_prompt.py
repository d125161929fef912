"""The page in Chromium: words, suggestions and models."""

from __future__ import annotations

import pytest
from page_object import PIPELINE, PageObject
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

PROMPTS = (
    "a hat",
    "Zebra HAT, blue hoodie",
    "the woman's hat isn't a zébra",
    "80s hat 😀 hat",
    "don't, can't; hat/zebra-hat",
    "шляпа and 帽子 ❤️",
)


def named(page: PageObject) -> list[str]:
    return page.locator("#unknown mark").all_inner_texts()


def test_words_that_the_model_does_not_know_are_named_as_they_are_typed(wide: PageObject) -> None:
    line, offers = wide.locator("#unknown"), wide.locator("#corrections")
    expect(line).to_be_hidden()
    for prompt in PROMPTS:
        wide.type_prompt(prompt)
        wide.wait_until(lambda prompt=prompt: named(wide) == PIPELINE.unknown_words(prompt))
    wide.type_prompt("zebra")
    expect(line).to_have_text("Not known to this model, will be ignored: zebra")
    wide.type_prompt("")
    expect(line).to_be_hidden()
    # Words that are taken for others are not named, and one of them is put right by a click.
    wide.type_prompt("sunglases, zebra and red hiar")
    expect(line).to_have_text("Not known to this model, will be ignored: zebra")
    wide.type_prompt("roudn glasses")
    expect(line).to_be_hidden()
    wide.type_prompt("Sunglases, zebra, a hat")
    offers.get_by_role("button", name="Sunglases → sunglasses").click()
    expect(wide.prompt()).to_have_value("sunglasses, zebra, a hat")
    expect(offers).to_be_hidden()


def test_suggestions_and_surprises_are_known_words(wide: PageObject) -> None:
    prompt = wide.prompt()
    attribute, words = next(iter(PIPELINE.suggestions.items()))
    wide.type_prompt("blue")
    fold = wide.locator("#suggestions [aria-controls]").first
    expect(fold).to_contain_text(attribute)
    fold.focus()
    fold.press("Enter")
    expect(fold).to_have_attribute("aria-expanded", "true")
    group = wide.locator("#suggestions").get_by_role("group", name=attribute)
    chip = group.get_by_role("button", name=words[0], exact=True)
    chip.click()
    expect(prompt).to_have_value(f"blue, {words[0]}")
    expect(chip).to_have_attribute("aria-pressed", "true")
    chip.press("Enter")
    expect(prompt).to_have_value("blue")
    expect(chip).to_have_attribute("aria-pressed", "false")
    wide.type_prompt("zebra")
    expect(wide.locator("#unknown")).to_be_visible()
    wide.press("Surprise me")
    expect(prompt).not_to_have_value("zebra")
    expect(wide.locator("#unknown")).to_be_hidden()
    assert prompt.input_value()


def test_words_and_masks_are_undone_in_the_order_in_which_they_were_made(wide: PageObject) -> None:
    prompt = wide.prompt()
    start = [prompt.input_value(), wide.mask()]
    steps = [start]

    def note_step() -> None:
        steps.append([prompt.input_value(), wide.mask()])

    prompt.focus()
    wide.keyboard.press("Control+a")
    wide.keyboard.type("red sunglases")
    note_step()  # ended by a click
    wide.locator("#corrections").get_by_role("button").click()
    expect(prompt).to_have_value("red sunglasses")
    note_step()
    wide.press("Left half")
    note_step()
    wide.press("Surprise me")
    expect(prompt).not_to_have_value("red sunglasses")
    expect(wide.locator(".sp-note")).to_contain_text("Undo brings back your own words")
    note_step()
    wide.locator("#suggestions [aria-controls]").first.click()
    wide.locator("#suggestions [data-add]:visible").last.click()
    note_step()
    prompt.focus()
    wide.keyboard.press("End")
    for word in (" a", " hat"):  # a pause ends a step
        before = wide.evaluate("document.querySelector('.sp').sketchpad.state.past.length")
        wide.keyboard.type(word)
        note_step()
        wide.wait_for("before => document.querySelector('.sp').sketchpad.state.past.length > before", before)
    wide.edit()
    result = wide.result_address()
    prompt.focus()
    wide.keyboard.type(" and")
    assert prompt.input_value() != steps[-1][0]
    wide.button("Undo").click()  # first the words, which came last; then the result
    assert prompt.input_value() == steps[-1][0] and wide.result_address() == result
    wide.button("Undo").click()
    wide.expect_review("")
    assert len({words for words, _ in steps}) == len(steps) - 1
    prompt.focus()
    for words, mask in steps[-2::-1]:
        wide.keyboard.press("Control+z")
        assert prompt.input_value() == words and (wide.mask() == mask).all()
    expect(wide.button("Undo")).to_be_disabled()
    for words, mask in steps[1:]:
        wide.press("Redo")
        assert prompt.input_value() == words and (wide.mask() == mask).all()
    wide.press("Clear mask")
    wide.type_prompt("other words")
    wide.get_by_role("region", name="History").get_by_role("button").click()
    wide.expect_review("finished")
    assert prompt.input_value() == steps[-1][0] and (wide.mask() == steps[-1][1]).all()
    wide.press("Discard")
    wide.press("Undo")
    assert prompt.input_value() == "other words" and not wide.mask().any()


def choose(page: PageObject, name: str) -> None:
    page.get_by_label("Model", exact=True).click()
    page.get_by_role("option", name=name).click()
    expect(page.locator("#model")).to_contain_text(name)


def examples_are(page: PageObject, *captions: str) -> None:
    buttons = page.get_by_role("group", name="Examples").get_by_role("button")
    expect(buttons).to_have_count(len(captions))
    for number, caption in enumerate(captions):
        expect(buttons.nth(number)).to_have_accessible_name(caption)


def test_each_model_brings_its_examples_and_controls_and_what_was_painted_stays(wide: PageObject) -> None:
    first = ("First: a hat", "Second")
    examples_are(wide, *first)
    expect(wide.locator("#image-size")).to_have_text("40 × 40 pixels")
    choose(wide, "animals")
    examples_are(wide, "Animals 1")
    expect(wide.locator("#image-size")).to_have_text("32 × 32 pixels")
    wide.expect_painted(16)
    choose(wide, "tiny")
    examples_are(wide, *first)
    expect(wide.locator("#image-size")).to_have_text("40 × 40 pixels")
    wide.choose_second_example()
    wide.paint()
    painted = wide.mask()
    choose(wide, "plain")
    examples_are(wide, "Plain 2")
    expect(wide.locator("#image-size")).to_have_text("48 × 40 pixels")
    assert (wide.mask() == painted).all() and painted.any()
    # Each has its own controls.
    choose(wide, "animals")
    expect(wide.locator("#prompt")).to_be_hidden()
    kind = wide.locator("#choice input")
    kind.click()
    kind.fill("bi")
    wide.get_by_role("option", name="bird").click()
    wide.edit()
    choose(wide, "plain")
    expect(wide.locator("#choice")).to_be_hidden()
    expect(wide.locator("#surprise")).to_be_hidden()
    wide.edit()
    choose(wide, "tiny")
    expect(wide.locator("#prompt")).to_be_visible()
