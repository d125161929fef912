"""Programs in several processes that know of each other, as `accelerate launch --cpu --num_processes 2` starts them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import imagebart


def in_processes(count: int, *command: str) -> list[int]:
    """Runs Python so many times at once, and returns the exit codes. A fork would wait for its parent's threads."""
    ours = [str(Path(imagebart.__file__).parents[1]), str(Path(__file__).parent)]
    paths = os.pathsep.join([*ours, os.environ.get("PYTHONPATH", "")])
    known = {"PYTHONPATH": paths}
    if count > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            known |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        known |= {"WORLD_SIZE": str(count), "ACCELERATE_USE_CPU": "true"}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {} for rank in range(count)]
    started = [subprocess.Popen([sys.executable, *command], env=os.environ | known | rank) for rank in ranks]
    return [process.wait() for process in started]
