"""The page in Chromium on wide screens and a phone: what fits and can be reached."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from page_object import PHONE, PIPELINE, TOUCH, PageObject, Site, Windows, box_of, served_with_examples
from playwright.sync_api import Locator, ViewportSize, expect

pytestmark = pytest.mark.browser
EXAMPLES = Path(__file__).resolve().parents[2] / "checkpoints" / "avatars" / "examples"
SCREENS: list[ViewportSize] = [{"width": 1440, "height": 900}, {"width": 1024, "height": 768}]
SIDEWAYS: ViewportSize = {"width": 844, "height": 390}
# Labels that are wider than their buttons.
OVERFLOWING = """[
    ...document.querySelectorAll("#dock button, #sharing button, .sp button, a.sp-button"),
].filter((button) => {
    if (!button.checkVisibility()) return false;
    const text = document.createRange();
    text.selectNodeContents(button);
    const [label, box] = [text.getBoundingClientRect(), button.getBoundingClientRect()];
    return label.left < box.left || label.right > box.right;
}).map((button) => button.textContent)"""


@pytest.fixture(scope="module")
def shipped_examples() -> Iterator[Site]:
    with served_with_examples(PIPELINE, EXAMPLES) as site:
        yield site


def expect_in_sight(page: PageObject, *parts: Locator) -> None:
    for part in parts:
        box, screen = box_of(part), page.viewport_size
        assert box["x"] >= 0 and box["x"] + box["width"] <= screen["width"], part
        assert box["y"] >= 0 and box["y"] + box["height"] <= screen["height"], part


def expect_large_enough_for_a_finger(parts: Locator, side: int = 40) -> None:
    for part in parts.all():
        assert min(box_of(part)["width"], box_of(part)["height"]) >= side, part


def expect_no_wider_than_the_screen(page: PageObject) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    assert page.evaluate(OVERFLOWING) == []


def test_the_main_way_needs_no_scrolling(windows: Windows, shipped_examples: Site) -> None:
    with windows.open(shipped_examples.url) as page:
        for screen in SCREENS:
            page.set_viewport_size(screen)
            page.press("Upper half")
            painting = [page.button(name) for name in ("Upper half", "Clear mask", "Edit")]
            expect_in_sight(page, *painting, page.canvas, page.prompt, page.locator(".sp-examples"))
            page.locator("#how-many").get_by_text("4", exact=True).click()
            page.edit()
            finishing = [page.button("Keep"), page.get_by_role("link", name="Download", exact=True), page.variants.last]
            expect_in_sight(page, *finishing, page.progress, page.canvas, page.locator("#history"))
            assert page.evaluate("scrollY") == 0
            expect_no_wider_than_the_screen(page)
            page.press("Discard")
        # Settings open beside the image.
        page.settings.click()
        page.button("Reset the settings").scroll_into_view_if_needed()
        assert page.evaluate("scrollY") > 0
        expect_in_sight(page, page.canvas, page.button("Edit"))


# Notes, frame by frame, what moves but the image, its film, the prompt, which grows upwards on a phone, and what is
# new; and what Chrome itself calls a layout shift. `settled` waits until two frames were looked at.
WATCH_MOVES = """() => {
    const changing = "#prompt, #history .sp-strip, .sp-film, .sp-variants, .sp-slider, #messages, #progress";
    const parts = [...document.querySelectorAll(
        "button, input, textarea, h1, label, canvas, #dock, #notes, #suggestions, #settings, .sp-frame, .sp-masks",
    )].filter((part) => !part.closest(changing));
    const last = new Map();
    window.moved = [];
    new PerformanceObserver((list) => {
        for (const { node, previousRect, currentRect } of list.getEntries().flatMap(({ sources }) => sources)) {
            const part = node?.nodeType === 1 ? node : node?.parentElement;
            if (!part || part.closest("#prompt, #notes, #history .sp-strip")) continue;
            window.moved.push([part.outerHTML.slice(0, 90), previousRect, currentRect]);
        }
    }).observe({ type: "layout-shift" });
    const look = () => {
        for (const part of parts.filter((part) => part.checkVisibility({ visibilityProperty: true }))) {
            const { x, y } = part.getBoundingClientRect();
            const place = [x + scrollX, y + scrollY].map(Math.round);
            const [before, name] = [last.get(part) ?? place, `${part.tagName}#${part.id} ${part.textContent.trim()}`];
            if (String(before) !== String(place)) window.moved.push([name.slice(0, 30), before, place]);
            last.set(part, place);
        }
        requestAnimationFrame(look);
    };
    look();
    const frame = () => new Promise(requestAnimationFrame);
    window.settled = async () => {
        const moving = ({ playState }) => playState === "running";
        do await frame(); while (document.getAnimations().some(moving));
        await frame();
        return window.moved;
    };
}"""


@pytest.mark.parametrize("screen", [*SCREENS, PHONE, SIDEWAYS], ids=str)
def test_nothing_moves_from_the_first_word_to_the_history(
    windows: Windows, slow_site: Site, screen: ViewportSize
) -> None:
    touch = TOUCH if screen in (PHONE, SIDEWAYS) else {}
    with windows.open(slow_site.url, **{**touch, "viewport": screen}) as page:

        def expect_nothing_moved(by: str) -> None:
            assert page.evaluate("settled()") == [], by

        # The settings are folded once they are there.
        page.wait_for(
            "'folded' in document.documentElement.dataset && !document.querySelector('#reset')?.checkVisibility()"
        )
        page.evaluate(WATCH_MOVES)
        page.prompt.fill(
            "zebra, a blue sunglases, and many more words than one line of the prompt can ever hold on a phone"
        )
        expect(page.locator("#unknown")).to_be_visible()
        expect_nothing_moved("unknown words")
        page.click("Edit")
        page.expect_review("running")
        expect_nothing_moved("a run that begins")
        page.expect_finished()
        expect(page.messages).to_contain_text("zebra")
        expect_nothing_moved("its end, its notes or the history")
        page.click("Keep")
        page.expect_painted(0)
        expect_nothing_moved("what is kept")
        page.click("Everything")
        page.expect_painted(64)
        page.click("Edit")
        page.expect_review("running")
        page.click("Cancel")
        expect(page.messages).to_contain_text("Cancelled")
        expect_nothing_moved("a run that is cancelled")
        page.evaluate("document.querySelectorAll('#how-many input')[3].click()")
        page.click("Generate")
        page.expect_finished()
        expect(page.variants).to_have_count(4)
        expect_nothing_moved("variants")


def test_a_phone_shows_everything_within_its_width(windows: Windows, shipped_examples: Site) -> None:
    with windows.open(shipped_examples.url, **TOUCH) as phone:
        dock = phone.locator("#dock")

        def expect_above_the_dock(*parts: Locator) -> None:
            for part in parts:
                assert box_of(part)["y"] + box_of(part)["height"] <= box_of(dock)["y"], part
            assert phone.evaluate("scrollY") == 0

        expect_above_the_dock(phone.button("Select by prompt"), phone.button("Grow"))
        phone.edit()
        expect_above_the_dock(phone.button("Keep"), phone.steps_slider)
        phone.prompt.fill("sunglases")
        expect(phone.locator("#corrections")).to_be_visible()
        before = box_of(phone.button("Edit"))
        phone.edit()
        assert box_of(phone.button("Edit")) == before, "a button moved from under the finger"
        expect_large_enough_for_a_finger(phone.locator(".sp-tools button, #actions button:visible, #mode"))
        # After ten runs, the same one again, upright and on its side.
        for _ in range(8):
            phone.pad("{ pad.history.add(pad.history.entries[0]) }")
        for screen in (SIDEWAYS, PHONE):
            phone.set_viewport_size(screen)
            expect_no_wider_than_the_screen(phone)
            phone.evaluate("scrollTo(0, 0)")
            for name in ("Edit", "Generate", "Cancel"):
                expect_in_sight(phone, phone.button(name))
                box, around = box_of(phone.button(name)), box_of(dock)
                assert around["x"] <= box["x"] and box["x"] + box["width"] <= around["x"] + around["width"], "it is cut"
            last = phone.locator("#history").get_by_role("button").last
            last.scroll_into_view_if_needed()
            assert 0 <= box_of(last)["x"] <= screen["width"] - box_of(last)["width"], "the history does not scroll"


def test_nothing_is_out_of_reach_and_drawing_does_not_scroll(windows: Windows, site: Site) -> None:
    with windows.open(site.url, **TOUCH) as phone:
        for name in ("Edit", "Generate", "Cancel"):
            assert box_of(phone.button(name))["y"] > PHONE["height"] / 2, f"{name}: out of reach of the thumb"
        phone.settings.click()
        expect_no_wider_than_the_screen(phone)
        expect_large_enough_for_a_finger(
            phone.locator("#suggestions .ib-tab, .sp-status label, #best-first label, #new-seed label")
        )
        expect_large_enough_for_a_finger(phone.locator(".sp-masks button:visible, .sp-images > button, #surprise"), 36)
        phone.locator("#settings > button").click()  # and fold again
        phone.choose_second_example()
        phone.evaluate("scrollTo(0, 0)")
        swipe(phone, phone.locator("#heading"), upwards=200)
        phone.wait_for_function("scrollY > 50")
        phone.canvas.scroll_into_view_if_needed()
        height = phone.evaluate("scrollY")
        swipe(phone, phone.canvas, upwards=60)
        expect(phone.fit_status).to_contain_text("% will change")
        assert phone.evaluate("scrollY") == height
        # The stroke's last change has been told: an answer to an older mask would go to the history alone.
        phone.wait_until_ready()
        phone.button("Edit").tap()
        phone.expect_finished()
        expect(phone.canvas).to_be_in_viewport()


def swipe(page: PageObject, over: Locator, upwards: int) -> None:
    """A finger moving up from the middle of something."""
    x, y = page.middle(of=over)
    page.touch("touchStart", (x, y))
    for step in range(1, 11):
        page.touch("touchMove", (x, y - upwards * step / 10))
    page.touch("touchEnd")
