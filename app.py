"""The demo: load a model, build the page, serve it. `python app.py --help` lists the options."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from imagebart.errors import plain
from imagebart.ui.files import temporary_folder
from imagebart.ui.zero_gpu import find_device

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
    mcp: Annotated[bool, typer.Option("--mcp", help="Offer the endpoints as tools for MCP clients too.")] = False,
) -> None:
    """Paint over a picture and say what should be there: serves the page until it is stopped."""
    # Nothing is reported to anyone; Gradio and the Hub's library read this when they are imported.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    # It would go over its notes on the last 10 000 runs after each run.
    os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "100"
    os.environ["GRADIO_TEMP_DIR"] = temporary_folder()
    # Being told to stop, as by a container, ends the server in order, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    device = find_device()  # before torch is imported
    from imagebart.pipeline import Pipeline
    from imagebart.ui.app import build_page, launch_page, missing_for_tools
    from imagebart.ui.examples import EXAMPLES, find_examples
    from imagebart.ui.model_list import Models
    from imagebart.weights import is_hub_name, locate

    library = Models(models, most=1) if models else None
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
    own = find_examples(folder / EXAMPLES)
    page = build_page(pipeline, own or find_examples(HERE / "assets" / "examples"), library)
    missing = missing_for_tools(page) if mcp else None
    if missing:
        raise SystemExit(missing)
    launch_page(page, server_name=host, server_port=port, mcp_server=mcp)


if __name__ == "__main__":
    typer.run(main)
