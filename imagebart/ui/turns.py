"""How many do at a time what takes much memory, of what no queue holds back."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from threading import BoundedSemaphore
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

PICTURES = BoundedSemaphore(2)  # pictures that are unpacked: 0.3 GB each, at most
FILMS = BoundedSemaphore(1)  # 0.6 GB


def in_turn(places: BoundedSemaphore) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """For a function that waits until one of the places is free."""

    def waiting(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def turn(*values: P.args, **named: P.kwargs) -> R:
            with places:
                return function(*values, **named)

        return turn

    return waiting
