"""The models that a person can choose among."""

from __future__ import annotations

from imagebart.errors import InputError
from imagebart.pipeline import Pipeline
from imagebart.ui.library import Models


class Choice:
    """The model that the page opens with, and the others of a folder."""

    def __init__(self, first: Pipeline, others: Models | None = None) -> None:
        self.first = first
        self._others = others

    def names(self) -> list[str]:
        """The first model's name, then those of the others."""
        others = self._others.names() if self._others else []
        return [self.first.name, *(name for name in others if name != self.first.name)]

    def get(self, name: str | None) -> Pipeline:
        """The model of a name; None is the first. Raises InputError for one that cannot be used."""
        if name is None or name == self.first.name or self._others is None:
            return self.first
        try:
            return self._others.get(name)
        except InputError:
            raise
        except (OSError, ValueError) as error:
            raise InputError(f"The model {name} cannot be loaded: {error}") from error
