"""Options that several commands share: the model, and how tokens are drawn."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # --help needs no torch
    from imagebart.settings import SamplingSettings

DEFAULT_MODEL = "checkpoints/avatars"
SETTINGS = {  # of SamplingSettings, by the options' names
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "guidance": "guidance",
    "passes": "passes",
    "start_stage": "start",
    "scales": "scales",
    "temperatures": "temperatures",
    "top_ks": "top_ks",
}


def floats(text: str) -> tuple[float, ...]:
    """Numbers with commas between them."""
    return tuple(map(float, text.split(",")))


def whole_numbers(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between them."""
    return tuple(map(int, text.split(",")))


OPTIONS: tuple[tuple[str, str, Callable[[str], Any]], ...] = (
    ("--temperature", "temperature", float),
    ("--top-k", "top_k", int),
    ("--top-p", "top_p", float),
    ("--guidance", "guidance", float),
    ("--passes", "passes", int),
    ("--temperatures", "temperatures", floats),
    ("--top-ks", "top_ks", whole_numbers),
)


def add_model_option(parser: argparse.ArgumentParser) -> None:
    said = f"model folder, or a published model's name (default {DEFAULT_MODEL})"
    parser.add_argument("--model", default=DEFAULT_MODEL, help=said)


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """What is not given is as the model is best used."""
    from imagebart.settings import SamplingSettings, described

    for name, field, kind in OPTIONS:
        own = " (default: the model's own)" if name in ("--temperature", "--guidance") else ""
        parser.add_argument(name, type=kind, help=described(SamplingSettings, field) + own)


def add_start_option(parser: argparse.ArgumentParser) -> None:
    """For edits alone: others begin from noise."""
    from imagebart.settings import SamplingSettings, described

    parser.add_argument("--start-stage", type=int, help=described(SamplingSettings, "start"))


def add_scales_option(parser: argparse.ArgumentParser) -> None:
    """For models that can be drawn in any number of steps."""
    from imagebart.settings import SamplingSettings, described

    said = described(SamplingSettings, "scales")
    parser.add_argument("--scales", type=int, help=f"{said} (default: the model's own)")


def given_settings(options: argparse.Namespace, defaults: SamplingSettings) -> SamplingSettings:
    """The defaults, but for the settings that were given. Raises InputError for a value out of range."""
    given = {field: getattr(options, name, None) for name, field in SETTINGS.items()}
    return replace(defaults, **{field: value for field, value in given.items() if value is not None})
