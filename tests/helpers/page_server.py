"""The page on a pipeline, served by this process; and a client that sends what other programs could, over HTTP."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from imagebart.pipeline import Pipeline
from imagebart.ui.models import Example, Models
from imagebart.ui.page import build_page, launch_page

FILE = {"meta": {"_type": "gradio.FileData"}, "orig_name": "image.png"}
UPLOADED = "uploaded"  # stands for an image that was uploaded


@contextmanager
def served(
    pipeline: Pipeline, examples: Sequence[Example] = (), models: Path | None = None, **options: Any
) -> Iterator[str]:
    """The address of the page of a pipeline, and of the models of a folder; closed at the end."""
    page = build_page(Models(pipeline, examples, models))
    _, url, _ = launch_page(page, prevent_thread_lock=True, server_name="127.0.0.1", quiet=True, **options)
    try:
        yield url
    finally:
        page.close(verbose=False)


class PageClient:
    """Requests to a running page, and an image that was uploaded to it."""

    def __init__(self, url: str, http: httpx.Client) -> None:
        self.url = url
        self._http = http
        file = BytesIO()
        Image.new("RGB", (48, 40), "red").save(file, "PNG")
        reply = http.post(f"{url}gradio_api/upload", files={"files": ("image.png", file.getvalue())})
        self.image: str = reply.json()[0]

    @property
    def folder(self) -> Path:
        """Where the page keeps its files."""
        return Path(self.image).parents[1]

    def post(self, route: str, body: Any) -> httpx.Response:
        text = json.dumps(body).replace(f'"{UPLOADED}"', json.dumps({**FILE, "path": self.image}))
        headers = {"Content-Type": "application/json"}
        return self._http.post(f"{self.url}gradio_api/{route}", content=text, headers=headers)

    def call(self, name: str, data: list[Any]) -> str:
        """The answer to a call of an endpoint."""
        joined = self.post(f"call/{name}", {"data": data})
        if joined.status_code != 200:
            return joined.text
        return self._http.get(f"{self.url}gradio_api/call/{name}/{joined.json()['event_id']}").text
