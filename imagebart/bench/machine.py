"""What this machine is, and how fast it reads memory."""

from __future__ import annotations

import platform
import resource
import sys
import time
from pathlib import Path

import torch


def cpu_name() -> str:
    """The processor's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def bytes_per_second(size: int, seconds: float = 0.5) -> float:
    """How fast all threads read as many bytes as there are weights, over and over: from the caches if they fit."""
    numbers = torch.ones(max(size // 4, 1024))
    numbers.sum()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        numbers.sum()
        best = min(best, time.perf_counter() - began)
    return numbers.numel() * 4 / best


def peak_memory() -> float:
    """GB that this process held at most so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
