"""The page in Chromium: Cancel at any moment, on slow machines and lines; and runs asked for while another goes on.

A short form is part of every test run; `make load` does each thing thirty times, and SEED=N the same ones again.
"""

import random
from collections.abc import Iterator

import numpy as np
import pytest
from fake_models import HeldPipeline
from page_object import PageObject, Site, Windows, preset_mask, random_seed
from playwright.sync_api import Response, Route, expect

pytestmark = pytest.mark.browser

JOIN, ASKED = "**/queue/join*", "**/component_server/"
RUN, STOP = '"run":', '"fn_name":"stop"'  # in what starts a run, and what stops one
WORDS = "a hat, sunglasses"


class Gate:
    """What the page sends to an address waits until the test opens the gate; of it, only what holds these words."""

    def __init__(self, page: PageObject, address: str, words: str) -> None:
        self._page, self._words, self._waiting, self._open = page, words, list[Route](), False
        page.route(address, self._take)

    def holds(self, sent: Route | Response) -> bool:
        return self._words in (sent.request.post_data or "")

    def _take(self, route: Route) -> None:
        if self._open or not self.holds(route):
            route.continue_()
        else:
            self._waiting.append(route)

    def reached(self) -> None:
        self._page.wait_until(lambda: bool(self._waiting))

    def open(self) -> None:
        self._open = True
        for route in self._waiting:
            route.continue_()


@pytest.fixture(params=["plain", pytest.param("slow", marks=pytest.mark.load)])
def page(windows: Windows, held_site: Site, request: pytest.FixtureRequest) -> Iterator[PageObject]:
    with windows.open(held_site.url) as page:
        page.type_prompt(WORDS)
        if request.param == "slow":
            page.slow_down(8, 150)
        yield page


def cancelling(page: PageObject) -> None:
    """The page says that it is about to cancel, and no more than that when it has had the time to."""
    expect(page.button("Stopping")).to_be_visible()
    page.rest()
    expect(page.messages).not_to_contain_text("Cancelled")


def ready_again(page: PageObject) -> None:
    expect(page.button("Edit")).to_be_enabled()
    expect(page.button("Cancel")).to_be_disabled()


def as_it_was(page: PageObject) -> None:
    """The run was cancelled: the page says so, and has image, mask and words, and no result."""
    expect(page.messages).to_contain_text("Cancelled")
    ready_again(page)
    expect(page.progress).not_to_contain_text("Scale")
    page.expect_review("")
    expect(page.prompt()).to_have_value(WORDS)
    page.expect_painted(16)
    assert page.mask().any() and page.history() == []


def goes_on(page: PageObject, held: HeldPipeline) -> None:
    """The next run is drawn, and is the only one of which there is a result."""
    held.let_go.set()
    page.edit()
    expect(page.messages).not_to_contain_text("Cancelled")
    assert len(page.history()) == 1


def test_a_run_is_cancelled_before_the_server_has_heard_of_it(page: PageObject, held: HeldPipeline) -> None:
    start = Gate(page, JOIN, RUN)
    page.press("Edit")
    start.reached()
    places = page.action_places()
    with page.expect_response(lambda response: STOP in (response.request.post_data or "")):
        page.press("Cancel")
    cancelling(page)
    assert page.action_places() == places, "the buttons have moved"
    start.open()
    as_it_was(page)
    assert held.edits == [], "it was drawn"
    # Escape right after Enter: whichever of the two requests the server reads first, it draws no more.
    page.enter_and_escape(0)
    as_it_was(page)
    page.wait_until(lambda: held.running == 0)
    goes_on(page, held)


def cancel_late(page: PageObject, held: HeldPipeline) -> Gate:
    """Presses Cancel in a run that has begun and gives no result yet; the server hears of it when the gate opens."""
    held.results.clear()
    stop = Gate(page, ASKED, STOP)
    page.press("Edit")
    page.expect_review("running")
    page.wait_until(held.at_result.is_set)  # and heeds no Cancel before its result
    page.press("Cancel")
    stop.reached()
    cancelling(page)
    return stop


def test_a_run_is_cancelled_though_the_server_hears_of_it_late(page: PageObject, held: HeldPipeline) -> None:
    stop = cancel_late(page, held)
    assert held.running == 1
    with page.expect_response(stop.holds):
        stop.open()
    cancelling(page)
    held.results.set()
    as_it_was(page)
    assert held.running == 0, "the model is still held"
    goes_on(page, held)


def test_a_result_on_its_way_is_shown_and_nothing_says_cancelled(page: PageObject, held: HeldPipeline) -> None:
    stop = cancel_late(page, held)
    held.results.set()
    page.expect_review("finished")
    expect(page.button("Cancel")).to_be_visible()
    page.keyboard.press("Escape")
    stop.open()
    held.let_go.set()
    page.expect_finished()
    ready_again(page)
    expect(page.messages).not_to_contain_text("Cancelled")
    assert len(page.history()) == 1 and page.mask().any()
    page.edit()
    expect(page.messages).not_to_contain_text("Cancelled")
    assert len(page.history()) == 2


