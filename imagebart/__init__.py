"""ImageBART in the browser: mask, prompt, and watch the image emerge, coarse to fine."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagebart.pipeline import Edit, ImageBART, InputError, Pipeline, PipelineEvent, SamplingSettings

__all__ = ["Edit", "ImageBART", "InputError", "Pipeline", "PipelineEvent", "SamplingSettings"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Imports public names when they are first used: `python -m imagebart --help` needs no torch."""
    if name not in __all__:
        raise AttributeError(f"module 'imagebart' has no attribute {name!r}")
    from imagebart import pipeline

    return getattr(pipeline, name)
