"""Freed memory leaves the process, measured by the system's own account in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import re, pathlib
from imagebart.ui.memory import give_back
def resident(): return int(re.search(r"VmRSS:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 1000
kept = [bytes(1000) for _ in range(100_000)]  # larger than what Python keeps itself
del kept[:-1]  # the last one holds the heap's end where it is
before = resident()
give_back()
print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's account of memory")
def test_freed_memory_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 50