def test_a_second_person_sees_their_place_and_a_run_that_was_cancelled_is_not_drawn(
    windows: Windows, page: PageObject, held_site: Site, held: HeldPipeline
) -> None:
    with windows.open(held_site.url) as other:
        other.press("Edit")
        other.expect_review("finished")
        # Before their place is known.
        start = Gate(page, JOIN, RUN)
        page.press("Edit")
        start.reached()
        page.keyboard.press("Escape")
        cancelling(page)
        start.open()
        expect(page.progress).to_contain_text("queue: 1/1")
        expect(page.progress).to_contain_text("Waiting for the model")
        held.let_go.set()
        as_it_was(page)  # when its turn has come
        other.expect_finished()
        assert len(held.edits) == 1


def cancel_sometime(page: PageObject, chance: random.Random) -> str | None:
    """Edit, and Escape at once, on the way or at the end; the run in the history if there was a result."""
    before, painted = page.history(), page.mask()
    page.enter_and_escape(chance.choice([0.0, chance.random(), 1.0]))
    page.expect_free()
    ready_again(page)
    came, said = page.history() != before, "Cancelled" in page.messages.inner_text()
    assert came != said, f"a result came: {came}; the page says cancelled: {said}"
    page.expect_review("finished" if came else "")
    assert (page.mask() == painted).all()
    expect(page.prompt()).to_have_value(WORDS)
    if came:
        page.press("Discard")
    return page.history()[0] if came else None


OFTEN = [pytest.param(rate, latency, 30, marks=pytest.mark.load) for rate, latency in ((1, 0), (4, 150), (8, 150))]


@pytest.mark.parametrize(("rate", "latency", "times"), [(1, 0, 3), *OFTEN])
def test_whenever_one_cancels_what_the_page_says_is_so(
    windows: Windows, slow_site: Site, rate: int, latency: int, times: int
) -> None:
    chance = random.Random(random_seed())
    with windows.open(slow_site.url) as page:
        page.type_prompt(WORDS)
        page.slow_down(rate, latency)
        came = [run for run in (cancel_sometime(page, chance) for _ in range(times)) if run]
        print(f"{times} times: {len(came)} results, {times - len(came)} cancelled")
        page.edit()
        # The history holds a dozen.
        assert page.history()[:0:-1] == came[-11:], "a result came though the page had said that it was cancelled"
        page.wait_until(lambda: slow_site.pipeline.running == 0)


# Presses Edit in the first moment in which it can be pressed again.
EAGER = """button => new MutationObserver((_, observer) => {
    if (button.ariaDisabled === "true") return;
    observer.disconnect();
    button.click();
}).observe(button, { attributeFilter: ["aria-disabled"] })"""


def test_an_edit_runs_that_was_requested_as_soon_as_it_could_be(page: PageObject, held: HeldPipeline) -> None:
    held.results.clear()
    page.press("Edit")
    expect(page.button("Edit")).to_be_disabled()
    page.button("Edit").evaluate(EAGER)
    held.results.set()
    page.expect_review("finished")
    held.let_go.set()
    page.wait_until(lambda: len(held.edits) == 2)
    page.expect_finished()


@pytest.mark.parametrize(("rate", "latency"), [(1, 0), pytest.param(4, 150, marks=pytest.mark.load)])
def test_edit_right_after_cancel_waits_and_runs(windows: Windows, slow_site: Site, rate: int, latency: int) -> None:
    edits, slow_site.pipeline.pause = slow_site.pipeline.edits, 0.5
    with windows.open(slow_site.url) as page:
        page.slow_down(rate, latency)
        before = len(edits)
        page.click("Edit")
        page.wait_until(lambda: len(edits) == before + 1)
        page.click("Cancel", "Left half", "Edit", rest=150)
        page.wait_until(lambda: len(edits) == before + 2)
        assert (np.asarray(edits[-1][1]) == preset_mask("left half", (40, 40))).all()
        page.click("Cancel")
        page.expect_free()
        assert len(edits) == before + 2 and page.history() == []


def test_the_last_words_are_found_though_others_were_requested(page: PageObject, held: HeldPipeline) -> None:
    page.press("Clear mask")
    page.expect_painted(0)
    for words in ("a hat", "sunglasses", "sunglasses"):
        page.type_prompt(words)
        page.press("Select by prompt")
        expect(page.note).to_contain_text("Looking")
    held.let_go.set()
    page.expect_painted(16)
    expect(page.note).to_contain_text("Found by your words")
