"""Filling modules that were made without memory (on the meta device), one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from imagebart.first_stage import FirstStage
from imagebart.weights.errors import WeightsError

Shapes = Mapping[str, tuple[int, ...]]

DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}


def parse_dtype(name: str) -> torch.dtype:
    """A floating-point type by its name; raises ValueError for another."""
    if name not in DTYPES:
        raise ValueError(f"dtype is {name!r}, expected one of {', '.join(DTYPES)}")
    return DTYPES[name]


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor that a module needs."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def check_shapes(where: object, given: Shapes, expected: Shapes) -> None:
    """Raises WeightsError naming the first tensor that is missing, unknown or of a wrong shape."""
    for name, shape in expected.items():
        if name not in given:
            raise WeightsError(f"{where} lacks the tensor {name}, expected it with shape {list(shape)}")
        if tuple(given[name]) != shape:
            raise WeightsError(f"{where} has {name} of shape {list(given[name])}, expected {list(shape)}")
    unknown = sorted(set(given) - set(expected))
    if unknown:
        raise WeightsError(
            f"{where} has the tensor {unknown[0]}, which is no part of this model: expected {len(expected)} tensors"
        )


def fill(
    module: nn.Module, read: Callable[[str], Tensor], where: object, device: torch.device, dtype: torch.dtype
) -> None:
    """Gives a module its tensors, each read by name and copied to the device; floats become dtype."""
    tensors = {}
    for name, wanted in module.state_dict().items():
        tensor = read(name)
        if tensor.is_floating_point() != wanted.is_floating_point():
            expected = "floating point" if wanted.is_floating_point() else "whole"
            raise WeightsError(f"{where} has {name} of type {tensor.dtype}, expected {expected} numbers")
        kind = dtype if wanted.is_floating_point() else wanted.dtype
        # Copied even where nothing changes: files may be mapped into memory, and change later.
        tensors[name] = tensor.reshape(wanted.shape).to(device, kind, copy=True)
    module.load_state_dict(tensors, assign=True)


def check_codes(first_stage: FirstStage, where: object) -> None:
    """Raises WeightsError where the list of used codes points outside the codebook or is not ascending."""
    used, size = first_stage.quantize.used, first_stage.config.codebook_size
    if used[0] < 0 or used[-1] >= size or bool((used[1:] <= used[:-1]).any()):
        raise WeightsError(f"{where} has used codes that are not ascending numbers from 0 to {size - 1}")
