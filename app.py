"""The demo: load a model, build the page, serve it. `python app.py --help` lists the options."""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path

from imagebart.ui.temporary import temporary_folder
from imagebart.ui.zero_gpu import find_device

HERE = Path(__file__).resolve().parent
AVATARS = HERE / "checkpoints" / "avatars"


def main() -> None:
    """Serve the page until it is stopped."""
    parser = argparse.ArgumentParser(description="Paint over a picture and say what should be there.")
    said = f"folder of the model, a published model's name, or owner/name on the Hub ({AVATARS})"
    parser.add_argument("--model", help=said)
    parser.add_argument("--models", help="folder of several models; --model, or the first of them, is opened")
    parser.add_argument("--host", help="address to listen on (GRADIO_SERVER_NAME, else 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (GRADIO_SERVER_PORT, else a free one from 7860)")
    parser.add_argument("--mcp", action="store_true", help="offer the endpoints as tools for MCP clients too")
    options = parser.parse_args()

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
    from imagebart.ui.examples import EXAMPLES, find_examples
    from imagebart.ui.launch import launch_page
    from imagebart.ui.library import Models
    from imagebart.ui.page import build_page
    from imagebart.ui.tools import missing_for_tools
    from imagebart.weights import is_hub_name, locate

    models = Models(options.models, most=1) if options.models else None
    model = options.model or AVATARS
    if models is not None and not options.model:
        if not models.names():
            parser.exit(1, f"{options.models} holds no models; give a folder that holds their folders.\n")
        model = Path(options.models) / models.names()[0]
    try:
        folder = locate(model)
        pipeline = Pipeline.from_pretrained(folder, device)
    except (OSError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    if models is None and not is_hub_name(model):  # beside a download of the Hub lie its other revisions
        models = Models.beside(folder)
    own = find_examples(folder / EXAMPLES)
    page = build_page(pipeline, own or find_examples(HERE / "assets" / "examples"), models)
    missing = missing_for_tools(page) if options.mcp else None
    if missing:
        parser.exit(1, f"{missing}\n")
    launch_page(page, server_name=options.host, server_port=options.port, mcp_server=options.mcp)


if __name__ == "__main__":
    main()
