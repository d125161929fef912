"""The endpoints as MCP tools, listed and called by the reference client; and what is said without the package."""

from __future__ import annotations

import base64
import io
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imagebart.testing import tiny_pipeline
from imagebart.ui.app import build_page, launch_page, missing_for_tools


def test_the_endpoints_are_tools() -> None:
    anyio = pytest.importorskip("anyio")
    mcp = pytest.importorskip("mcp")
    from mcp.client.streamable_http import streamablehttp_client

    async def ask(url: str) -> tuple[dict[str, object], list[Any]]:
        async with streamablehttp_client(url) as (read, write, _), mcp.ClientSession(read, write) as session:
            await session.initialize()
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            answer = await session.call_tool("generate", {"prompt": "a hat", "seed": 1})
            return tools, answer.content

    pipeline = tiny_pipeline()
    page = build_page(pipeline)
    assert missing_for_tools(page) is None
    _, url, _ = launch_page(page, prevent_thread_lock=True, server_name="127.0.0.1", quiet=True, mcp_server=True)
    try:
        tools, said = anyio.run(ask, f"{url}gradio_api/mcp/")
    finally:
        page.close(verbose=False)
    assert set(tools) == {"describe", "edit", "generate", "suggest_mask", "vary"}, "and nothing of the page itself"
    edit = tools["edit"]
    assert edit.description.startswith("Redraw a part of a picture")  # type: ignore[attr-defined]
    properties = edit.inputSchema["properties"]  # type: ignore[attr-defined]
    assert edit.inputSchema["required"] == ["image"]  # type: ignore[attr-defined]
    assert all(about.get("description") for about in properties.values())
    assert "border" in properties["area"]["enum"]
    picture, address, *values = said
    with Image.open(io.BytesIO(base64.b64decode(picture.data))) as image:
        *_, result = pipeline.generate("a hat", seed=1)
        assert picture.mimeType == "image/png" and (np.asarray(image) == np.asarray(result.image)).all()
    assert address.text.startswith(f"Image URL: {url}") and [value.text for value in values] == ["done", "1"]


def test_without_the_package_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)  # as if it were not there
    missing = missing_for_tools(build_page(tiny_pipeline()))
    assert missing is not None
    assert "pip install 'mcp>=1.21,<2'" in missing and "\n" not in missing
