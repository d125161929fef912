"""The endpoints as tools for MCP clients: what has to be there for it. Gradio does the rest."""

from __future__ import annotations

from typing import Any

import gradio as gr
from anyio.to_thread import run_sync

NEEDED = "mcp>=1.21,<2"


def missing_for_tools(page: gr.Blocks) -> str | None:
    """One sentence if the tools cannot be offered, because the package is missing or does not fit; else None.

    Gradio itself only prints a line in that case, and serves the page without tools.
    """
    from gradio.mcp import GradioMCPServer

    try:
        GradioMCPServer(page)
    except Exception as error:  # a package of another version lacks nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return f"Tools for MCP clients need another package: pip install '{NEEDED}' (Gradio says: {reason})"
    return None


def answer_with_pictures(page: gr.Blocks) -> None:
    """Have the tools of a launched page answer with the picture itself, and each other value as a text.

    Gradio makes one text of several values, in which the picture is a path of the server.
    """
    server: Any = page.mcp_server_obj
    if server is None:
        return

    async def values(job: Any) -> list[Any]:
        return list(await run_sync(job.result))

    server._execute_tool_without_progress = values
