"""Work in a process of its own that is killed, or runs out of room, at a chosen moment."""

import itertools
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch

# What Python says of a program's own doings (docs.python.org/3/library/audit_events.html).
ON_FILES = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod"}


def run_in_fork(work: Callable[[], Any]) -> int:
    """Does the work in a forked process; returns its exit code: 0, 1 where it raised, -9 where it was killed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            torch.set_num_threads(1)  # the others stayed with the parent, and would be waited for
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at_every_step(work: Callable[[], Any]) -> Iterator[int]:
    """Does the work again and again until it is through, killed before its first doing with files, its second, ..."""

    def killed(step: int) -> None:
        steps = itertools.count()

        def kill(event: str, _: Any) -> None:
            if event in ON_FILES and next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(kill)
        work()

    for step in itertools.count():
        code = run_in_fork(lambda step=step: killed(step))
        if code == 0:
            return
        assert code == -signal.SIGKILL, code
        yield step


def with_full_disk(work: Callable[[], Any], size: int) -> str:
    """Does the work where no file can grow over `size` bytes, as on a full disk; returns what it raised, as a text."""
    here, there = os.pipe()

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        try:
            work()
        except Exception as error:
            os.write(there, str(error).encode())

    run_in_fork(limited)
    os.close(there)
    with open(here, encoding="utf-8") as said:
        return said.read()
