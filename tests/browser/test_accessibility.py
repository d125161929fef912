"""The page for everyone: as axe-core finds names, roles and contrast; without a pointer, by Tab and arrows."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from page_object import PHONE, WIDE, PageObject, Site, Windows
from playwright.sync_api import expect

from imagebart.imaging.masks import preset

pytestmark = pytest.mark.browser
SCREENS = {"wide": {"viewport": WIDE}, "phone": {"viewport": PHONE, "has_touch": True, "is_mobile": True}}


def findings(page: PageObject, **options: Any) -> list[str]:
    """What axe-core holds to be serious or critical, one line for each part of the page."""
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    run = "options => axe.run(document, { resultTypes: ['violations'], ...options }).then(found => found.violations)"
    violations = page.evaluate(run, options)
    return [
        f"{violation['id']} ({violation['impact']}): {node['html'][:160]} | {_summary(node)}"
        for violation in violations
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def _summary(node: dict[str, Any]) -> str:
    return " ".join(node["failureSummary"].split())[:240]


def unfold_all(page: PageObject) -> None:
    """Open what is folded, so that nothing is left out."""
    for button in page.locator("button.label-wrap:not(.open)").all():
        if button.is_visible():
            button.click()


SEEN = """async (disabled) => {
    const button = document.getElementById("edit");
    const seen = () => {
        const { color, backgroundColor, opacity, filter } = getComputedStyle(button);
        return [color, backgroundColor, opacity, filter];
    };
    seen();
    button.disabled = disabled;
    const atOnce = seen();
    await Promise.all(document.getAnimations().map((animation) => animation.finished));
    return [atOnce, seen()];
}"""


def contrast(*colours: str) -> float:
    """Contrast of two opaque colours, "rgb(…)", as WCAG 2 has it."""
    darker, lighter = sorted(map(_luminance, colours))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    red, green, blue = (int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (red, green, blue)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("screen", SCREENS)
def test_nothing_serious_stands_in_anyones_way(windows: Windows, site: Site, screen: str) -> None:
    """In dark colors only these can be wrong; the rest is the same. A button is readable in every state."""
    for scheme, options in (("light", {}), ("dark", {"runOnly": ["color-contrast"]})):
        with windows.open(site.url, **SCREENS[screen], color_scheme=scheme) as page:
            for disabled in (True, False):
                at_once, at_last = page.evaluate(SEEN, disabled)
                assert at_once == at_last, "it fades: half way its label is pale"
                assert at_last[2:] == ["1", "none"]
                assert contrast(*at_last[:2]) >= 4.5
            unfold_all(page)
            assert "\n".join(findings(page, **options)) == "", scheme
            page.edit()
            assert "\n".join(findings(page, **options)) == "", scheme


def test_in_the_system_s_colours_one_sees_what_is_chosen(windows: Windows, site: Site) -> None:
    """What is told from something else by its background has another one there, too."""
    with windows.open(site.url, forced_colors="active") as page:
        page.edit()
        background = "part => getComputedStyle(part).backgroundColor"
        pairs = [
            (page.button("Brush"), page.button("Eraser")),
            (page.button("Edit"), page.button("Generate")),
            (page.button("Keep"), page.button("Discard")),
            (page.locator("#how-many label.selected"), page.locator("#how-many label:not(.selected)").first),
            (page.locator(".ib-fill"), page.locator(".ib-track")),
        ]
        for chosen, other in pairs:
            assert chosen.evaluate(background) != other.evaluate(background), chosen
        assert page.evaluate("getComputedStyle(document.querySelector('.sp-slider'), '::before').backgroundColor") == (
            page.button("Brush").evaluate(background)
        )


FOCUSED = "document.activeElement.id || document.activeElement.ariaLabel || document.activeElement.textContent.trim()"


def stops(page: PageObject, most: int) -> list[str]:
    """Names of what the Tab key comes to, from the page's first control to Edit; fails beyond so many."""
    page.get_by_label("Model", exact=True).focus()
    found = ["Model"]
    while "edit" not in found:
        assert len(found) < most, found
        page.keyboard.press("Tab")
        found.append(page.evaluate(FOCUSED))
    return found


