"""The page on a pipeline, served by this process."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from imagebart.pipeline import Pipeline
from imagebart.ui.models import Example, Models
from imagebart.ui.page import build_page, launch_page


@contextmanager
def served(
    pipeline: Pipeline, examples: Sequence[Example] = (), models: Path | None = None, **options: Any
) -> Iterator[str]:
    """The address of the page of a pipeline, and of the models of a folder; closed at the end."""
    page = build_page(Models(pipeline, examples, models))
    with socket.socket() as free:  # a port that no server had before: a page that is still open would ask this one
        free.bind(("127.0.0.1", 0))
        where = {"server_name": "127.0.0.1", "server_port": free.getsockname()[1]}
    _, url, _ = launch_page(page, prevent_thread_lock=True, quiet=True, **where, **options)
    try:
        yield url
    finally:
        page.close(verbose=False)
