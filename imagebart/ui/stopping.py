"""Cancel: the browser gives each run a name, and Cancel names it, so that no other run can be meant.

Names are remembered: the run stops whether Cancel comes before it, while it waits for its turn or while it draws. What
became of it only the run says, as its last moment: a result, or that it was cancelled. Both never come.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from functools import wraps
from typing import Any

import gradio as gr
from gradio.server_messages import ProcessCompletedMessage

from imagebart.ui.frame import cancelled
from imagebart.ui.sketchpad.component import LONGEST_NAME, run_name

# Names kept at a time. The page says its name again as long as the run goes on, should others have driven it out.
MOST = 10_000

Run = Callable[..., Iterator[list[Any]]]


class Stopping:
    """The runs that are to stop, by name. Names cannot be guessed, so nobody stops what is not theirs."""

    def __init__(self, page: gr.Blocks, most: int = MOST) -> None:
        self._page, self._most = page, most
        self._names: OrderedDict[str, None] = OrderedDict()

    def heeded(self, run: Run) -> Run:
        """A run of the page (pad, *controls) that stops at the next moment after its name is told to `stop`.

        It is around what a GPU may be lent to: such work is done in a process of its own, which hears of no names.
        """

        @wraps(run)
        def heeding(pad: Any, *values: Any) -> Iterator[list[Any]]:
            name = run_name(pad)
            with closing(run(pad, *values)) as moments:  # type: ignore[type-var]
                for moment in moments:
                    if name in self._names:
                        break
                    yield moment
                else:
                    return
            yield cancelled(name).updates()

        return heeding

    def stop(self, name: str) -> None:
        """Stop the run of a name, also one that is not here yet; one that waits for its turn leaves the queue.

        To be called where Gradio's queue runs, so that nothing of it changes meanwhile.
        """
        self._names[name] = None
        self._names.move_to_end(name)
        while len(self._names) > self._most:
            self._names.popitem(last=False)
        queue = self._page._queue
        for turn in queue.event_queue_per_concurrency_id.values():
            for event in [event for event in turn.queue if _is(event, name)]:
                turn.queue.remove(event)
                queue.event_ids_to_events.pop(event._id, None)
                last = {"data": cancelled(name).updates()}
                queue.send_message(event, ProcessCompletedMessage(output=last, success=True))

    def answer(self) -> Callable[[Any], Coroutine[Any, Any, None]]:
        """`stop` for the browser to call: where the queue runs, and without a thread, of which none may be free."""

        async def stop(name: Any) -> None:
            if isinstance(name, str) and len(name) <= LONGEST_NAME:
                self.stop(name)

        return stop


def _is(event: Any, name: str) -> bool:
    """Whether an event of Gradio's queue is the run of a name."""
    sent = event.data.data if event.data else []
    return bool(sent) and isinstance(sent[0], dict) and sent[0].get("run") == name
