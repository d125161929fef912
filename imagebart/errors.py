"""The one error that is shown to people as it is, and how texts of others come to a terminal."""

from __future__ import annotations

from reprlib import Repr


class InputError(ValueError):
    """Something given by the person using the program cannot be used.

    The message is one sentence for that person: it names what is wrong and what would be right.
    """


def plain(text: str) -> str:
    """A text as a terminal can take it, whoever wrote it: what is no letter or sign is escaped, as in Python.

    A picture's or model's own words could move the cursor, or rename the window, otherwise.
    """
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


# What is wrong with files of weights.


class WeightsError(ValueError):
    """A model's files cannot be used. One sentence that names the file, the reason and what would be right."""


def shown(value: object) -> str:
    """A value of a file as a sentence can hold it: shortened, however it is nested."""
    short = Repr()
    short.maxstring = short.maxother = 100
    return short.repr(value)
