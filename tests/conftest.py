from __future__ import annotations

import pytest
import torch

# Tests run tiny networks, which more threads make slower, most of all on a busy machine.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Every test draws the same numbers, alone or among others."""
    torch.manual_seed(0)
