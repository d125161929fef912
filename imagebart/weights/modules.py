"""Filling modules that were made without memory (on the meta device), one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from imagebart.models.first_stage import FirstStage
from imagebart.models.transformer import Linear
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


class _Blank(TorchFunctionMode):
    """Leaves out first values, which a module without memory cannot have: PyTorch would import its compiler for them.

    That is 80 MB, and a second.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_):
            return args[0] if args else kwargs["tensor"]
        if func is torch.arange:
            return torch.empty(*args, dtype=torch.long)
        return func(*args, **(kwargs or {}))


@contextmanager
def without_memory(where: object) -> Iterator[None]:
    """Modules made here have shapes only; raises WeightsError where they cannot be made."""
    try:
        with torch.device("meta"), _Blank():
            yield
    except (ValueError, TypeError, LookupError, AssertionError, ArithmeticError, RuntimeError) as error:
        raise WeightsError(f"{where} describes what cannot be built: {error}") from error


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor that a module needs."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def check_shapes(where: object, given: Shapes, expected: Shapes, prefix: str = "") -> None:
    """Raises WeightsError naming the first tensor that is missing, unknown or of a wrong shape.

    prefix: what stands before all these names in the file.
    """
    for name, shape in expected.items():
        if name not in given:
            raise WeightsError(f"{where} lacks the tensor {prefix}{name}, expected it with shape {list(shape)}")
        if tuple(given[name]) != shape:
            raise WeightsError(f"{where} has {prefix}{name} of shape {list(given[name])}, expected {list(shape)}")
    unknown = sorted(set(given) - set(expected))
    if unknown:
        raise WeightsError(
            f"{where} has the tensor {prefix}{unknown[0]:.200}, expected only the {len(expected)} of this model"
        )


def fill(
    module: nn.Module,
    read: Callable[[str], Tensor],
    where: object,
    device: torch.device,
    dtype: torch.dtype,
    mapped: bool = False,
) -> None:
    """Gives a module its tensors, each read by name and moved to the device; floats become dtype.

    What is read may become the module's: it must be memory of its own, or mapped from a file for that purpose. Mapped
    weights of linear maps that are shorter than dtype stay so, for longer ones would be copies.
    """
    maps = {f"{name}.weight" for name, part in module.named_modules() if mapped and isinstance(part, Linear)}
    tensors = {}
    for name, wanted in module.state_dict().items():
        tensor = read(name)
        if tensor.is_floating_point() != wanted.is_floating_point():
            expected = "floating point" if wanted.is_floating_point() else "whole"
            raise WeightsError(f"{where} has {name} of type {tensor.dtype}, expected {expected} numbers")
        kind = dtype if wanted.is_floating_point() else wanted.dtype
        if name in maps and tensor.dtype.itemsize < dtype.itemsize:
            kind = tensor.dtype
        tensors[name] = tensor.reshape(wanted.shape).to(device, kind).contiguous()
    module.load_state_dict(tensors, assign=True)


def check_codes(first_stage: FirstStage, where: object) -> None:
    """Raises WeightsError where the list of used codes points outside the codebook or is not ascending."""
    used, size = first_stage.quantize.used, first_stage.config.codebook_size
    if used[0] < 0 or used[-1] >= size or bool((used[1:] <= used[:-1]).any()):
        raise WeightsError(f"{where} has used codes that are not ascending numbers from 0 to {size - 1}")
