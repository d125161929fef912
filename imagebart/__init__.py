"""ImageBART in the browser: mask, prompt, and watch the image emerge, coarse to fine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagebart.errors import InputError
    from imagebart.model import ImageBART
    from imagebart.pipeline import Edit, Pipeline, PipelineEvent
    from imagebart.settings import SamplingSettings

__all__ = ["Edit", "ImageBART", "InputError", "Pipeline", "PipelineEvent", "SamplingSettings"]
__version__ = "0.1.0"

_HOMES = {
    "Edit": "imagebart.pipeline",
    "ImageBART": "imagebart.model",
    "InputError": "imagebart.errors",
    "Pipeline": "imagebart.pipeline",
    "PipelineEvent": "imagebart.pipeline",
    "SamplingSettings": "imagebart.settings",
}


def __getattr__(name: str) -> Any:
    """Imports public names when they are first used: `python -m imagebart --help` needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'imagebart' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
