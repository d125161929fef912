"""Serves the page on a tiny random model and says what the model does: `serve_page.py FILES STAGES PAUSE [PORT]`.

Prints the page's address, keeps temporary files in the folder FILES, shows the examples of the folder "examples"
beside it, pauses for PAUSE seconds after each event, and stops when its input closes. Each further line is a JSON
object: what happened ("begun", "event", "ended"), in the run with which seed, and when on the machine's monotonic
clock, which all processes share.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "100"  # as in ui/__init__.py
os.environ["GRADIO_TEMP_DIR"] = sys.argv[1]

import torch
from fake_models import WatchedPipeline
from tiny_models import tiny_staged_model

from imagebart.ui.models import Models, find_examples
from imagebart.ui.page import build_page, launch_page


class ReportingPipeline(WatchedPipeline):
    """A pipeline that prints what happens in its runs."""

    def note(self, what: str, seed: int | None) -> None:
        # One short write a line: the threads of two runs do not mix them up.
        sys.stdout.write(json.dumps({"what": what, "seed": seed, "at": time.monotonic()}) + "\n")
        sys.stdout.flush()


def main() -> None:
    torch.set_num_threads(1)
    examples = find_examples(Path(sys.argv[1]).with_name("examples"))
    model = tiny_staged_model("text", int(sys.argv[2]))
    page = build_page(Models(ReportingPipeline(model, pause=float(sys.argv[3])), examples))
    port = int(sys.argv[4]) if len(sys.argv) > 4 else None
    _, url, _ = launch_page(page, prevent_thread_lock=True, server_name="127.0.0.1", server_port=port, quiet=True)
    print(url, flush=True)
    sys.stdin.read()
    # As when app.py ends, connections break off. `Blocks.close` first tells running pages that the server stopped,
    # while it still answers: a quick browser then takes it for one that is there.
    os._exit(0)


if __name__ == "__main__":
    main()
