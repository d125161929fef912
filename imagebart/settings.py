"""How tokens are drawn: the settings that a person can turn."""

from __future__ import annotations

from dataclasses import dataclass

from imagebart.errors import InputError

MOST_SCALES = 8


@dataclass(frozen=True)
class SamplingSettings:
    """Settings of one run of the chain. Raises InputError naming a value out of range."""

    temperature: float = 1.0  # under 1: safer, over 1: wilder
    top_k: int | None = None  # only the k likeliest tokens
    top_p: float | None = None  # only the likeliest tokens that together have this probability
    guidance: float = 1.0  # 1: the model as it is; more: closer to the prompt
    passes: int = 1  # forward-backward repeats of each stage
    start: int | None = None  # first stage to run; None: T, from pure noise
    scales: int | None = None  # T, steps from noise to the picture; None: as many as the model is best drawn with

    def __post_init__(self) -> None:
        if not 0.01 <= self.temperature <= 100:
            raise InputError(f"The temperature is {self.temperature:g}; it must be from 0.01 to 100.")
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"Top-k is {self.top_k}; it must be 1 or more.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"Top-p is {self.top_p:g}; it must be over 0 and at most 1.")
        if not 0 <= self.guidance <= 100:
            raise InputError(f"The guidance is {self.guidance:g}; it must be from 0 to 100.")
        if not 1 <= self.passes <= 100:
            raise InputError(f"There are {self.passes} passes a stage; there must be from 1 to 100.")
        if self.start is not None and self.start < 1:
            raise InputError(f"The first stage is {self.start}; it must be 1 or more.")
        if self.scales is not None and not 1 <= self.scales <= MOST_SCALES:
            raise InputError(f"There are {self.scales} scales; there must be from 1 to {MOST_SCALES}.")
