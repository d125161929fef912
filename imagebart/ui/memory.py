"""What sessions keep in memory, bounded in bytes: those that were not used for the longest time are forgotten first.

Gradio bounds the number of sessions; how large their pictures are, it does not know.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from gradio.state_holder import StateHolder

# Bytes of all sessions together: a few dozen large photographs, or thousands of small pictures.
MOST = 1_500_000_000
EVERY = 1.0  # seconds between two looks


def trim(sessions: StateHolder, most: int = MOST) -> int:
    """Forget the sessions longest unused until all together keep at most `most` bytes; how many were forgotten.

    A page whose session is forgotten goes on with the picture on its canvas, see `picture.on_canvas`.
    """
    with sessions.lock:
        # From the one longest unused to the latest.
        sizes = {name: _kept(list(session.state_data.values())) for name, session in sessions.session_data.items()}
        total, forgotten = sum(sizes.values()), 0
        for name, size in sizes.items():
            if total <= most:
                break
            if size:
                sessions.session_data.pop(name, None)
                sessions.time_last_used.pop(name, None)
                total, forgotten = total - size, forgotten + 1
    return forgotten


def trimmed(every: float = EVERY, most: int = MOST) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """A server's lifespan in which its sessions' memory is bounded."""

    async def go_on(sessions: StateHolder) -> None:
        while True:
            trim(sessions, most)
            await asyncio.sleep(every)

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        task = asyncio.create_task(go_on(app.state_holder))
        try:
            yield
        finally:
            task.cancel()

    return lifespan


def _kept(values: list[Any]) -> int:
    """Bytes of a session's values. A picture that two of them hold counts twice: rather too much than too little."""
    return sum(len(value) if isinstance(value, bytes) else getattr(value, "nbytes", 0) for value in values)
