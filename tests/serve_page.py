"""Serves the page on a tiny random model and says what the model does: `serve_page.py FILES STAGES PACE [PORT]`.

Prints the page's address, keeps temporary files in the folder FILES, shows the examples of the folder "examples"
beside it, pauses for PACE seconds after each event, and stops when its input closes. Each further line is a JSON
object: what happened ("begun", "event", "ended"), in the run with which seed, and when on the machine's monotonic
clock, which all processes share.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "100"  # as in app.py
os.environ["GRADIO_TEMP_DIR"] = sys.argv[1]

import torch
from pacing import paced

from imagebart.pipeline import Pipeline, PipelineEvent
from imagebart.testing import tiny_staged_model
from imagebart.ui.app import build_page, launch_page
from imagebart.ui.examples import find_examples


class Watched(Pipeline):
    """A pipeline that says what it does, after a pause."""

    pace = float(sys.argv[3])

    def edit(self, *args: Any, **kwargs: Any) -> Iterator[PipelineEvent]:
        return _watch(paced(super().edit(*args, **kwargs), self.pace), kwargs["seed"])

    def generate(self, *args: Any, **kwargs: Any) -> Iterator[PipelineEvent]:
        return _watch(paced(super().generate(*args, **kwargs), self.pace), kwargs["seed"])

    def vary(self, *args: Any, **kwargs: Any) -> Iterator[PipelineEvent]:
        return _watch(paced(super().vary(*args, **kwargs), self.pace), kwargs["seed"])


def _watch(events: Iterator[PipelineEvent], seed: int | None) -> Iterator[PipelineEvent]:
    _say("begun", seed)
    try:
        for event in events:
            _say("event", seed)
            yield event
    finally:
        events.close()  # type: ignore[attr-defined]
        _say("ended", seed)


def _say(what: str, seed: int | None) -> None:
    # One short write a line: the threads of two runs do not mix them up.
    sys.stdout.write(json.dumps({"what": what, "seed": seed, "at": time.monotonic()}) + "\n")
    sys.stdout.flush()


def main() -> None:
    torch.set_num_threads(1)
    examples = find_examples(Path(sys.argv[1]).with_name("examples"))
    page = build_page(Watched(tiny_staged_model("text", int(sys.argv[2]))), examples)
    port = int(sys.argv[4]) if len(sys.argv) > 4 else None
    _, url, _ = launch_page(page, prevent_thread_lock=True, server_name="127.0.0.1", server_port=port, quiet=True)
    print(url, flush=True)
    sys.stdin.read()
    # As when app.py ends, connections break off. `Blocks.close` first tells running pages that the server stopped,
    # while it still answers: a quick browser then takes it for one that is there.
    os._exit(0)


if __name__ == "__main__":
    main()
