"""The wheel, used where the checkout is out of reach; the page as hosted: not root, settings in the environment."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from page_server import free_port
from PIL import Image
from tiny_models import tiny_model

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.release
PATIENCE = 400  # seconds for the page to start
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable]


def build(kind: str, folder: Path, out: Path) -> Path:
    """Runs the build backend in a folder, as `python -m build` does."""
    command = [sys.executable, "-c", BUILD, kind, str(out)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return out / done.stdout.splitlines()[-1]


@contextmanager
def running(command: list[str], address: str, folder: Path, environment: dict[str, str], log: Path) -> Iterator[str]:
    """A server's configuration, as soon as it answers; the server is ended afterwards."""
    with log.open("w") as out:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out)
    deadline, config = time.monotonic() + PATIENCE, None
    try:
        while config is None:
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            try:
                config = httpx.get(f"{address}/config", timeout=10).text
            except httpx.TransportError:
                time.sleep(0.2)
        yield config
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wheel")
    checkout = place / "checkout"
    for name in ("imagebart", "checkpoints"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("app.py", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "requirements.txt"):
        shutil.copy(ROOT / name, checkout)
    sdist = build("build_sdist", checkout, place)
    with tarfile.open(sdist) as archive:
        archive.extractall(place)
    return build("build_wheel", place / sdist.name.removesuffix(".tar.gz"), place)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the wheel. All that it depends on is that of the tests' environment."""
    place = tmp_path_factory.mktemp("installed")
    venv.create(place)
    python = place / "bin" / "python"
    options = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), "install", *options, str(wheel)], check=True)
    packages = next(place.glob("lib/python*/site-packages"))
    (packages / "tests.pth").write_text(sysconfig.get_path("purelib"))  # without the .pth files there: no checkout
    return python.parent


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    """An environment that knows nothing of this checkout."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GRADIO"))}
    return own | {"HOME": str(tmp_path), "GRADIO_TEMP_DIR": str(tmp_path), "HF_HUB_OFFLINE": "1"}


@pytest.mark.shipped
def test_wheel_has_models_and_page_and_stays_small(wheel: Path) -> None:
    assert wheel.stat().st_size < 95e6
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    tracked = [path for path in (ROOT / "imagebart").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    folders = [config.parent for config in (ROOT / "checkpoints").glob("*/config.json")]
    models = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert {path.relative_to(ROOT).as_posix() for path in tracked} <= names
    assert {f"imagebart/{path.relative_to(ROOT).as_posix()}" for path in models} <= names
    assert not any(name.startswith(("tests", "recipes", "scripts")) for name in names)
    assert "Requires-Dist: gradio==" in metadata and "Classifier: Programming Language :: Python :: 3.13" in metadata


@pytest.mark.shipped
def test_installed_command_edits_an_image(installed: Path, tmp_path: Path, elsewhere: dict[str, str]) -> None:
    pixels = np.full((64, 64, 3), 200, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    command = [str(installed / "imagebart"), "edit", "--image", "in.png", "--mask", "upper half", "--seed", "1"]
    command += ["--prompt", "red hair", "--exact", "--out", "out.png"]
    subprocess.run(command, cwd=tmp_path, env=elsewhere, check=True)
    edited = np.asarray(Image.open(tmp_path / "out.png"))
    assert (edited[32:] == pixels[32:]).all() and (edited[:32] != pixels[:32]).any()
    where = "import imagebart; print(imagebart.__file__)"
    found = subprocess.check_output([installed / "python", "-c", where], cwd=tmp_path, env=elsewhere, text=True)
    assert Path(found.strip()).is_relative_to(installed.parent)


@pytest.mark.shipped
def test_installed_demo_serves_the_page(installed: Path, tmp_path: Path, elsewhere: dict[str, str]) -> None:
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = [str(installed / "imagebart"), "demo", "--port", str(port)]
    with running(command, address, tmp_path, elsewhere, tmp_path / "log.txt") as config:
        assert "brown bob" in config.lower(), "an example"
        page = httpx.get(f"{address}/", timeout=10).text
        assert "ImageBART in the browser" in page and "sketchpad" in page


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


def test_the_page_starts_on_a_space_as_its_environment_says(place: Path) -> None:
    """Address, port, path and tools come from the environment; runs and endpoints ask for a GPU."""
    port, home, log = free_port(), place / "home", place / "log.txt"
    own = {name: value for name, value in os.environ.items() if not name.startswith(("GRADIO", "SPACES", "PYTHONPATH"))}
    own |= {"HOME": str(home), "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    own |= {"GRADIO_SERVER_NAME": "127.0.0.2", "GRADIO_SERVER_PORT": str(port), "GRADIO_ROOT_PATH": "/images"}
    own |= {"GRADIO_MCP_SERVER": "true", "PYTHONPATH": str(place / "spaces"), "SPACES_ZERO_GPU": "false"}
    command, address = [*AS_NOBODY, str(ROOT / "app.py"), "--model", str(place / "model")], f"http://127.0.0.2:{port}"
    with running(command, address, home, own, log) as config:
        assert json.loads(config)["root"].endswith("/images")
        unknown = httpx.get(f"{address}/gradio_api/mcp/no-tool", timeout=10)
        assert "The MCP HTTP transport is available" in unknown.text, "not where there are no tools"
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/config", timeout=5)
    said = log.read_text()
    assert said.count("decorated") == 6 and "Traceback" not in said and not list(home.iterdir()), said
