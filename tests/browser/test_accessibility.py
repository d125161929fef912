"""The page for everyone: as axe-core finds names, roles and contrast; without a pointer, by Tab and arrows."""

from importlib.resources import files
from typing import Any

import pytest
from page_object import TOUCH, PageObject, Site, Windows, box_of, preset_mask
from playwright.sync_api import expect

pytestmark = pytest.mark.browser
SCREENS: dict[str, dict[str, Any]] = {"wide": {}, "phone": TOUCH}
COLORS: dict[str, dict[str, Any]] = {"dark": {"runOnly": ["color-contrast"]}, "light": {}}  # and what axe looks for
AXE = """options => axe.run(document, { resultTypes: ["violations"], ...options }).then(({ violations }) =>
    violations.filter(({ impact }) => ["serious", "critical"].includes(impact)).flatMap(({ id, nodes }) =>
        nodes.map(({ html, failureSummary }) => `${id}: ${html.slice(0, 160)} | ${failureSummary}`)))"""
CHANGED_TO = """async (color) => {
    for (let quiet = 0; quiet < 5; quiet++) { // what fades within what fades begins after it
        await new Promise(requestAnimationFrame);
        if (document.getAnimations().length) quiet = 0;
    }
    return document.body.classList.contains("dark") === (color === "dark");
}"""
# Of Edit that is disabled or not: the contrast of its label, what makes it paler, and what fades.
EDIT_S_LOOK = """disabled => {
    const button = document.getElementById("edit");
    getComputedStyle(button).color; // a change from this would fade
    button.disabled = disabled;
    const { color, backgroundColor, opacity, filter } = getComputedStyle(button);
    const [label, ground] = [new axe.commons.color.Color(), new axe.commons.color.Color()];
    label.parseString(color);
    ground.parseString(backgroundColor);
    return [axe.commons.color.getContrast(ground, label), opacity, filter, button.getAnimations().length];
}"""


@pytest.mark.parametrize("screen", SCREENS)
def test_nothing_serious_stands_in_anyones_way(windows: Windows, site: Site, screen: str) -> None:
    with windows.open(site.url, **SCREENS[screen]) as page:
        page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
        folded = page.locator("button.label-wrap:not(.open):visible")
        while folded.count():
            folded.first.click()
        for state in ("", "examples", "masks", "more", "keys", "edited", "sharing", "variants"):
            page.evaluate("document.querySelector(':popover-open')?.hidePopover()")
            if state in ("edited", "variants"):
                page.how_many.nth(3).check()
                page.edit()
            elif state:
                page.evaluate("menu => document.getElementById(menu).showPopover()", state)
            if state == "variants":
                page.keyboard.press("g")
            for color, options in COLORS.items():
                page.emulate_media(color_scheme=color)
                page.wait_for(CHANGED_TO, color)
                assert "\n".join(page.evaluate(AXE, options)) == "", color
                for disabled in (True, False):
                    contrast, *paler = page.evaluate(EDIT_S_LOOK, disabled)
                    assert contrast >= 4.5 and paler == ["1", "none", 0]


def test_in_the_system_s_colors_one_sees_what_is_chosen(windows: Windows, site: Site) -> None:
    """What is told from something else by its background has another one there, too."""
    with windows.open(site.url, forced_colors="active") as page:
        page.edit()
        background = "part => getComputedStyle(part).backgroundColor"
        pairs = [
            (page.button("Brush"), page.button("Eraser")),
            (page.button("Keep"), page.button("Again")),
            (page.button("Keep"), page.button("Discard")),
            (page.locator("#mode :checked + span"), page.locator("#mode :not(:checked) + span").first),
            (page.locator(".ib-fill"), page.locator(".ib-track")),
        ]
        for chosen, other in pairs:
            assert chosen.evaluate(background) != other.evaluate(background), chosen
        knob = page.evaluate("getComputedStyle(document.querySelector('.sp-slider'), '::before').backgroundColor")
        assert knob == page.button("Brush").evaluate(background)


FOCUSED = "document.activeElement.id || document.activeElement.ariaLabel || document.activeElement.textContent.trim()"


