"""The errors that are shown to people as they are, and how values and texts of others come into a sentence."""

from __future__ import annotations

from reprlib import Repr

LONGEST_VALUE = 80  # characters of a value in a sentence


class InputError(ValueError):
    """Something given by the person using the program cannot be used.

    The message is one sentence for that person: it names what is wrong and what would be right.
    """


class WeightsError(ValueError):
    """A model's files cannot be used. One sentence that names the file, the reason and what would be right."""


def plain(text: str) -> str:
    """A text as a terminal can take it, whoever wrote it: what is no letter or sign is escaped, as in Python.

    An image's or model's own words could move the cursor, or rename the window, otherwise.
    """
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def format_value(value: object) -> str:
    """A value as it is written in a sentence: numbers plainly, everything else as in Python; shortened."""
    short = Repr()
    short.maxlevel, short.maxlist, short.maxtuple = 2, LONGEST_VALUE, LONGEST_VALUE
    short.maxstring = short.maxother = short.maxlong = 3 * LONGEST_VALUE  # what is over LONGEST_VALUE is cut below
    try:
        text = f"{value:g}" if isinstance(value, float) else short.repr(value)
    except Exception:  # a number of more digits than Python writes, a broken __repr__
        text = f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
