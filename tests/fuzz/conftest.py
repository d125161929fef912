"""Each test here in two forms: a short one in every run of the tests, always the same, and a long one in `make fuzz`.

FUZZ_SEED says where the long form starts; `make fuzz` prints it.
"""

from __future__ import annotations

import os

import pytest
from effort import Effort


@pytest.fixture(params=["short", pytest.param("long", marks=pytest.mark.fuzz)])
def effort(request: pytest.FixtureRequest) -> Effort:
    long = request.param == "long"
    return Effort(long, int(os.environ.get("FUZZ_SEED", "0")) if long else 0)