def press_keys(page: PageObject, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def walk(page: PageObject, key: str, end: str, most: int) -> list[str]:
    """Names of what has the focus after each press of a key, up to the one at the end."""
    found: list[str] = []
    while end not in found:
        assert len(found) < most, found
        page.keyboard.press(key)
        found.append(page.evaluate(FOCUSED))
    return found


def test_every_control_is_reached_by_few_stops_and_is_seen(wide: PageObject) -> None:
    wide.get_by_label("Model", exact=True).focus()
    found = walk(wide, "Tab", "edit", 9)
    assert [found.count(name) for name in ("Open an image", "Brush", "Clear mask")] == [1, 1, 1], found
    fill = wide.get_by_role("radio", name="Fill")
    for part in (wide.prompt, wide.button("Edit"), wide.canvas, wide.button("Brush")):
        part.focus()
        outline = part.evaluate("part => [getComputedStyle(part).outlineStyle, getComputedStyle(part).outlineWidth]")
        assert outline == ["solid", "3px"], part
    wide.edit()
    wide.get_by_label("Model", exact=True).focus()
    walk(wide, "Tab", "keep", 11)
    # What is done is one stop, and arrows choose.
    fill.focus()
    press_keys(wide, "ArrowRight")
    expect(wide.get_by_role("radio", name="Remove")).to_be_checked()
    press_keys(wide, "Tab")
    assert not wide.evaluate("document.activeElement.matches('#mode input')")


def test_arrows_lead_to_every_tool_mask_and_example(wide: PageObject) -> None:
    """And change nothing on their way."""
    before = wide.mask()
    wide.button("Brush").focus()
    reached = walk(wide, "ArrowRight", "More", 20)
    assert {"Eraser", "Lasso", "Brush size"} < set(reached) and "Redo" not in reached, "it is disabled"
    size = wide.get_by_label("Brush size")
    assert (wide.mask() == before).all() and size.input_value() == "40"
    for key, name in {"ArrowRight": "Brush", "ArrowLeft": "More", "Home": "Brush", "End": "More"}.items():
        press_keys(wide, key)
        expect(wide.button(name)).to_be_focused()
    size.focus()
    press_keys(wide, "ArrowUp")
    expect(size).to_have_value("41")
    wide.button("Masks ▾").focus()
    press_keys(wide, "Enter", "Tab", "ArrowRight", "ArrowRight", "Enter")
    assert (wide.mask() == preset_mask("left half", (40, 40))).all()
    expect(wide.button("Masks ▾")).to_be_focused()
    wide.button("Open an image").focus()
    press_keys(wide, "Enter", "Tab", "Tab", "ArrowRight", "Enter")
    expect(wide.image_size).to_contain_text("48 × 40")


def test_what_is_written_into_the_settings_stays(wide: PageObject) -> None:
    """As they open; and when the focus passes the list of models."""
    wide.evaluate(
        """() => {
            document.querySelector("#settings > button").click();
            const seed = document.querySelector("#seed input");
            seed.value = "77";
            seed.dispatchEvent(new Event("input", { bubbles: true }));
        }"""
    )
    wide.press("Upper half")
    wide.expect_painted(32)
    expect(wide.seed).to_be_visible()
    asked: list[str] = []
    wide.on("request", lambda request: "join" in request.url and asked.append(request.url))
    wide.get_by_label("Model", exact=True).focus()
    press_keys(wide, "Tab")
    expect(wide.button("Open an image")).to_be_focused()
    wide.press("Center")
    wide.expect_painted(16)
    assert not asked, "more was asked for than what will change"
    expect(wide.seed).to_have_value("77")


def test_the_focus_stays_where_enter_was_pressed_and_variants_are_chosen_by_arrows(wide: PageObject) -> None:
    wide.button("Brush").focus()
    press_keys(wide, "?", "Escape")
    assert wide.evaluate(FOCUSED) == "Brush"
    wide.unfold_settings()
    wide.how_many.nth(2).check()
    wide.button("Edit").focus()
    press_keys(wide, "Enter")
    wide.expect_finished()
    assert wide.evaluate(FOCUSED) == "keep"
    start, first, first_address = wide.sent_value(), wide.result_pixels(), wide.result_address()
    chosen = wide.button("Variant 2")
    wide.button("Variant 1").focus()
    press_keys(wide, "ArrowRight", "Enter")
    expect(chosen).to_be_focused()
    expect(chosen).to_have_attribute("aria-pressed", "true")
    assert (wide.result_pixels() != first).any()
    # All of them large, in the place of the canvas.
    press_keys(wide, "g")
    expect(wide.button("Keep variant 2")).to_be_focused()
    large, frame = box_of(wide.get_by_role("dialog", name="All variants")), box_of(wide.locator(".sp-frame"))
    assert abs(large["width"] - frame["width"]) < 4 and abs(large["height"] - frame["height"]) < 4
    press_keys(wide, "Escape")
    expect(chosen).to_be_focused()
    press_keys(wide, "g")
    for key, place in {"Home": 1, "ArrowLeft": 3, "End": 3, "ArrowUp": 1, "ArrowDown": 3, "ArrowRight": 1}.items():
        press_keys(wide, key)
        expect(wide.button(f"Keep variant {place}")).to_be_focused()
    assert wide.sent_value() == start, "arrows belong to the variants"
    # What goes away with the result gives the focus to the canvas.
    press_keys(wide, "Enter")
    wide.expect_review("")
    expect(wide.canvas).to_be_focused()
    assert first_address.endswith(wide.sent_value()["image"].rpartition("/")[2])
    for name in ("Examples", "Variants", "Runs"):
        buttons = wide.locator(f"[aria-label={name}] button").all()
        assert sum(button.get_attribute("tabindex") == "0" for button in buttons) <= 1, name
        assert all(button.get_attribute("tabindex") in ("0", "-1") for button in buttons), name
