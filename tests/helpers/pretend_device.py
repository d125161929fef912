"""A device that is only pretended: its tensors refuse to meet those of the CPU, as a GPU's do.

Their values are on the CPU, so that everything runs, steps that depend on values included: `FakeTensorMode` has none,
and tensors of the meta device mix with the CPU's. Importing this registers the device with PyTorch, for good, so that
it is for a process of its own.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

aten = torch.ops.aten
COPIES = {aten.copy_.default, aten._to_copy.default}
INDEXING = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default}  # a GPU takes the CPU's indices


class _Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


_setup_privateuseone_for_python_backend("pretended", _Backend())
DEVICE = torch.device("pretended", 0)


class Pretended(Tensor):
    """A tensor that says that it is on DEVICE."""

    held: Tensor  # its values

    @staticmethod
    def __new__(cls, held: Tensor) -> "Pretended":
        shape = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        made: Pretended = Tensor._make_wrapper_subclass(cls, held.size(), **shape, device=DEVICE)  # type: ignore[attr-defined]
        made.held = held
        return made

    def tolist(self) -> Any:
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


class PretendedDevice(TorchDispatchMode):
    """While it is entered, tensors can be made on DEVICE."""

    def __enter__(self) -> "PretendedDevice":
        torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor` makes what it is given on the CPU and then moves it
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(False)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operator as the device would compute it; raises RuntimeError where it gets tensors of the CPU, too."""
    tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    wanted = torch.device(kwargs.get("device") or (DEVICE if any(isinstance(t, Pretended) for t in tensors) else "cpu"))
    if wanted.type != DEVICE.type and not any(isinstance(one, Pretended) for one in tensors):
        return func(*args, **kwargs)
    if func in INDEXING:
        tensors = [args[0], *(one for one in args[2:] if isinstance(one, Tensor))]
    strays = [one for one in tensors if not isinstance(one, Pretended) and one.ndim]
    if strays and func not in COPIES:
        raise RuntimeError(f"{func} got a tensor of the CPU, {list(strays[0].shape)}, beside one of {DEVICE}")
    if "device" in kwargs:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    args, kwargs = tree_map_only(Pretended, lambda one: one.held, (args, kwargs))
    result = func(*args, **kwargs)
    if func._schema.is_mutable and isinstance(result, Tensor):
        return tensors[0]
    if wanted.type == "cpu":
        return tree_map_only(Tensor, torch.clone, result)
    return tree_map_only(Tensor, Pretended, result)
