"""The properties of settings and recipes in many thousand cases; `test_metadata.py` tries a few hundred of each."""

from __future__ import annotations

from typing import Any

import pytest
import strategies
from hypothesis import given, settings

from imagebart.imaging.metadata import Recipe

pytestmark = pytest.mark.fuzz
MANY = settings(max_examples=10_000, deadline=None)


@MANY
@given(strategies.RECIPES)
def test_recipes_that_were_made_can_be_read_back(recipe: Recipe) -> None:
    strategies.check_read_back(recipe)


@MANY
@given(strategies.RECIPE_VALUES)
def test_recipes_of_any_values(values: dict[str, Any]) -> None:
    strategies.check_recipe(values)


@MANY
@given(strategies.SETTING_VALUES)
def test_settings_of_any_values(values: dict[str, Any]) -> None:
    strategies.check_settings(values)
