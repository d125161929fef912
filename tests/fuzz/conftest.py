"""Each test here has two forms: a short one in every run of the tests, always the same, and a long one in `make fuzz`.

FUZZ_SEED says where the long form starts; `make fuzz` prints it.
"""

from __future__ import annotations

import os

import pytest
from fuzzing import FuzzRun


@pytest.fixture(params=["short", pytest.param("long", marks=pytest.mark.fuzz)])
def fuzz_run(request: pytest.FixtureRequest) -> FuzzRun:
    long = request.param == "long"
    return FuzzRun(long, int(os.environ.get("FUZZ_SEED", "0")) if long else 0)
