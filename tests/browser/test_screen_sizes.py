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
    ...document.querySelectorAll("#dock button, #top button, .sp button, a.sp-button"),
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
        page.unfold_settings()
        page.how_many.nth(3).check()
        page.locator("#settings > button").click()
        for screen in SCREENS:
            page.set_viewport_size(screen)
            painting = [page.button(name) for name in ("Open an image", "Masks ▾", "Clear mask", "Edit", "New image")]
            expect_in_sight(page, *painting, page.canvas, page.prompt)
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


# What can be used on the screen, but for parts that are folded.
CONTROLS = """[
    ...document.querySelectorAll("button, a[href], input, select, textarea, canvas, [role=slider]"),
].filter((part) => {
    const { left, top, width, height } = part.getBoundingClientRect();
    const seen = document.elementFromPoint(left + width / 2, top + Math.min(height / 2, innerHeight - top - 1));
    return width > 3 && seen && (part.closest("label") ?? part).contains(seen);
}).map((part) => part.ariaLabel ?? part.textContent)"""


@pytest.mark.parametrize(("screen", "most"), [(SCREENS[0], 30), (PHONE, 20)], ids=str)
def test_few_controls_are_in_sight_and_little_is_above_the_image(
    windows: Windows, shipped_examples: Site, screen: ViewportSize, most: int
) -> None:
    with windows.open(shipped_examples.url, **{**(TOUCH if screen == PHONE else {}), "viewport": screen}) as page:
        assert len(page.evaluate(CONTROLS)) <= most
        assert box_of(page.locator(".sp-frame"))["y"] <= 150


# Notes, frame by frame, what of these parts moves; what is above the fold and pressed next must not.
WATCH_MOVES = """() => {
    const watched = ".sp-tools button, .sp-frame, canvas, #mode, #prompt, #actions, #progress, h1";
    const parts = [...document.querySelectorAll(watched)];
    const last = new Map();
    window.moved = [];
    const look = () => {
        for (const part of parts.filter((part) => part.checkVisibility({ visibilityProperty: true }))) {
            const { x, y, width } = part.getBoundingClientRect();
            const place = [x, y, width].map(Math.round);
            const before = last.get(part) ?? place;
            if (String(before) !== String(place)) window.moved.push([part.outerHTML.slice(0, 90), before, place]);
            last.set(part, place);
        }
        requestAnimationFrame(look);
    };
    look();
    const frame = () => new Promise(requestAnimationFrame);
    window.settled = async () => {
        await frame();
        await frame();
        return window.moved;
    };
}"""


@pytest.mark.parametrize("screen", [*SCREENS, PHONE, SIDEWAYS], ids=str)
def test_nothing_that_is_pressed_next_moves_from_the_first_word_to_the_history(
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
        page.click("New image")
        page.expect_finished()
        expect(page.variants).to_have_count(4)
        expect_nothing_moved("variants")


@pytest.mark.parametrize(
    "screen", [PHONE, {"width": 320, "height": 640}, SIDEWAYS, {"width": 640, "height": 450}], ids=str
)
def test_edits_on_a_small_screen_need_no_scrolling(windows: Windows, site: Site, screen: ViewportSize) -> None:
    """A phone, a small one, one on its side, and a laptop at 200 %: the image, the prompt and the main button."""
    with windows.open(site.url, **{**TOUCH, "viewport": screen}) as phone:
        phone.press("Clear mask")
        phone.evaluate("scrollTo(0, 0)")
        for number in range(10 if screen == PHONE else 2):
            expect_in_sight(phone, phone.locator(".sp-frame"), phone.prompt, phone.button("Edit"))
            expect_no_wider_than_the_screen(phone)
            swipe(phone, phone.canvas, upwards=60)
            phone.wait_until(lambda: bool(phone.sent_value()["mask"]))
            if screen == PHONE:  # with less height, a phone scrolls to what is written in
                phone.prompt.fill(f"a hat {number}")
            phone.wait_until_ready()
            phone.button("Edit").tap()
            phone.expect_finished()
            expect_in_sight(phone, phone.locator(".sp-frame"), phone.prompt, phone.button("Keep"))
            phone.button("Keep").tap()
            phone.expect_painted(0)
            assert phone.evaluate("scrollY") == 0 and len(phone.history()) == number + 1
        phone.runs.last.tap()
        phone.expect_review("finished")
        phone.wait_until(lambda: box_of(phone.canvas)["y"] >= -2)


def test_a_phone_shows_everything_within_its_width(windows: Windows, shipped_examples: Site) -> None:
    with windows.open(shipped_examples.url, **TOUCH) as phone:
        dock = phone.locator("#dock")
        phone.edit()
        assert box_of(phone.steps_slider)["y"] + 24 <= box_of(dock)["y"]
        phone.prompt.fill("sunglases")
        expect(phone.locator("#corrections")).to_be_visible()
        before = box_of(phone.button("Edit"))
        phone.edit()
        assert box_of(phone.button("Edit")) == before, "a button moved from under the finger"
        expect_large_enough_for_a_finger(phone.locator(".sp-tools button:visible, #actions button:visible, #mode"))
        # After ten runs, the same one again, upright and on its side.
        for _ in range(8):
            phone.pad("{ pad.history.add(pad.history.entries[0]) }")
        for screen in (SIDEWAYS, PHONE):
            phone.set_viewport_size(screen)
            expect_no_wider_than_the_screen(phone)
            last = phone.locator("#history").get_by_role("button").last
            last.scroll_into_view_if_needed()
            assert 0 <= box_of(last)["x"] <= screen["width"] - box_of(last)["width"], "the history does not scroll"


def test_nothing_is_out_of_reach_and_drawing_does_not_scroll(windows: Windows, site: Site) -> None:
    with windows.open(site.url, **TOUCH) as phone:
        phone.unfold_settings()
        expect_no_wider_than_the_screen(phone)
        expect_large_enough_for_a_finger(
            phone.locator(".sp-masks button:visible, #surprise, #open button, #best-first label, #new-seed label")
        )
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
