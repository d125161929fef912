"""Settings and recipes of any values: a recipe that can be read back, or one sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fuzzing import FuzzRun
from hypothesis import given, settings
from hypothesis import strategies as st

from imagebart import InputError, SamplingSettings
from imagebart.core.settings import Settings
from imagebart.imaging.files import Recipe

TEXT = st.text(max_size=60)
ANY_TEXT = st.text(st.characters(), max_size=60)  # lone surrogates, too, which no recipe takes
SAMPLING_SETTINGS = st.builds(
    SamplingSettings,
    temperature=st.floats(0.01, 100) | st.integers(1, 100),
    top_k=st.none() | st.integers(1, 2**20),
    top_p=st.none() | st.floats(0, 1, exclude_min=True),
    guidance=st.floats(0, 100),
    resamples=st.integers(1, 100),
)
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
ANY_VALUE = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), ANY_TEXT, st.binary(max_size=9), st.lists(st.integers())),
    *(st.integers(0, 5).map(np.int64), st.floats(0, 5).map(np.float64), st.just(10**400), st.just(np.ones(2))),
)
RECIPE_NAMES = ["model", "task", "prompt", "seed", "feather", "context", "strength", "variant"]
RECIPE_VALUES = st.dictionaries(st.sampled_from(RECIPE_NAMES), ANY_VALUE, max_size=3)
SETTING_NAMES = ["temperature", "top_k", "top_p", "guidance", "resamples", "scales", "corrector_steps"]
SETTING_VALUES = st.dictionaries(st.sampled_from(SETTING_NAMES), ANY_VALUE)


def check_recipe(recipe: Recipe) -> None:
    assert Recipe.from_json(recipe.to_json()) == recipe


def made_or_refused(kind: type[Settings], values: dict[str, Any]) -> Any:
    try:
        return kind.parse(**values)
    except InputError as error:
        assert 0 < len(str(error)) < 300


def check_recipe_values(values: dict[str, Any]) -> None:
    required = {"model": "tiny", "task": "generate", "prompt": "a hat", "seed": 1}
    if recipe := made_or_refused(Recipe, required | values):
        check_recipe(recipe)


def check_setting_values(values: dict[str, Any]) -> None:
    if sampling := made_or_refused(SamplingSettings, values):
        check_recipe(Recipe(model="tiny", task="generate", prompt=None, seed=0, settings=sampling))


@pytest.mark.parametrize(
    ("values", "check"),
    [(RECIPES, check_recipe), (RECIPE_VALUES, check_recipe_values), (SETTING_VALUES, check_setting_values)],
    ids=["recipes", "values of recipes", "values of settings"],
)
def test_a_recipe_can_be_read_back_or_is_refused(
    fuzz_run: FuzzRun, values: st.SearchStrategy[Any], check: Callable[[Any], None]
) -> None:
    settings(max_examples=10_000 if fuzz_run.long else 300, deadline=None)(given(values)(check))()
