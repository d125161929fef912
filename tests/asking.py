"""A page on a tiny model, asked by plain HTTP: what other programs could send, with nothing on the way that refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from imagebart.pipeline import Pipeline
from imagebart.ui.app import build_page, launch_page

FILE = {"meta": {"_type": "gradio.FileData"}, "orig_name": "picture.png"}
UPLOADED = "uploaded"  # stands for a picture that was uploaded


class Page:
    """A running page, and a picture that was uploaded to it."""

    def __init__(self, url: str, http: httpx.Client) -> None:
        self.url = url
        self._http = http
        file = BytesIO()
        Image.new("RGB", (48, 40), "red").save(file, "PNG")
        reply = http.post(f"{url}gradio_api/upload", files={"files": ("picture.png", file.getvalue())})
        self.picture: str = reply.json()[0]

    @property
    def folder(self) -> Path:
        """Where the page keeps its files."""
        return Path(self.picture).parents[1]

    def post(self, route: str, body: Any) -> httpx.Response:
        text = json.dumps(body).replace(f'"{UPLOADED}"', json.dumps({**FILE, "path": self.picture}))
        headers = {"Content-Type": "application/json"}
        return self._http.post(f"{self.url}gradio_api/{route}", content=text, headers=headers)

    def call(self, name: str, data: list[Any]) -> str:
        """What a call is answered in the end."""
        joined = self.post(f"call/{name}", {"data": data})
        if joined.status_code != 200:
            return joined.text
        return self._http.get(f"{self.url}gradio_api/call/{name}/{joined.json()['event_id']}").text


@contextmanager
def asking(pipeline: Pipeline) -> Iterator[Page]:
    """The page of a pipeline, closed at the end."""
    blocks = build_page(pipeline)
    _, url, _ = launch_page(blocks, prevent_thread_lock=True, server_name="127.0.0.1", quiet=True)
    with httpx.Client(timeout=60) as http:
        yield Page(url, http)
    blocks.close(verbose=False)
