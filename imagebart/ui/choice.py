"""The models that a person can choose among."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from imagebart.errors import InputError
from imagebart.pipeline import Pipeline
from imagebart.ui.examples import Example
from imagebart.ui.library import Models

log = logging.getLogger(__name__)


class Choice:
    """The model that the page opens with, its examples, and the other models of a folder."""

    def __init__(self, first: Pipeline, others: Models | None = None, examples: Sequence[Example] = ()) -> None:
        self.first = first
        self._others = others
        self._examples = examples

    def names(self) -> list[str]:
        """The first model's name, then those of the others."""
        others = self._others.names() if self._others else []
        return [self.first.name, *(name for name in others if name != self.first.name)]

    def examples(self, name: str | None) -> Sequence[Example]:
        """The examples of a model; those of the first where it has none of its own."""
        if name is None or name == self.first.name or self._others is None:
            return self._examples
        return self._others.examples(name) or self._examples

    def get(self, name: str | None) -> Pipeline:
        """The model of a name; None is the first. Raises InputError for one that cannot be used."""
        if name is None or name == self.first.name or self._others is None:
            return self.first
        try:
            return self._others.get(name)
        except InputError:
            raise
        except (OSError, ValueError) as error:
            log.warning("the model %s cannot be loaded: %s", name, error)  # it names folders of the server
            raise InputError(f"The model {name} cannot be loaded; the server's log says why.") from error
