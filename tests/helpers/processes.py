"""Work in several processes that know of each other, as `accelerate launch --cpu --num_processes 2` starts them."""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Callable

import torch
from accelerate.state import AcceleratorState


def in_processes(count: int, work: Callable[[], object]) -> list[int]:
    """Does the work in so many forked processes at once; returns their exit codes: what it returns, 1 if it raises."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    children = []
    for rank in range(count):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.environ.update(common, RANK=str(rank), LOCAL_RANK=str(rank), ACCELERATE_USE_CPU="true")
                torch.set_num_threads(1)  # the others stayed with the parent, and would be waited for
                AcceleratorState._reset_state(reset_partial_state=True)
                code = int(work() or 0)  # type: ignore[call-overload]
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
