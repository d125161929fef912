import os
import sys
from collections.abc import Iterator

import pytest
import torch

# Tests run tiny networks, which more threads make slower, most of all on a busy machine.
torch.set_num_threads(1)

# Two processes that run tests look for free ports in ranges of their own; Gradio reads this when it is imported.
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
os.environ["GRADIO_SERVER_PORT"] = str(7860 + 100 * WORKER)

SLOW = 5.0  # seconds of computing, from which a test has to have one of these marks
MARKS = {"slow", "browser", "release", "load", "fuzz"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker runs the browser's tests, which come first, the others a file at a time, slow ones first."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    browser = {item for item in items if item.get_closest_marker("browser")}
    items.sort(key=lambda item: (item not in browser, item.path not in slow))
    for item in items:
        item.add_marker(pytest.mark.xdist_group("browser" if item in browser else item.path.name))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A test that computes for long says so: fails one that takes the time of a slow test without the mark."""
    before = sum(os.times()[:4])  # of this process and of those it has waited for: not what a busy machine adds
    yield
    seconds = sum(os.times()[:4]) - before
    if seconds > SLOW and not any(mark.name in MARKS for mark in item.iter_markers()):
        pytest.fail(f"This test computed for {seconds:.1f} s: make it quicker, or mark it slow.")


@pytest.fixture(autouse=True, scope="session")
def gradio_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Gradio's temporary files lie in a folder of this run: a server that is closed deletes what others may show."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        yield


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    """Each test is a process of its own as far as Accelerate is concerned, which fixes precision once."""
    yield
    if "accelerate.state" in sys.modules:
        sys.modules["accelerate.state"].AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Every test draws the same numbers, alone or among others."""
    torch.manual_seed(0)
