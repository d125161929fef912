"""How the models that ship with ImageBART in the browser were made: data, configurations, training, evaluation."""

import numpy as np


def generator(index: int, seed: int, purpose: int) -> np.random.Generator:
    """An item's random numbers: the same for the same index, seed and purpose, on every machine."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, index, purpose))))
