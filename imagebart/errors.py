"""The one error that is shown to people as it is."""

from __future__ import annotations


class InputError(ValueError):
    """Something given by the person using the program cannot be used.

    The message is one sentence for that person: it names what is wrong and what would be right.
    """
