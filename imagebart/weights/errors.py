"""What is wrong with files of weights."""

from __future__ import annotations

from reprlib import Repr


class WeightsError(ValueError):
    """A model's files cannot be used. One sentence that names the file, the reason and what would be right."""


def shown(value: object) -> str:
    """A value of a file as a sentence can hold it: shortened, however it is nested."""
    short = Repr()
    short.maxstring = short.maxother = 100
    return short.repr(value)
