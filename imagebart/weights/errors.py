"""What is wrong with files of weights."""

from __future__ import annotations


class WeightsError(ValueError):
    """A model's files cannot be used. One sentence that names the file, the reason and what would be right."""
