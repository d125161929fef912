"""Cancel at any moment, and runs asked for while another goes on; on slow machines and lines: `make load`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from fake_models import HeldPipeline
from page_object import PageObject, Site, Windows, preset_mask
from playwright.sync_api import Route, expect

pytestmark = pytest.mark.browser

START = ("**/queue/join*", '"run":')  # where the page asks for a run, and what is in that
STOP = ("**/component_server/", '"fn_name":"stop"')
WORDS = "a hat, sunglasses"


@contextmanager
def held_back(page: PageObject, address: str, words: str) -> Iterator[Callable[[], None]]:
    """What the page sends to an address waits until the end, if it holds these words; waits until it is sent."""
    waiting: list[Route] = []
    page.route(
        address, lambda sent: waiting.append(sent) if words in (sent.request.post_data or "") else sent.continue_()
    )
    yield lambda: page.wait_until(lambda: waiting != [])
    for route in waiting:
        route.continue_()
    page.unroute(address)


@pytest.fixture(params=["plain", pytest.param("slow", marks=pytest.mark.load)])
def page(windows: Windows, held_site: Site, held: HeldPipeline, request: pytest.FixtureRequest) -> Iterator[PageObject]:
    with windows.open(held_site.url) as page:
        page.prompt.fill(WORDS)
        if request.param == "slow":
            page.slow_down(8, 150)
        yield page


def cancelling(page: PageObject) -> None:
    """The page says that it is about to cancel, and no more than that when it has had the time to."""
    expect(page.button("Stopping")).to_be_visible()
    page.evaluate("new Promise((done) => setTimeout(() => requestAnimationFrame(done), 200))")
    expect(page.messages).not_to_contain_text("Cancelled")


def ready_again(page: PageObject) -> None:
    expect(page.button("Edit")).to_be_enabled()
    expect(page.button("Cancel")).to_be_hidden()


def as_it_was(page: PageObject) -> None:
    """The run was cancelled: the page says so, and has image, mask and words, and no result."""
    expect(page.messages).to_contain_text("Cancelled")
    ready_again(page)
    expect(page.progress).not_to_contain_text("Step")
    page.expect_review("")
    expect(page.prompt).to_have_value(WORDS)
    page.expect_painted(16)
    assert page.history() == []


def goes_on(page: PageObject, held: HeldPipeline, runs: int = 1) -> None:
    """The next run is drawn, and only of those so far is there a result that were not cancelled."""
    held.let_go.set()
    page.edit()
    expect(page.messages).not_to_contain_text("Cancelled")
    assert len(page.history()) == runs


def test_a_run_is_cancelled_before_the_server_has_heard_of_it(page: PageObject, held: HeldPipeline) -> None:
    with held_back(page, *START) as wait_for_start:
        page.press("Edit")
        wait_for_start()
        with page.expect_answer("stop"):
            page.press("Cancel")
        cancelling(page)
    as_it_was(page)
    assert held.edits == [], "it was drawn"
    # At once: whichever of the two requests the server reads first, it draws no more.
    page.click("Edit", "Cancel")
    as_it_was(page)
    page.wait_until(lambda: held.running == 0)
    goes_on(page, held)


@contextmanager
def cancelled_late(page: PageObject, held: HeldPipeline) -> Iterator[None]:
    """Cancel is pressed in a run that has begun and gives no result yet; the server hears of it at the end."""
    held.results.clear()
    with held_back(page, *STOP) as wait_for_stop:
        page.press("Edit")
        page.expect_review("running")
        page.wait_until(held.at_result.is_set)  # and heeds no Cancel before its result
        page.press("Cancel")
        wait_for_stop()
        cancelling(page)
        yield


def test_a_run_is_cancelled_though_the_server_hears_of_it_late(page: PageObject, held: HeldPipeline) -> None:
    with page.expect_answer("stop"), cancelled_late(page, held):
        assert held.running == 1
    cancelling(page)
    held.results.set()
    as_it_was(page)
    assert held.running == 0, "the model is still held"
    goes_on(page, held)


def test_a_result_on_its_way_is_shown_and_nothing_says_cancelled(page: PageObject, held: HeldPipeline) -> None:
    with cancelled_late(page, held):
        held.results.set()
        page.expect_review("finished")
        page.keyboard.press("Escape")
    held.let_go.set()
    page.expect_finished()
    ready_again(page)
    expect(page.messages).not_to_contain_text("Cancelled")
    assert len(page.history()) == 1 and page.mask().any()
    goes_on(page, held, runs=2)


def test_a_second_person_sees_their_place_and_a_run_that_was_cancelled_is_not_drawn(
    windows: Windows, page: PageObject, held_site: Site, held: HeldPipeline
) -> None:
    with windows.open(held_site.url) as other:
        other.press("Edit")
        other.expect_review("finished")
        # Before their place is known.
        with held_back(page, *START) as wait_for_start:
            page.press("Edit")
            wait_for_start()
            page.keyboard.press("Escape")
            cancelling(page)
        expect(page.progress).to_contain_text("queue: 1/1")
        expect(page.progress).to_contain_text("Waiting for the model")
        held.let_go.set()
        as_it_was(page)  # when its turn has come
        other.expect_finished()
        assert len(held.edits) == 1


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
