"""Options that several commands share: the model, and how tokens are drawn."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

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
}


def add_model_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=DEFAULT_MODEL, help=f"model folder (default {DEFAULT_MODEL})")


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """What is not given is as the model is best used."""
    parser.add_argument("--temperature", type=float, help="under 1 safer, over 1 wilder (default: the model's own)")
    parser.add_argument("--top-k", type=int, help="only the k likeliest tokens")
    parser.add_argument("--top-p", type=float, help="only the likeliest tokens of this total probability")
    parser.add_argument("--guidance", type=float, help="over 1: closer to the prompt (default: the model's own)")
    parser.add_argument("--passes", type=int, help="forward-backward repeats of each stage")


def given_settings(options: argparse.Namespace, defaults: SamplingSettings) -> SamplingSettings:
    """The defaults, but for the settings that were given. Raises InputError for a value out of range."""
    given = {field: getattr(options, name, None) for name, field in SETTINGS.items()}
    return replace(defaults, **{field: value for field, value in given.items() if value is not None})
