"""Hypothesis strategies for settings and recipes of any values, and what must hold of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

from imagebart import InputError, SamplingSettings
from imagebart.imaging.metadata import Recipe

SAMPLING_SETTINGS = st.builds(
    SamplingSettings,
    temperature=st.floats(0.01, 100) | st.integers(1, 100),
    top_k=st.none() | st.integers(1, 2**31),
    top_p=st.none() | st.floats(0, 1, exclude_min=True),
    guidance=st.floats(0, 100),
    resamples=st.integers(1, 100),
    start=st.none() | st.integers(1, 2**31),
)
TEXT = st.text(max_size=60)
ANY_TEXT = st.text(st.characters(), max_size=60)  # lone surrogates, too, which no recipe takes
RECIPES = st.builds(
    Recipe,
    model=TEXT,
    task=st.sampled_from(["edit", "generate"]),
    prompt=st.none() | TEXT,
    seed=st.integers(0, 2**32 - 1),
    settings=SAMPLING_SETTINGS,
    feather=st.integers(0, 1000),
    context=st.floats(0, math.inf),
    variant=st.integers(0, 99),
)
ANYTHING = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), ANY_TEXT, st.binary(max_size=9), st.lists(st.integers())),
    *(st.integers(0, 5).map(np.int64), st.floats(0, 5).map(np.float64), st.just(10**400), st.just(np.ones(2))),
)
RECIPE_NAMES = ["model", "task", "prompt", "seed", "feather", "context", "strength", "variant"]
SETTING_NAMES = ["temperature", "top_k", "top_p", "guidance", "resamples", "start", "scales"]
RECIPE_VALUES = st.dictionaries(st.sampled_from(RECIPE_NAMES), ANYTHING, max_size=3)
SETTING_VALUES = st.dictionaries(st.sampled_from(SETTING_NAMES), ANYTHING)


def check_read_back(recipe: Recipe) -> None:
    """A recipe that was made can be read back."""
    assert Recipe.from_json(recipe.to_json()) == recipe


def check_recipe(values: dict[str, Any]) -> None:
    """Any values make a recipe that can be read back, or one sentence."""
    try:
        recipe = Recipe(**{"model": "tiny", "task": "generate", "prompt": "a hat", "seed": 1, **values})
    except InputError as error:
        assert len(str(error)) < 300 and str(error).endswith(".")
    else:
        check_read_back(recipe)


def check_settings(values: dict[str, Any]) -> None:
    """Any values make settings that a recipe can hold, or one sentence."""
    try:
        settings = SamplingSettings(**values)
    except InputError as error:
        assert len(str(error)) < 300 and str(error).endswith(".")
    else:
        check_read_back(Recipe("tiny", "generate", None, 0, settings))
