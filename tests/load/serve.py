"""Serves the page on a tiny random model and writes down what the model does: `serve.py LOG [STAGES]`.

Prints the page's address, and stops when its input closes. Each line of LOG is a JSON object: what happened ("begun",
"event", "ended"), in the run with which seed, and when on the machine's monotonic clock, which all processes share.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import torch

from imagebart.pipeline import Pipeline, PipelineEvent
from imagebart.testing import tiny_model
from imagebart.ui.launch import launch_page
from imagebart.ui.page import build_page


class Watched(Pipeline):
    """A pipeline whose runs are written down."""

    def __init__(self, stages: int, log: TextIO) -> None:
        super().__init__(tiny_model(stages=stages))
        self._log = log

    def edit(self, *args: Any, **kwargs: Any) -> Iterator[PipelineEvent]:
        return self._watch(super().edit(*args, **kwargs), kwargs["seed"])

    def generate(self, *args: Any, **kwargs: Any) -> Iterator[PipelineEvent]:
        return self._watch(super().generate(*args, **kwargs), kwargs["seed"])

    def _watch(self, events: Iterator[PipelineEvent], seed: int | None) -> Iterator[PipelineEvent]:
        self._write("begun", seed)
        try:
            for event in events:
                self._write("event", seed)
                yield event
        finally:
            events.close()  # type: ignore[attr-defined]
            self._write("ended", seed)

    def _write(self, what: str, seed: int | None) -> None:
        # One short line a write: the threads of two runs do not mix them up.
        self._log.write(json.dumps({"what": what, "seed": seed, "at": time.monotonic()}) + "\n")
        self._log.flush()


def main() -> None:
    torch.set_num_threads(1)
    with open(sys.argv[1], "a", encoding="utf-8") as log:
        pipeline = Watched(int(sys.argv[2]) if len(sys.argv) > 2 else 6, log)
        page = build_page(pipeline)
        _, url, _ = launch_page(page, prevent_thread_lock=True, server_name="127.0.0.1", quiet=True)
        print(url, flush=True)
        sys.stdin.read()
        page.close(verbose=False)


if __name__ == "__main__":
    main()
