"""From a prompt or a class to the conditioning tokens that a model sees before its image tokens."""

from imagebart.conditioning.conditioners import (
    ClassConditioner,
    ClipTextConditioner,
    Conditioner,
    Conditioning,
    Kind,
    NoConditioner,
    Prompt,
    TextConditioner,
    conditioner_from_config,
)

__all__ = [
    "ClassConditioner",
    "ClipTextConditioner",
    "Conditioner",
    "Conditioning",
    "Kind",
    "NoConditioner",
    "Prompt",
    "TextConditioner",
    "conditioner_from_config",
]