def test_every_control_is_reached_by_few_stops_and_arrows_and_is_seen(wide: PageObject) -> None:
    found = stops(wide, 10)
    assert [found.count(name) for name in ("First: a hat", "Brush", "Upper half")] == [1, 1, 0], found
    parts = (wide.prompt(), wide.get_by_role("radio", name="1"), wide.button("Edit"), wide.button("Brush"))
    for part in (*parts, wide.canvas()):
        part.focus()
        style, width = part.evaluate(
            "part => [getComputedStyle(part).outlineStyle, getComputedStyle(part).outlineWidth]"
        )
        assert (style, width) == ("solid", "3px"), part
    # The arrows lead to every tool, and change nothing on their way.
    before = wide.mask()
    wide.button("Brush").focus()
    reached = []
    while reached[-1:] != ["Keys"]:
        assert len(reached) < 20, reached
        wide.keyboard.press("ArrowRight")
        reached.append(wide.evaluate(FOCUSED))
    assert {"Eraser", "Lasso", "Brush size", "Zoom in"} < set(reached) and "Redo" not in reached, "it is disabled"
    assert (wide.mask() == before).all() and wide.get_by_label("Brush size").input_value() == "40"
    for key, name in {"ArrowRight": "Brush", "ArrowLeft": "Keys", "Home": "Brush", "End": "Keys"}.items():
        wide.keyboard.press(key)
        expect(wide.button(name)).to_be_focused()
    size = wide.get_by_label("Brush size")
    size.focus()
    wide.keyboard.press("ArrowUp")
    expect(size).to_have_value("41")
    # Along masks and examples.
    wide.get_by_role("button", name="Upper half").focus()
    for name in ("Lower half", "Left half"):
        wide.keyboard.press("ArrowRight")
        expect(wide.get_by_role("button", name=name)).to_be_focused()
    wide.keyboard.press("Enter")
    assert (wide.mask() == np.asarray(preset("left half", (40, 40)))).all()
    wide.get_by_role("button", name="First: a hat").focus()
    wide.keyboard.press("ArrowRight")
    wide.keyboard.press("Enter")
    expect(wide.locator("#image-size")).to_contain_text("48 × 40")
    wide.press("Upper half")
    wide.edit()
    stops(wide, 10)


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
    expect(wide.locator("#seed input")).to_be_visible()
    expect(wide.locator("#seed input")).to_have_value("77")
    asked: list[str] = []
    wide.on("request", lambda request: "join" in request.url and asked.append(request.url))
    wide.get_by_label("Model", exact=True).focus()
    wide.keyboard.press("Tab")
    expect(wide.get_by_role("button", name="First: a hat")).to_be_focused()
    wide.press("Centre")
    wide.expect_painted(16)
    assert not asked, "more was asked for than what will change"
    expect(wide.locator("#seed input")).to_have_value("77")


def test_the_focus_stays_where_enter_was_pressed_and_variants_are_chosen_by_arrows(wide: PageObject) -> None:
    for name in ("Edit", "Generate"):
        wide.button(name).focus()
        wide.keyboard.press("Enter")
        wide.expect_review("finished")
        wide.expect_finished()
        assert wide.evaluate(FOCUSED) == name.lower()
        # What goes away with the result gives the focus to the canvas.
        wide.button("Discard" if name == "Generate" else "Keep").focus()
        wide.keyboard.press("Enter")
        wide.expect_review("")
        assert wide.evaluate("document.activeElement.matches('.sp canvas')")
        wide.press("Upper half")
    wide.button("Invert").focus()
    wide.keyboard.press("?")
    wide.keyboard.press("Escape")
    assert wide.evaluate(FOCUSED) == "Invert"
    # The number of images is one stop, and arrows choose.
    wide.get_by_role("radio", name="1").focus()
    for number in ("2", "3"):
        wide.keyboard.press("ArrowRight")
        expect(wide.get_by_role("radio", name=number)).to_be_checked()
    wide.keyboard.press("Tab")
    assert not wide.evaluate("document.activeElement.matches('#how-many input')")
    wide.edit()
    expect(wide.get_by_role("toolbar", name="Variants").get_by_role("button")).to_have_count(3)
    start, first, first_address = wide.sent_value(), wide.result_pixels(), wide.result_address()
    chosen = wide.button("Variant 2")
    wide.button("Variant 1").focus()
    wide.keyboard.press("ArrowRight")
    expect(chosen).to_be_focused()
    wide.keyboard.press("Enter")
    expect(chosen).to_have_attribute("aria-pressed", "true")
    assert (wide.result_pixels() != first).any()
    # All of them large, in the place of the canvas.
    large, frame = wide.get_by_role("dialog", name="All variants"), wide.locator(".sp-frame").bounding_box()
    wide.keyboard.press("g")
    expect(wide.button("Keep variant 2")).to_be_focused()
    inside = large.bounding_box()
    assert inside is not None and frame is not None
    assert abs(inside["width"] - frame["width"]) < 4 and abs(inside["height"] - frame["height"]) < 4
    for button in large.get_by_role("button").all():
        box = button.bounding_box()
        assert box is not None and min(box["width"], box["height"]) >= 44, button
    assert wide.button("Keep variant 2").evaluate("tile => getComputedStyle(tile).outlineStyle") == "solid"
    wide.keyboard.press("Escape")
    expect(large).to_be_hidden()
    expect(chosen).to_be_focused()
    wide.press("Enlarge")
    columns = int(wide.locator(".sp-tiles").get_attribute("data-columns") or 0)
    keys = ["Home", "ArrowLeft", "ArrowRight", "ArrowRight", "End", "ArrowLeft", "ArrowLeft", "ArrowDown", "ArrowUp"]
    places = [1, 3, 1, 2, 3, 2, 1, 1 + columns if columns < 3 else 1, 1]
    for key, place in zip(keys, places, strict=True):
        wide.keyboard.press(key)
        expect(wide.button(f"Keep variant {place}")).to_be_focused()
    assert wide.sent_value() == start, "arrows belong to the variants"
    wide.keyboard.press("Enter")
    wide.expect_review("")
    expect(wide.canvas()).to_be_focused()
    assert first_address.endswith(wide.sent_value()["image"].rpartition("/")[2])
    wide.edit("Vary")
    for name in ("Examples", "Variants", "Runs"):
        buttons = wide.locator(f"[aria-label={name}] button").all()
        assert sum(button.get_attribute("tabindex") == "0" for button in buttons) <= 1, name
        assert all(button.get_attribute("tabindex") in ("0", "-1") for button in buttons), name
