"""How the models that ship with ImageBART in the browser were made: data, configurations, training, evaluation."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Trainings = Mapping[str, tuple[type[Any] | None, Callable[..., object]]]
"""Of each part of a model its training, and the type of its settings; None: it has none."""


def generator(index: int, seed: int, purpose: int) -> np.random.Generator:
    """An item's random numbers: the same for the same index, seed and purpose, on every machine."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, index, purpose))))
