"""What a Space, an installation and a reader rely on: front matter, dependencies, sizes, links, licenses."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
MEGABYTE = 1_000_000
# What ZeroGPU has (huggingface.co/docs/hub/spaces-zerogpu, August 2026); cpu-basic takes any.
ZERO_GPU = {"python": ("3.10.13", "3.12.12"), "torch": ("2.8.0", "2.9.1", "2.10.0", "2.11.0"), "not torch": "2.12.0"}
SPACE_COLORS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


def tracked_files() -> list[Path]:
    try:
        listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


@pytest.fixture(scope="module")
def front_matter() -> dict:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\n"), "a Space reads its settings from the very first line"
    return yaml.safe_load(text.split("---\n")[1])


@pytest.fixture(scope="module")
def requirements() -> list[Requirement]:
    lines = (line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines())
    return [Requirement(line) for line in lines if line]


def test_a_space_accepts_the_front_matter(front_matter: dict) -> None:
    """huggingface.co/docs/hub/spaces-config-reference, August 2026."""
    assert (front_matter["sdk"], front_matter["license"], front_matter["pinned"]) == ("gradio", "mit", False)
    assert front_matter["suggested_hardware"] == "cpu-basic" and (ROOT / front_matter["app_file"]).is_file()
    assert {front_matter["colorFrom"], front_matter["colorTo"]} <= SPACE_COLORS
    assert 0 < len(front_matter["short_description"]) <= 60 and 0 < len(front_matter["title"]) <= 60
    # One symbol, which may be followed by the sign that asks for it in color.
    assert len(front_matter["emoji"].replace("\N{VARIATION SELECTOR-16}", "")) == 1
    assert isinstance(front_matter["python_version"], str), "unquoted, 3.10 would be read as the number 3.1"
    assert all(re.fullmatch(r"[a-z0-9-]+", tag) for tag in front_matter["tags"])


def test_zero_gpu_has_the_python_and_the_torch_that_are_asked_for(
    front_matter: dict, requirements: list[Requirement]
) -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (lowest,) = re.findall(r'requires-python = ">=3\.(\d+)"', pyproject)
    assert int(front_matter["python_version"].split(".")[1]) >= int(lowest)
    (python,) = (one for one in ZERO_GPU["python"] if f"{one}.".startswith(f"{front_matter['python_version']}."))
    environment = {"python_version": python.rpartition(".")[0], "python_full_version": python}
    asked = [one for one in requirements if one.name == "torch"]
    there = [one for one in asked if one.marker is None or one.marker.evaluate(environment)]
    assert all(one.specifier.contains(version) for one in there for version in ZERO_GPU["torch"])
    assert not all(one.specifier.contains(ZERO_GPU["not torch"]) for one in there)


def test_a_space_installs_the_gradio_that_the_package_pins(front_matter: dict, requirements: list[Requirement]) -> None:
    assert f"gradio=={front_matter['sdk_version']}" in {str(one) for one in requirements}


# What takes long to import, or is there for training and evaluation only.
IMPORTED = """
import sys
import app, imagebart, imagebart.cli, imagebart.ui
assert imagebart.cli.main(["--help"]) == 0
heavy = {"torch", "gradio", "transformers", "numpy", "PIL", "cv2"} & sys.modules.keys()
assert not heavy, f"imported before it is needed: {heavy}"
import imagebart.ui.page
training = {"accelerate", "python_avatars", "resvg", "transformers"} & sys.modules.keys()
assert not training, f"imported by the page: {training}"
"""


@pytest.mark.slow
def test_nothing_is_imported_before_it_is_needed() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTED], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "edit" in done.stdout, "the help"


def test_a_space_takes_every_tracked_file_and_shipped_weights_stay_small() -> None:
    """Those of each model, and all that tests are recorded with."""
    sizes = Counter[Path]()
    for path in tracked_files():
        assert path.stat().st_size <= 10 * MEGABYTE, path
        if path.suffix in {".safetensors", ".ckpt", ".pt", ".bin"}:
            sizes[path.parent if ROOT / "checkpoints" in path.parents else ROOT / "tests"] += path.stat().st_size
    assert max(sizes.values()) < 60 * MEGABYTE and sizes[ROOT / "tests"] < 20 * MEGABYTE


def test_nothing_of_one_machine_is_tracked() -> None:
    folders = r"(?<![\w.:/-])/(work|root|home/\w+|Users/\w+|opt/wheels)\b"
    hosts = r"\b(pypi\.org|pythonhosted\.org|npmjs\.(org|com)|debian\.org|download\.pytorch\.org)\b"
    pattern = re.compile(f"{folders}|{hosts}")
    for path in tracked_files():
        data = path.read_bytes()
        if b"\0" not in data[:8192] and path != Path(__file__):
            found = pattern.search(data.decode("utf-8", errors="replace"))
            assert found is None, f"{path.relative_to(ROOT)}: {found.group()}"


def test_links_in_documents_lead_somewhere() -> None:
    for document in [path for path in tracked_files() if path.suffix == ".md"]:
        for target in re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:", target):
                assert (document.parent / target).exists(), f"{document.relative_to(ROOT)} links to {target}"


def test_licenses_lie_beside_what_they_are_for() -> None:
    for path, says in (("LICENSE", "MIT License"), ("imagebart/data/LICENSE.clip.txt", "Copyright (c) 2021 OpenAI")):
        assert says in (ROOT / path).read_text(encoding="utf-8")
