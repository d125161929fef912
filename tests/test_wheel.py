"""The wheel: built from the sdist, installed where the checkout is out of reach, used by command line and page."""

import os
import socket
import subprocess
import sys
import sysconfig
import tarfile
import time
import venv
import zipfile
from pathlib import Path
from shutil import copy, copytree, ignore_patterns

import httpx
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.release, pytest.mark.shipped]
PATIENCE = 120  # seconds for the page to start
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


def build(kind: str, folder: Path, out: Path) -> Path:
    """Runs the build backend in a folder, as `python -m build` does."""
    command = [sys.executable, "-c", BUILD, kind, str(out)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wheel")
    checkout = place / "checkout"
    for name in ("imagebart", "checkpoints"):
        copytree(ROOT / name, checkout / name, ignore=ignore_patterns("__pycache__"))
    for name in ("app.py", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "requirements.txt"):
        copy(ROOT / name, checkout)
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


def test_installed_demo_serves_the_page(installed: Path, tmp_path: Path, elsewhere: dict[str, str]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(installed / "imagebart"), "demo", "--port", str(port)]
    log = tmp_path / "log.txt"
    with log.open("w") as out:
        server = subprocess.Popen(command, cwd=tmp_path, env=elsewhere, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            try:
                answer = httpx.get(f"http://127.0.0.1:{port}/config", timeout=10)
                break
            except httpx.TransportError:
                time.sleep(0.2)
        assert answer.status_code == 200 and "brown bob" in answer.text.lower(), "an example"
        page = httpx.get(f"http://127.0.0.1:{port}/", timeout=10).text
        assert "ImageBART in the browser" in page and "sketchpad" in page
    finally:
        server.terminate()
        server.wait(30)
