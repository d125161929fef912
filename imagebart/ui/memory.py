"""Memory that runs have freed goes back to the system.

glibc keeps what was freed in the heap of each thread, and Gradio's requests run in many: after a busy minute tens of
megabytes would stay.
"""

from __future__ import annotations

import ctypes
import sys


def give_back() -> None:
    """Hands freed memory back; nothing happens where the C library is none that can be asked."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
