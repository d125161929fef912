"""How much memory there is, and what is too large for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from imagebart.models import mmap_policy


def test_too_large_is_a_share_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmap_policy, "available_memory", lambda: 1600)
    layers = [nn.Linear(10, 5, bias=False), nn.Linear(10, 5, bias=False)]
    assert not mmap_policy.too_large(layers, torch.float32)  # 400 bytes
    assert mmap_policy.too_large(layers, torch.float64)


def test_memory_is_the_least_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(mmap_policy, "LIMITS", (limit,))
    everything = mmap_policy.available_memory()
    assert everything > 1 << 28
    for said, expected in (("max\n", everything), ("1048576\n", 1 << 20), (str(1 << 60), everything)):
        limit.write_text(said)
        assert mmap_policy.available_memory() == expected
