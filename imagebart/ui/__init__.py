"""The page in the browser; here what is decided before Gradio and torch are imported: settings, folder, device."""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from imagebart.core.errors import InputError

FOLDER_NAME = "imagebart"  # how the name of the page's own folder for files begins
GPU_SECONDS = 60  # for which ZeroGPU is asked: a run of the shipped model takes a few, one of a published model more
MAX_RUN_SECONDS = 600.0  # of a run, unless another limit is given: others wait for the model


def set_environment() -> None:
    """Sets the variables that Gradio and the Hub's library read when they are imported: they report to nobody."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    # Gradio would go over its notes on the last 10 000 runs after each run.
    os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "100"
    os.environ["GRADIO_TEMP_DIR"] = temporary_folder()


def temporary_folder() -> str:
    """A folder that no other program uses and only this user can read. Raises InputError where it cannot be made."""
    user = os.getuid() if hasattr(os, "getuid") else "files"
    folder = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir()) / f"{FOLDER_NAME}-{user}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        reason = f"{error.strerror}; set GRADIO_TEMP_DIR to a folder that can be written to."
        raise InputError(f"The page's files cannot be kept in {folder}: {reason}") from error
    return str(folder.resolve())


def find_device() -> str:
    """Where the model belongs: "cuda" on a Space with Hugging Face's ZeroGPU, else "cpu"."""
    try:
        import spaces  # noqa: F401  (has to be imported before torch, which then believes in a GPU until one is lent)
    except ImportError:
        return "cpu"
    # The package is on every Space, the GPU only on some.
    return "cuda" if os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true") else "cpu"


def on_gpu(run: Callable[..., Any]) -> Callable[..., Any]:
    """`run` with a GPU lent for as long as it takes, where `find_device` found the package; else `run` itself."""
    spaces = sys.modules.get("spaces")
    return run if spaces is None else spaces.GPU(duration=GPU_SECONDS)(run)
