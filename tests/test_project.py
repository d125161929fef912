"""The project's own promises: a Space's front matter, sizes, dependencies, nothing of one machine."""

from __future__ import annotations

import ast
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
IMPORT_NAMES = {"opencv-python": "cv2", "pillow": "PIL", "pyyaml": "yaml"}
FRONT_MATTER = [
    *("title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "python_version", "app_file"),
    *("license", "pinned", "fullWidth", "header", "short_description", "suggested_hardware", "tags"),
]
# What else a Space may set (huggingface.co/docs/hub/spaces-config-reference, August 2026) and this one could come to
# need; `models`, `datasets` and `thumbnail` name addresses of an owner.
MORE_FRONT_MATTER = {
    "models",
    "datasets",
    "preload_from_hub",
    "startup_duration_timeout",
    "thumbnail",
    "custom_headers",
}
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


def table(toml: str, name: str) -> str:
    """The lines of one table; Python 3.10 has no TOML reader of its own."""
    return toml.split(f"\n[{name}]\n")[1].split("\n[")[0]


def requirement_lines(text: str) -> list[str]:
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def requirement_name(line: str) -> str:
    return re.match(r"[A-Za-z0-9._-]+", line).group().lower()


def imported_packages(paths: list[Path]) -> set[str]:
    found: set[str] = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add(str(node.module).split(".")[0])
    return found


@pytest.fixture(scope="module")
def front_matter() -> dict:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\n"), "a Space reads its settings from the very first line"
    return yaml.safe_load(text.split("---\n")[1])


@pytest.fixture(scope="module")
def requirements() -> list[str]:
    return requirement_lines((ROOT / "requirements.txt").read_text(encoding="utf-8"))


def test_front_matter_is_a_spaces(front_matter: dict) -> None:
    """Everything that is needed, and nothing that a Space ignores."""
    assert set(FRONT_MATTER) <= front_matter.keys() and front_matter.keys() - set(FRONT_MATTER) <= MORE_FRONT_MATTER
    assert (front_matter["sdk"], front_matter["license"]) == ("gradio", "mit")
    assert (front_matter["suggested_hardware"], front_matter["pinned"]) == ("cpu-basic", False)
    assert (front_matter["fullWidth"], front_matter["header"]) == (True, "mini")
    assert {front_matter["colorFrom"], front_matter["colorTo"]} <= SPACE_COLORS
    assert (ROOT / front_matter["app_file"]).is_file()
    assert 0 < len(front_matter["short_description"]) <= 60 and 0 < len(front_matter["title"]) <= 60
    # One symbol, which may be followed by the sign that asks for it in colour.
    assert len(front_matter["emoji"].replace("\N{VARIATION SELECTOR-16}", "")) == 1
    assert isinstance(front_matter["python_version"], str), "unquoted, 3.10 would be read as the number 3.1"
    assert re.fullmatch(r"3\.\d+(\.\d+)?", front_matter["python_version"])
    assert all(isinstance(tag, str) and re.fullmatch(r"[a-z0-9-]+", tag) for tag in front_matter["tags"])
    # "owner/name" or "owner/name file,file revision"
    for entry in front_matter.get("preload_from_hub", []):
        assert re.fullmatch(r"[\w.-]+/[\w.-]+( \S+){0,2}", entry)


def test_a_space_runs_a_python_that_the_package_supports(front_matter: dict) -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lowest = re.search(r'requires-python = ">=3\.(\d+)"', pyproject)
    assert lowest is not None and int(front_matter["python_version"].split(".")[1]) >= int(lowest.group(1))


def test_zero_gpu_has_the_python_and_the_torch_that_are_asked_for(front_matter: dict, requirements: list[str]) -> None:
    (python,) = (one for one in ZERO_GPU["python"] if f"{one}.".startswith(f"{front_matter['python_version']}."))
    asked = [Requirement(line) for line in requirements if requirement_name(line) == "torch"]
    environment = {"python_version": python.rpartition(".")[0], "python_full_version": python}
    there = [one for one in asked if one.marker is None or one.marker.evaluate(environment)]
    assert all(one.specifier.contains(version) for one in there for version in ZERO_GPU["torch"])
    assert not all(one.specifier.contains(ZERO_GPU["not torch"]) for one in there)


def test_front_matter_names_the_pinned_gradio(front_matter: dict, requirements: list[str]) -> None:
    assert f"gradio=={front_matter['sdk_version']}" in requirements


def test_package_takes_its_dependencies_from_requirements() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = table(pyproject, "project")
    dynamic = table(pyproject, "tool.setuptools.dynamic")
    assert 'dynamic = ["dependencies"]' in project and "\ndependencies" not in project
    assert dynamic.strip() == 'dependencies = { file = ["requirements.txt"] }'


def test_every_runtime_dependency_is_imported(requirements: list[str]) -> None:
    sources = [ROOT / "app.py", *(ROOT / "imagebart").rglob("*.py")]
    names = {requirement_name(line) for line in requirements}
    assert {IMPORT_NAMES.get(name, name) for name in names} - imported_packages(sources) == set()


def test_every_dependency_says_what_it_is_for(requirements: list[str]) -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lines = table(pyproject, "project.optional-dependencies").splitlines()
    extras = [line for line in lines if re.search(r'"\w', line)]
    runtime = [line for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    assert len(runtime) == len(requirements) and len(extras) > 15
    unexplained = [line for line in runtime + extras if "  # " not in line]
    assert [line.strip(' ",') for line in unexplained] == ["imagebart[train]", "pytest>=8.3"]


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


def test_nothing_is_imported_before_it_is_needed() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTED], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "edit" in done.stdout, "the help"


def test_no_tracked_file_is_too_large_for_a_space() -> None:
    assert [path.name for path in tracked_files() if path.stat().st_size > 10 * MEGABYTE] == []


def test_shipped_weights_stay_small() -> None:
    """Each model's, and all that tests are recorded with."""
    sizes = Counter[Path]()
    for path in tracked_files():
        if path.suffix in {".safetensors", ".ckpt", ".pt", ".bin"}:
            sizes[path.parent if ROOT / "checkpoints" in path.parents else ROOT / "tests"] += path.stat().st_size
    largest = {place: size for place, size in sizes.items() if size >= 60 * MEGABYTE}
    assert len(sizes) >= 3 and largest == {} and sizes[ROOT / "tests"] < 20 * MEGABYTE


def test_nothing_of_one_machine_is_tracked() -> None:
    folders = r"(?<![\w.:/-])/(work|root|home/\w+|Users/\w+|opt/wheels)\b"
    hosts = r"\b(pypi\.org|pythonhosted\.org|npmjs\.(org|com)|debian\.org|download\.pytorch\.org)\b"
    pattern = re.compile(f"{folders}|{hosts}")
    found = []
    for path in tracked_files():
        data = path.read_bytes()
        if b"\0" in data[:8192] or path == Path(__file__):
            continue
        for number, line in enumerate(data.decode("utf-8", errors="replace").splitlines(), 1):
            if match := pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {match.group()}")
    assert found == []


def test_links_in_documents_lead_somewhere() -> None:
    links = 0
    for document in [path for path in tracked_files() if path.suffix == ".md"]:
        for target in re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:", target):
                links += 1
                assert (document.parent / target).exists(), f"{document.relative_to(ROOT)} links to {target}"
    assert links > 20


def test_licence_is_mit() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.startswith("MIT License") and "ImageBART in the browser authors" in text


def test_vocabulary_ships_with_its_licence() -> None:
    data = ROOT / "imagebart" / "data"
    assert (data / "tokenizer.json.gz").is_file()
    assert "Copyright (c) 2021 OpenAI" in (data / "LICENSE.clip.txt").read_text(encoding="utf-8")
