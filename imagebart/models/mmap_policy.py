"""Whether weights are copied into memory, or stay in their files, from which the system reads them as they are needed.

A copy is safe from whatever happens to its file. Copies that would take more than a quarter of memory, as of the
largest published model, 12 GB, on a machine of 16, are not made: the weights are mapped, and the system may drop them
and read them again. Packed weights are copies, of as many stages as fit into the same share.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

SHARE = 0.25  # of memory that copies may take
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))  # of a container


def too_large(modules: Iterable[nn.Module], dtype: torch.dtype) -> bool:
    """Whether copies of these modules' weights, as numbers of a type, would take too much memory."""
    numbers = sum(p.numel() for module in modules for p in module.parameters())
    return numbers * dtype.itemsize > SHARE * available_memory()


def available_memory() -> int:
    """Bytes that this process can have: the machine's, or its container's where that is less."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if hasattr(os, "sysconf") else [8 << 30]
    for path in LIMITS:
        text = path.read_text().strip() if path.is_file() else "max"
        sizes += [int(text)] if text.isdigit() else []
    return min(sizes)
