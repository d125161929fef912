"""The page in Chromium: Cancel at any moment, on slow machines and lines; and runs asked for while another goes on.

A short form is part of every test run; `make load` does each thing thirty times, and SEED=N the same ones again.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

import pytest
from driving import (
    WIDE,
    Site,
    edit,
    expect_finished,
    expect_regenerated,
    history,
    mask,
    new_context,
    open_page,
    press,
    random_seed,
    slow_down,
    type_prompt,
    wait_until,
    wait_until_ready,
)
from fake_models import HeldPipeline
from playwright.sync_api import Browser, Page, Response, Route, expect

pytestmark = pytest.mark.browser

JOIN, ASKED = "**/queue/join*", "**/component_server/"
RUN, STOP = '"run":', '"fn_name":"stop"'  # in what starts a run, and what stops one
SLOW = [(4, 150), (8, 150)]  # times slower, milliseconds of latency
WORDS = "a hat, sunglasses"
PLACES = "[...document.querySelectorAll('#actions > button')].map((button) => button.offsetLeft + button.offsetWidth)"
# Enter in the prompt, and Escape once the run is seen to have come so far; 0: with no time for anything in between.
ENTER_ESCAPE = """share => new Promise((done) => {
    const press = (key) => document.querySelector("#prompt textarea").dispatchEvent(
        new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }),
    );
    const look = () => {
        const seen = Number(document.querySelector("#progress [role=progressbar]")?.ariaValueNow ?? 0);
        const goesOn = document.documentElement.dataset.runState === "requested";
        if (seen < 100 * share && goesOn) return requestAnimationFrame(look);
        press("Escape");
        done();
    };
    press("Enter");
    look();
})"""


class Gate:
    """What the page sends to an address waits until the test opens the gate; of it, only what holds these words."""

    def __init__(self, page: Page, address: str, words: str) -> None:
        self._page, self._words, self.waiting, self._open = page, words, list[Route](), False
        page.route(address, self._take)

    def holds(self, sent: Route | Response) -> bool:
        return self._words in (sent.request.post_data or "")

    def _take(self, route: Route) -> None:
        if self._open or not self.holds(route):
            route.continue_()
        else:
            self.waiting.append(route)

    def reached(self) -> None:
        wait_until(self._page, lambda: bool(self.waiting))

    def open(self) -> None:
        self._open = True
        for route in self.waiting:
            route.continue_()


def named(value: object) -> str:
    """A machine and its line, or what a person does."""
    return value.__name__ if callable(value) else "{}x-{}ms".format(*value)  # type: ignore[misc]


@pytest.fixture(params=SLOW, ids=named)
def page(chromium: Browser, held_site: Site, request: pytest.FixtureRequest) -> Iterator[Page]:
    with open_page(chromium, held_site.url, viewport=WIDE) as page:
        type_prompt(page, WORDS)
        slow_down(page, *request.param)
        yield page


def button(page: Page) -> None:
    press(page, "Cancel")


def twice(page: Page) -> None:
    page.get_by_role("button", name="Cancel", exact=True).dblclick()


def key(page: Page) -> None:
    page.keyboard.press("Escape")


def begun(page: Page) -> None:
    """A run is drawn, and shown."""
    press(page, "Edit")
    expect(page.locator(".sp")).to_have_attribute("data-review", "running")


def cancelling(page: Page) -> None:
    """The page says that it is about to cancel, and no more than that."""
    expect(page.get_by_role("button", name="Stopping")).to_be_visible()
    expect(page.locator("#messages")).not_to_contain_text("Cancelled")


def ready_again(page: Page) -> None:
    expect(page.get_by_role("button", name="Edit", exact=True)).to_be_enabled()
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_be_disabled()


def as_it_was(page: Page) -> None:
    """The run was cancelled: the page says so, and has picture, mask and words, and no result."""
    expect(page.locator("#messages")).to_contain_text("Cancelled")
    ready_again(page)
    expect(page.locator("#progress")).not_to_contain_text("Stage")
    expect(page.locator(".sp")).to_have_attribute("data-review", "")
    expect(page.get_by_label("What should be there?").first).to_have_value(WORDS)
    expect_regenerated(page, 16)
    assert mask(page).any() and history(page) == []


def goes_on(page: Page, held: HeldPipeline) -> None:
    """The next run is drawn, and is the only one of which there is a result."""
    held.let_go.set()
    edit(page)
    expect(page.locator("#messages")).not_to_contain_text("Cancelled")
    assert len(history(page)) == 1


BEFORE = [((8, 150), button), ((4, 150), twice), ((8, 150), key)]


@pytest.mark.parametrize(("page", "cancel"), BEFORE, indirect=["page"], ids=named)
def test_a_run_is_cancelled_before_the_server_has_heard_of_it(
    page: Page, held: HeldPipeline, cancel: Callable[[Page], None]
) -> None:
    start = Gate(page, JOIN, RUN)
    press(page, "Edit")
    start.reached()
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_be_enabled()
    places = page.evaluate(PLACES)
    with page.expect_response(lambda response: STOP in (response.request.post_data or "")):
        cancel(page)
    cancelling(page)
    assert page.evaluate(PLACES) == places, "the buttons have moved"
    start.open()
    as_it_was(page)
    assert held.edits == [], "it was drawn"
    goes_on(page, held)


def test_escape_right_after_enter_cancels(page: Page, held: HeldPipeline) -> None:
    page.evaluate(ENTER_ESCAPE, 0)
    as_it_was(page)
    wait_until(page, lambda: held.running == 0)  # whichever of the two requests the server read first, it draws no more
    goes_on(page, held)


def cancel_late(page: Page, held: HeldPipeline) -> Gate:
    """Presses Cancel in a run that has begun and gives no result yet; the server hears of it when the gate opens."""
    held.results.clear()
    stop = Gate(page, ASKED, STOP)
    begun(page)
    press(page, "Cancel")
    stop.reached()
    return stop


def test_a_run_is_cancelled_though_the_server_hears_of_it_late(page: Page, held: HeldPipeline) -> None:
    stop = cancel_late(page, held)
    assert held.running == 1
    cancelling(page)
    with page.expect_response(stop.holds):
        stop.open()
    cancelling(page)
    held.results.set()
    as_it_was(page)
    assert held.running == 0, "the model is still held"
    goes_on(page, held)


def test_a_cancel_that_is_lost_on_its_way_is_sent_again(chromium: Browser, held_site: Site, held: HeldPipeline) -> None:
    context = new_context(chromium, viewport=WIDE)  # which may log what is lost
    page = context.new_page()
    page.goto(held_site.url)
    wait_until_ready(page)
    type_prompt(page, WORDS)
    stop = cancel_late(page, held)
    stop.waiting.pop().abort()
    with page.expect_response(stop.holds):
        stop.open()
    held.results.set()
    as_it_was(page)
    context.close()


def test_a_result_on_its_way_is_shown_and_nothing_says_cancelled(page: Page, held: HeldPipeline) -> None:
    stop = cancel_late(page, held)
    cancelling(page)
    held.results.set()
    expect(page.locator(".sp")).to_have_attribute("data-review", "finished")
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_be_visible()
    page.keyboard.press("Escape")
    stop.open()
    held.let_go.set()
    expect_finished(page)
    ready_again(page)
    expect(page.locator("#messages")).not_to_contain_text("Cancelled")
    assert len(history(page)) == 1 and mask(page).any()
    edit(page)
    expect(page.locator("#messages")).not_to_contain_text("Cancelled")
    assert len(history(page)) == 2


def test_who_cancels_before_their_place_in_the_queue_is_known_leaves_it(
    chromium: Browser, held_site: Site, held: HeldPipeline
) -> None:
    with (
        open_page(chromium, held_site.url, viewport=WIDE) as other,
        open_page(chromium, held_site.url, viewport=WIDE) as page,
    ):
        type_prompt(page, WORDS)
        press(other, "Edit")
        expect(other.locator(".sp")).to_have_attribute("data-review", "finished")
        start = Gate(page, JOIN, RUN)
        press(page, "Edit")
        start.reached()
        page.keyboard.press("Escape")
        cancelling(page)
        start.open()
        as_it_was(page)  # though the other's run still goes on
        held.let_go.set()
        expect_finished(other)
        assert len(held.edits) == 1


def cancel_sometime(page: Page, chance: random.Random) -> str | None:
    """Edit, and Escape at once, on the way or at the end; the run in the history if there was a result."""
    before, painted = history(page), mask(page)
    page.evaluate(ENTER_ESCAPE, chance.choice([0.0, chance.random(), 1.0]))
    page.wait_for_function("!document.documentElement.dataset.runState")
    ready_again(page)
    came = history(page) != before
    said = "Cancelled" in page.locator("#messages").inner_text()
    assert came != said, f"a result came: {came}; the page says cancelled: {said}"
    expect(page.locator(".sp")).to_have_attribute("data-review", "finished" if came else "")
    assert (mask(page) == painted).all()
    expect(page.get_by_label("What should be there?").first).to_have_value(WORDS)
    if came:
        press(page, "Discard")
    return history(page)[0] if came else None


def cancel_often(page: Page, site: Site, times: int) -> None:
    chance = random.Random(random_seed())
    came = [run for run in (cancel_sometime(page, chance) for _ in range(times)) if run]
    print(f"{times} times: {len(came)} results, {times - len(came)} cancelled")
    edit(page)
    # The history holds a dozen.
    assert history(page)[:0:-1] == came[-11:], "a result came though the page had said that it was cancelled"
    wait_until(page, lambda: site.pipeline.running == 0)


@pytest.fixture
def paced(chromium: Browser, slow_site: Site, request: pytest.FixtureRequest) -> Iterator[Page]:
    with open_page(chromium, slow_site.url, viewport=WIDE) as page:
        type_prompt(page, WORDS)
        slow_down(page, *request.param)
        yield page


@pytest.mark.parametrize("paced", SLOW, indirect=True, ids=named)
def test_whenever_one_cancels_what_the_page_says_is_so(paced: Page, slow_site: Site) -> None:
    cancel_often(paced, slow_site, 4)


@pytest.mark.load
@pytest.mark.parametrize("paced", [(1, 0), *SLOW], indirect=True, ids=named)
def test_whenever_one_cancels_thirty_times(paced: Page, slow_site: Site) -> None:
    cancel_often(paced, slow_site, 30)


# Presses Edit in the first moment in which it can be pressed again.
EAGER = """() => {
    const button = document.getElementById("edit");
    new MutationObserver((_, observer) => {
        if (button.disabled) return;
        observer.disconnect();
        button.click();
    }).observe(button, { attributeFilter: ["disabled"] });
}"""


def test_an_edit_is_drawn_that_was_asked_for_as_soon_as_could_be(
    chromium: Browser, held_site: Site, held: HeldPipeline
) -> None:
    with open_page(chromium, held_site.url, viewport=WIDE) as page:
        press(page, "Edit")
        expect(page.get_by_role("button", name="Edit", exact=True)).to_be_disabled()
        page.evaluate(EAGER)
        expect(page.locator(".sp")).to_have_attribute("data-review", "finished")
        held.let_go.set()
        wait_until(page, lambda: len(held.edits) == 2)
        expect_finished(page)


def test_a_second_person_sees_their_place_and_can_leave_the_queue(
    chromium: Browser, held_site: Site, held: HeldPipeline
) -> None:
    with (
        open_page(chromium, held_site.url, viewport=WIDE) as page,
        open_page(chromium, held_site.url, viewport=WIDE) as other,
    ):
        press(page, "Edit")
        expect(page.locator(".sp")).to_have_attribute("data-review", "finished")
        press(other, "Edit")
        expect(other.locator("#progress")).to_contain_text(re.compile(r"queue: 1/1"))
        expect(other.locator("#progress")).to_contain_text("Waiting for the model")
        press(other, "Cancel")
        expect(other.locator("#messages")).to_contain_text("Cancelled")
        held.let_go.set()
        expect_finished(page)
        edit(other)


def test_the_last_words_are_found_though_others_were_asked_for_before(
    chromium: Browser, held_site: Site, held: HeldPipeline
) -> None:
    with open_page(chromium, held_site.url, viewport=WIDE) as page:
        press(page, "Clear mask")
        expect_regenerated(page, None)
        for words in ("a hat", "sunglasses", "sunglasses"):
            type_prompt(page, words)
            press(page, "Select by prompt")
            expect(page.locator(".sp-note")).to_contain_text("Looking")
        held.let_go.set()
        expect_regenerated(page, 16)
        expect(page.locator(".sp-note")).to_contain_text("Found by your words")
