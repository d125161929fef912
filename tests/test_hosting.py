"""The page where it is hosted: a user that is not root, a home that cannot be written, settings in the environment."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tiny_models import tiny_model

ROOT = Path(__file__).parents[1]
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable]
PATIENCE = 400  # seconds for the page to start
pytestmark = pytest.mark.release

# What a Space installs: `GPU` gives the function itself where no GPU is lent, as that package does, and says of what.
SPACES = """
import sys

def GPU(task=None, duration=None):
    def decorate(run):
        print("decorated", run.__name__, file=sys.stderr, flush=True)
        return run
    return decorate if task is None else decorate(task)
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that other users can read, with a model and a home; skips where no other user can run the page."""
    if not shutil.which("setpriv") or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root can become another user, by setpriv")
    if subprocess.run([*AS_NOBODY, "-c", "import torch"], cwd=ROOT, capture_output=True, check=False).returncode:
        pytest.skip("other users cannot read this environment")
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    tiny_model().save_pretrained(folder / "model")
    (folder / "home").mkdir(mode=0o555)
    (folder / "spaces").mkdir()
    (folder / "spaces" / "spaces.py").write_text(SPACES)
    yield folder
    shutil.rmtree(folder)


def as_nobody(folder: Path, **variables: str) -> tuple[list[str], dict[str, str]]:
    """The command and the environment of `app.py` as another user than root."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("GRADIO", "SPACES", "PYTHONPATH"))}
    own |= {"HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1", **variables}
    return [*AS_NOBODY, str(ROOT / "app.py"), "--model", str(folder / "model")], own


def test_the_page_starts_on_a_space_as_its_environment_says(place: Path) -> None:
    """Address, port, path and tools come from the environment; runs and endpoints ask for a GPU."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {"GRADIO_SERVER_NAME": "127.0.0.2", "GRADIO_SERVER_PORT": str(port), "GRADIO_ROOT_PATH": "/images"}
    variables |= {"GRADIO_MCP_SERVER": "true", "PYTHONPATH": str(place / "spaces"), "SPACES_ZERO_GPU": "false"}
    command, environment = as_nobody(place, **variables)
    log, address = place / "log.txt", f"http://127.0.0.2:{port}"
    with log.open("w") as out:
        server = subprocess.Popen(command, cwd=place / "home", env=environment, stdout=out, stderr=out)
    try:
        deadline, config = time.monotonic() + PATIENCE, None
        while config is None:
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            try:
                config = httpx.get(f"{address}/config", timeout=10).json()
            except httpx.TransportError:
                time.sleep(0.2)
        assert config["root"].endswith("/images")
        unknown = httpx.get(f"{address}/gradio_api/mcp/no-tool", timeout=10)
        assert "The MCP HTTP transport is available" in unknown.text, "not where there are no tools"
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/config", timeout=5)
    finally:
        server.terminate()
        server.wait(30)
    said = log.read_text()
    assert said.count("decorated") == 6 and "Traceback" not in said and not list((place / "home").iterdir()), said


def test_what_the_machine_refuses_is_one_sentence(place: Path) -> None:
    """A folder for files that cannot be written, and an address that is not this machine's."""
    for variables, sentence in (
        ({"GRADIO_TEMP_DIR": str(place / "home" / "files")}, "set GRADIO_TEMP_DIR to a folder that can be written to"),
        ({"GRADIO_SERVER_NAME": "203.0.113.7"}, "is no address of this machine"),
    ):
        command, environment = as_nobody(place, **variables)
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 2 and sentence in done.stderr, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
