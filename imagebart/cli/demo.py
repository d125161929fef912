"""`imagebart demo`: loads a model and serves the page."""

import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from imagebart.cli.options import command
from imagebart.core.errors import InputError
from imagebart.core.settings import DEFAULT_MODEL
from imagebart.ui import MAX_RUN_SECONDS, find_device, set_environment

DOWNLOADS = "Whether people on the page may get published models; not on a Space."

app = typer.Typer()


@command(app)
def demo(
    model: Annotated[str | None, typer.Option(help="Folder of a model, its name, or owner/name; else avatars.")] = None,
    models: Annotated[Path | None, typer.Option(help="Folder of several models; opens --model, or the first.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; GRADIO_SERVER_NAME, else 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; GRADIO_SERVER_PORT, else a free one from 7860.")] = None,
    max_run_seconds: Annotated[float, typer.Option(min=1, help="Seconds after which a run ends.")] = MAX_RUN_SECONDS,
    downloads: Annotated[bool | None, typer.Option(help=DOWNLOADS, envvar="IMAGEBART_DOWNLOADS")] = None,
    mcp: Annotated[bool, typer.Option("--mcp", help="Tools for MCP clients, too.", envvar="GRADIO_MCP_SERVER")] = False,
) -> None:
    """Open the page: serves it until it is stopped."""
    set_environment()
    # SIGTERM, as from a container, ends the server in order, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    device = find_device()  # before torch is imported
    from imagebart.model import is_hub_name, locate, shipped_model
    from imagebart.pipeline import Pipeline
    from imagebart.ui.models import Models, find_examples, is_model
    from imagebart.ui.page import build_page, launch_page
    from imagebart.weights.folder import EXAMPLES

    source: str | Path = model or DEFAULT_MODEL
    if models and not model:
        inside = [path for path in sorted(models.glob("*")) if is_model(path)]
        if not inside:
            raise InputError(f"{models} holds no models; give a folder that holds their folders.")
        source = inside[0]
    folder = locate(source)
    pipeline = Pipeline.from_pretrained(folder, device)
    questions = pipeline if device == "cpu" else Pipeline.from_pretrained(folder)
    shipped = shipped_model(DEFAULT_MODEL)
    examples = find_examples(folder / EXAMPLES) or (find_examples(shipped / EXAMPLES) if shipped else [])
    # Beside a download of the Hub lie its other revisions.
    others = models or (None if is_hub_name(source) else folder.resolve().parent)
    allowed = "SPACE_ID" not in os.environ if downloads is None else downloads
    page = build_page(Models(pipeline, examples, others, allowed, questions=questions), max_run_seconds)
    try:
        launch_page(page, server_name=host, server_port=port, mcp_server=mcp)
    except OSError as error:
        if "empty port" not in str(error):
            raise
        given = "GRADIO_SERVER_PORT, or those from 7860 on, are" if port is None else f"{port} is"
        sentence = f"Port {given} taken, or {host or 'the host'} is no address of this machine"
        raise InputError(f"{sentence}; choose another --port or --host.") from error
