"""Hugging Face's ZeroGPU: a GPU that is lent for the length of one call. Elsewhere nothing of this has an effect."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

# Seconds for which the GPU is asked: a run of the shipped model takes a few, one of a published model more.
DURATION = 60


def find_device() -> str:
    """Where the model belongs: "cuda" on a Space with ZeroGPU, else "cpu". To be called before torch is imported."""
    try:
        import spaces  # noqa: F401  (makes torch believe in a GPU until one is lent)
    except ImportError:
        return "cpu"
    # The package is on every Space, the GPU only on some.
    return "cuda" if os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true") else "cpu"


def on_gpu(run: Callable[..., Any]) -> Callable[..., Any]:
    """`run` with a GPU lent for as long as it takes, where `find_device` found the package; else `run` itself."""
    spaces = sys.modules.get("spaces")
    return run if spaces is None else spaces.GPU(duration=DURATION)(run)
