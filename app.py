"""The demo: load a model, build the page, serve it. `python app.py --help` lists the options."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from imagebart.errors import plain
from imagebart.ui.environment import find_device, set_environment

HERE = Path(__file__).resolve().parent
AVATARS = HERE / "checkpoints" / "avatars"


def main(
    model: Annotated[
        str | None, typer.Option(help="Folder of the model, a published model's name, or owner/name on the Hub.")
    ] = None,
    models: Annotated[
        str | None, typer.Option(help="Folder of several models; --model, or the first of them, is opened.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; GRADIO_SERVER_NAME, else 127.0.0.1.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; GRADIO_SERVER_PORT, else a free one from 7860.")
    ] = None,
    mcp: Annotated[bool, typer.Option("--mcp", help="Offer the endpoints as tools for MCP clients, too.")] = False,
) -> None:
    """Paint over an image and say what should be there: serves the page until it is stopped."""
    set_environment()
    # SIGTERM, as from a container, ends the server in order, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    device = find_device()  # before torch is imported
    from imagebart.pipeline import Pipeline
    from imagebart.ui.app import build_page, launch_page
    from imagebart.ui.endpoints import mcp_problem
    from imagebart.ui.examples import EXAMPLES, find_examples
    from imagebart.ui.model_list import Models
    from imagebart.weights import is_hub_name, locate

    library = Models(models, max_loaded=1) if models else None
    source: str | Path = model or AVATARS
    if models and library is not None and not model:
        if not library.names():
            raise SystemExit(f"{models} holds no models; give a folder that holds their folders.")
        source = Path(models) / library.names()[0]
    try:
        folder = locate(source)
        pipeline = Pipeline.from_pretrained(folder, device)
    except (OSError, ValueError) as error:
        raise SystemExit(plain(str(error))) from error
    if library is None and not is_hub_name(source):  # beside a download of the Hub lie its other revisions
        library = Models.beside(folder)
    examples = find_examples(folder / EXAMPLES) or find_examples(HERE / "assets" / "examples")
    page = build_page(pipeline, examples, library)
    problem = mcp_problem(page) if mcp else None
    if problem:
        raise SystemExit(problem)
    launch_page(page, server_name=host, server_port=port, mcp_server=mcp)


if __name__ == "__main__":
    typer.run(main)
