"""Files that a run is resumed from: its state, tensors only, and JSON. Reading them runs no code.

`state/step-0000020.safetensors` holds model, averaged weights, optimizers and what a task adds; random numbers and the
learning rate depend on the step alone. The state before is kept, to resume from if the last one is damaged. A file that
cannot be read is refused by one sentence that names it and says what to delete.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from imagebart.atomic_io import write_bytes, write_text
from imagebart.errors import InputError, reason_of
from imagebart.settings import Settings
from imagebart.weights import check_shapes

STATE = re.compile(r"step-(\d{7,12})\.safetensors")
PICKLES = (".bin", ".pkl", ".pt", ".pth")
KEPT = 2  # states

S = TypeVar("S", bound=Settings)


class Stateful(Protocol):
    """A module, or anything else with a state of named tensors."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


class OptimizerState:
    """What an optimizer keeps for each parameter. Its settings are those of the run, and not kept."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def state_dict(self) -> dict[str, Tensor]:
        kept = self.optimizer.state_dict()["state"]
        return {f"{number}.{name}": tensor for number, values in kept.items() for name, tensor in values.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Raises LookupError or ValueError where the tensors are not of these parameters."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        values: dict[int, dict[str, Tensor]] = {}
        for key, tensor in state.items():
            number, _, name = key.partition(".")
            parameter = parameters[int(number)]
            if tensor.ndim and tensor.shape != parameter.shape:
                raise ValueError(f"{key} has shape {list(tensor.shape)}, expected {list(parameter.shape)}")
            if tensor.ndim:  # strides like the parameter's
                tensor = torch.empty_like(parameter, dtype=tensor.dtype, device=tensor.device).copy_(tensor)
            values.setdefault(int(number), {})[name] = tensor
        self.optimizer.load_state_dict({"state": values, "param_groups": self.optimizer.state_dict()["param_groups"]})


def save_state(folder: Path, step: int, parts: Mapping[str, Stateful]) -> None:
    """Writes the state of a run at a step; all but the last KEPT are removed. Raises OSError where it cannot be."""
    tensors: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, part in parts.items():
        for key, tensor in part.state_dict().items():
            stored = tensor.detach().cpu().contiguous()
            storage = stored.untyped_storage().data_ptr()
            tensors[f"{name}/{key}"] = stored.clone() if storage in storages else stored  # tied weights
            storages.add(storage)
    place = folder / "state"
    place.mkdir(parents=True, exist_ok=True)
    write_bytes(place / _name(step), save(tensors))
    for path in _states(place)[:-KEPT]:
        path.unlink()


def load_state(folder: Path, parts: Mapping[str, Stateful]) -> int:
    """Loads the last state of a run; returns its step, 0 where there is none. Raises InputError."""
    place = folder / "state"
    if place.exists() and not place.is_dir():
        raise damaged(place, NotADirectoryError("not a folder"), f"delete it to start {folder} from step 0")
    states = _states(place)
    if not states:
        if place.is_dir() and any(path.suffix in PICKLES or path.name == "step.json" for path in place.iterdir()):
            raise InputError(
                f"{place} is of an earlier version, whose states could run any code when they were read; delete it to "
                f"start {folder} from step 0."
            )
        return 0
    path, *before = states[::-1]
    resumed = f"resume from step {_step(before[0])}" if before else f"start {folder} from step 0"
    try:
        tensors = load_file(path)
        for name, part in parts.items():
            own = [key for key in tensors if key.startswith(f"{name}/")]
            state = {key.removeprefix(f"{name}/"): tensors.pop(key) for key in own}
            if isinstance(part, nn.Module):
                expected = {key: tuple(tensor.shape) for key, tensor in part.state_dict().items()}
                check_shapes("it", {key: tuple(tensor.shape) for key, tensor in state.items()}, expected, f"{name}/")
            part.load_state_dict(state)
        if tensors:
            raise ValueError(f"it has the unknown tensor {next(iter(tensors))}")
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise damaged(path, error, f"delete it to {resumed}") from error
    return _step(path)


def read_json(cls: type[S], path: Path, remedy: str) -> S:
    """Settings from a JSON file of a run. remedy: what to do if the file is damaged, for the InputError."""
    try:
        return cls.from_json(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, error, remedy) from error


def write_json(path: Path, value: Settings) -> None:
    """Writes settings, whole or not at all."""
    write_text(path, value.model_dump_json(indent=1))


def damaged(path: Path, error: Exception, remedy: str) -> InputError:
    """The sentence for a file of a run that cannot be read. remedy: what to do, as "delete it to ..."."""
    return InputError(f"{path} is damaged, or of another run ({reason_of(error)}); {remedy}.")


def _states(place: Path) -> list[Path]:
    """The states in a folder, the last one last."""
    found = [path for path in place.iterdir() if STATE.fullmatch(path.name)] if place.is_dir() else []
    return sorted(found, key=_step)


def _name(step: int) -> str:
    return f"step-{step:07d}.safetensors"


def _step(path: Path) -> int:
    return int(path.name[5:-12])
