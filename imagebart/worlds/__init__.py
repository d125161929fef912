"""What the shipped models' scorers know; their networks' files: safetensors of 16-bit numbers, with a description."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from imagebart.core.atomic_io import write_bytes


def save_half(network: nn.Module, path: Path, about: Mapping[str, str]) -> None:
    """Writes a network's weights, and texts by name to the header."""
    tensors = {
        name: value.half() if value.is_floating_point() else value for name, value in network.state_dict().items()
    }
    write_bytes(path, save({name: value.contiguous().cpu() for name, value in tensors.items()}, dict(about)))


def load_half(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The header's texts, and the weights with 32-bit numbers."""
    with safe_open(path, "pt") as file:
        about, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return about, {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
