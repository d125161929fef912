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


TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
FRONT_MATTER = yaml.safe_load(TEXT.split("---\n")[1])
LINES = (line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines())
REQUIREMENTS = [Requirement(line) for line in LINES if line]


def test_a_space_accepts_the_front_matter() -> None:
    """huggingface.co/docs/hub/spaces-config-reference, August 2026."""
    assert TEXT.startswith("---\n"), "a Space reads its settings from the very first line"
    assert (FRONT_MATTER["sdk"], FRONT_MATTER["license"], FRONT_MATTER["pinned"]) == ("gradio", "mit", False)
    assert FRONT_MATTER["suggested_hardware"] == "cpu-basic" and (ROOT / FRONT_MATTER["app_file"]).is_file()
    assert {FRONT_MATTER["colorFrom"], FRONT_MATTER["colorTo"]} <= SPACE_COLORS
    assert 0 < len(FRONT_MATTER["short_description"]) <= 60 and 0 < len(FRONT_MATTER["title"]) <= 60
    # One symbol, which may be followed by the sign that asks for it in color.
    assert len(FRONT_MATTER["emoji"].replace("\N{VARIATION SELECTOR-16}", "")) == 1
    assert isinstance(FRONT_MATTER["python_version"], str), "unquoted, 3.10 would be read as the number 3.1"
    assert all(re.fullmatch(r"[a-z0-9-]+", tag) for tag in FRONT_MATTER["tags"])


def test_a_space_has_the_python_the_torch_and_the_gradio_that_are_asked_for() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (lowest,) = re.findall(r'requires-python = ">=3\.(\d+)"', pyproject)
    assert int(FRONT_MATTER["python_version"].split(".")[1]) >= int(lowest)
    (python,) = (one for one in ZERO_GPU["python"] if f"{one}.".startswith(f"{FRONT_MATTER['python_version']}."))
    environment = {"python_version": python.rpartition(".")[0], "python_full_version": python}
    asked = [one for one in REQUIREMENTS if one.name == "torch"]
    there = [one for one in asked if one.marker is None or one.marker.evaluate(environment)]
    assert all(one.specifier.contains(version) for one in there for version in ZERO_GPU["torch"])
    assert not all(one.specifier.contains(ZERO_GPU["not torch"]) for one in there)
    assert f"gradio=={FRONT_MATTER['sdk_version']}" in {str(one) for one in REQUIREMENTS}


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


def test_links_in_documents_lead_somewhere_and_licenses_lie_beside_what_they_are_for() -> None:
    for document in [path for path in tracked_files() if path.suffix == ".md"]:
        for target in re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:", target):
                assert (document.parent / target).exists(), f"{document.relative_to(ROOT)} links to {target}"
    for path, says in (("LICENSE", "MIT License"), ("imagebart/data/LICENSE.clip.txt", "Copyright (c) 2021 OpenAI")):
        assert says in (ROOT / path).read_text(encoding="utf-8")
