"""ZeroGPU: asked for where its package is there, and nothing changed where it is not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any

import pytest

from imagebart.testing import tiny_pipeline
from imagebart.ui.app import TURN, build_page
from imagebart.ui.zero_gpu import DURATION, find_device, on_gpu


@pytest.fixture
def lent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """The package, as far as it is used; the names of what it decorated, and for how many seconds."""
    decorated: list[tuple[str, float]] = []

    def gpu(duration: float) -> Callable[..., Any]:
        def decorate(run: Callable[..., Any]) -> Callable[..., Any]:
            decorated.append((run.__name__, duration))
            return wraps(run)(lambda *args, **kwargs: run(*args, **kwargs))

        return decorate

    spaces = ModuleType("spaces")
    spaces.GPU = gpu  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spaces", spaces)
    return decorated


def test_without_the_package_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setitem(sys.modules, "spaces", None)  # as if it were not there
    assert find_device() == "cpu" and on_gpu(print) is print


@pytest.mark.parametrize(("said", "device"), [("true", "cuda"), ("1", "cuda"), ("false", "cpu"), (None, "cpu")])
def test_the_model_goes_to_the_gpu_only_where_one_is_lent(
    lent: list[tuple[str, float]], monkeypatch: pytest.MonkeyPatch, said: str | None, device: str
) -> None:
    if said is None:
        monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    else:
        monkeypatch.setenv("SPACES_ZERO_GPU", said)
    assert find_device() == device


def test_all_that_use_the_model_ask_for_the_gpu(lent: list[tuple[str, float]]) -> None:
    page = build_page(tiny_pipeline())
    runs = [fn for fn in page.fns.values() if fn.concurrency_id == TURN]
    assert sorted(lent) == sorted((fn.fn.__name__, DURATION) for fn in runs) and len(lent) == 10
