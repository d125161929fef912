"""A project in one file: what is on the page, saved as NAME.imagebart and opened again.

It is a ZIP that any program opens: the images and masks as they are on the page, byte for byte, so that results keep
their recipes with seed and settings, and project.json, which names them. Of a run's states those that end a scale are
kept. A project may come from anywhere: nothing in it is unpacked to a place that it names, and all sizes are bounded
before anything is read.
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import Field

from imagebart.errors import InputError
from imagebart.imaging.files import FORMATS, MAX_PIXELS, flatten, load_image
from imagebart.imaging.structure import open_checked
from imagebart.settings import from_dict
from imagebart.ui import messages
from imagebart.ui.files import MAX_FILE, publish, publish_file
from imagebart.ui.sketchpad.component import pack_mask, unpack_mask
from imagebart.ui.sketchpad.stored_images import (
    IMAGE_LIMIT,
    MAX_PREVIEW_SIDE,
    MAX_VIEW_SIDE,
    UNREADABLE_ERRORS,
    ImageDeleted,
    describe,
    downscaled,
    find,
    view_size,
)
from imagebart.weights.folder import ListTooLong, open_zip

FORMAT: Literal["imagebart project"] = "imagebart project"
VERSION = 1
CONTENTS = "project.json"
SUFFIX = ".imagebart"
MAX_UNPACKED = 80_000_000  # bytes of all files in it
MAX_CONTENTS = 2_000_000  # bytes of project.json
MAX_FILES, MAX_RUNS = 2_000, 100
MAX_DIRECTORY = 200 * MAX_FILES  # bytes of the list of files, all of which Python reads at once
MAX_DECODED = 250_000_000  # pixels of images that are decoded

FileName = Annotated[str, Field(pattern=r"^images/\d\d\d\d\.[a-z]+$", max_length=20)]
Text = Annotated[str, Field(max_length=20_000)]
Number = Annotated[int, Field(ge=0, le=10_000)]


@dataclass(frozen=True)
class Result:
    """A variant of a run."""

    file: FileName
    number: Number


@dataclass(frozen=True)
class State:
    """A state of a run: for each variant a small image, and the part that the run changes."""

    caption: Text
    slot: Number
    shown: list[FileName | None]
    parts: list[FileName | None]


@dataclass(frozen=True)
class Entry:
    """A run of the history."""

    task: Literal["edit", "generate", "vary"]
    prompt: Text | None
    name: Annotated[str, Field(pattern=r"^[a-z0-9-]+$", max_length=80)]
    when: Annotated[float, Field(ge=0, le=1e15)]  # milliseconds since 1970
    box: tuple[int, int, int, int] | None
    film: Annotated[list[Text], Field(max_length=100)]
    before: FileName | None
    mask: FileName | None
    results: Annotated[list[Result], Field(min_length=1, max_length=100)]
    steps: Annotated[list[State], Field(min_length=1, max_length=1000)]


@dataclass(frozen=True)
class Project:
    """project.json."""

    format: Literal["imagebart project"]
    version: int
    image: FileName | None
    mask: FileName | None
    controls: dict[str, Any]  # checked like those of a link
    shown: int | None = None  # which of the history is shown over the image
    history: Annotated[list[Entry], Field(max_length=MAX_RUNS)] = field(default_factory=list)


# Saving.


@IMAGE_LIMIT
def save_project(page: Mapping[str, Any]) -> dict[str, Any]:
    """The page as project.js sends it: {"path": a file, "left_out": how many runs are not in it}.

    A run is left out where its images are no longer there, or the file would be too large to be opened again.
    """
    try:
        writer = _Writer()
        image = page["image"]
        project = Project(
            FORMAT,
            VERSION,
            None if image is None else writer.add(find(str(image["path"]))),
            None if image is None else writer.add_mask(image, str(page["mask"])),
            dict(page["controls"]),
        )
        if writer.size() > MAX_FILE:
            raise InputError(messages.PROJECT_TOO_LARGE)
        runs, entries = page["history"][-MAX_RUNS:], list[tuple[int, Entry]]()
        for place, run in reversed(list(enumerate(runs))):  # the last ones first: they matter most
            kept = dict(writer.files)
            with suppress(ImageDeleted):
                entry = _entry(run, writer)
                if writer.size() <= MAX_FILE:
                    entries.insert(0, (place, entry))
                    continue
            writer.files = kept
        places = [place for place, _ in entries]
        shown = places.index(page["shown"]) if page["shown"] in places else None
        contents = asdict(project) | {"shown": shown, "history": [asdict(entry) for _, entry in entries]}
        path = publish_file(f"project{SUFFIX}", lambda path: writer.write(path, contents))
        return {"path": path, "left_out": len(runs) - len(entries)}
    except InputError as error:
        return {"error": str(error)}
    except (*UNREADABLE_ERRORS, AttributeError):
        return {"error": messages.STEP_UNREADABLE}


def _entry(run: Mapping[str, Any], writer: _Writer) -> Entry:
    def names(paths: list[str | None]) -> list[str | None]:
        return [None if path is None else writer.add(find(str(path))) for path in paths]

    before = run["before"]
    values = {
        **{name: run[name] for name in ("task", "prompt", "name", "when", "box", "film")},
        "before": None if before is None else writer.add(find(str(before["path"]))),
        "mask": None if before is None else writer.add_mask(before, str(run["mask"])),
        "results": [{"file": writer.add(find(str(one["path"]))), "number": one["number"]} for one in run["results"]],
        "steps": [
            {"caption": step["caption"], "slot": step["slot"]}
            | {"shown": names(step["shown"]), "parts": names(step["parts"])}
            for step in run["steps"]
            if not step["preview"]
        ],
    }
    return from_dict(Entry, values)


class _Writer:
    """The files of a project that is put together, each once, by what they are made of."""

    def __init__(self) -> None:
        self.files: dict[Path | str, tuple[str, int]] = {}  # a path or a packed mask: its name and its bytes
        self._masks: dict[str, bytes] = {}

    def add(self, path: Path) -> str:
        suffix = path.suffix.lower() if re.fullmatch(r"\.[a-z]{3,4}", path.suffix.lower()) else ".png"
        return self._name(path, suffix, path.stat().st_size)

    def add_mask(self, image: Mapping[str, Any], packed: str) -> str | None:
        """The mask of an image of {"width", "height"}, in the sketchpad's pixels; None where nothing is painted."""
        if not packed:
            return None
        size = view_size((int(image["width"]), int(image["height"])))
        key = f"{size} {packed}"
        if key not in self._masks:
            file = BytesIO()
            unpack_mask(packed, size).save(file, "PNG")
            self._masks[key] = file.getvalue()
        return self._name(key, ".png", len(self._masks[key]))

    def _name(self, key: Path | str, suffix: str, size: int) -> str:
        if key not in self.files:
            self.files[key] = f"images/{len(self.files) + 1:04}{suffix}", size
        return self.files[key][0]

    def size(self) -> int:
        """Of the file, at most."""
        return MAX_CONTENTS // 2 + sum(size + 200 for _, size in self.files.values())

    def write(self, path: Path, contents: Mapping[str, Any]) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(CONTENTS, json.dumps(contents, indent=1))
            for key, (name, _) in self.files.items():
                if isinstance(key, Path):
                    archive.write(key, name)
                else:
                    archive.writestr(name, self._masks[key])


# Opening.


@IMAGE_LIMIT
def open_project(path: str) -> dict[str, Any]:
    """An uploaded project: {"project": {"image", "mask", "controls", "history", "shown"}} or {"error": a sentence}."""
    try:
        with _open_archive(find(str(path))) as archive:
            return {"project": _publish(_read_contents(archive), _Reader(archive))}
    except InputError as error:
        return {"error": str(error)}
    except (*UNREADABLE_ERRORS, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError):
        return {"error": messages.PROJECT_DAMAGED}


def _open_archive(path: Path) -> zipfile.ZipFile:
    """Raises InputError for what is no ZIP, and for one that would take long to read, before Python reads its list."""
    if path.stat().st_size > MAX_FILE:
        raise InputError(messages.NO_PROJECT)
    try:
        archive = open_zip(path, MAX_DIRECTORY)
    except ListTooLong as error:
        raise InputError(messages.PROJECT_TOO_LARGE) from error
    except zipfile.BadZipFile as error:
        raise InputError(messages.NO_PROJECT) from error
    entries = archive.infolist()
    if len(entries) > MAX_FILES:
        raise InputError(messages.PROJECT_TOO_LARGE)
    packed = {entry.compress_type for entry in entries}
    if len({entry.filename for entry in entries}) < len(entries) or packed - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise InputError(messages.PROJECT_DAMAGED)
    if sum(entry.file_size for entry in entries) > MAX_UNPACKED:
        raise InputError(messages.PROJECT_TOO_LARGE)
    return archive


def _read_contents(archive: zipfile.ZipFile) -> Project:
    if CONTENTS not in archive.namelist():
        raise InputError(messages.NO_PROJECT)
    if archive.getinfo(CONTENTS).file_size > MAX_CONTENTS:
        raise InputError(messages.PROJECT_TOO_LARGE)
    try:
        values = json.loads(archive.read(CONTENTS), parse_constant=_refuse_constant)
        version = values.get("version") if values.get("format") == FORMAT else None
    except (ValueError, AttributeError, RecursionError) as error:
        raise InputError(messages.NO_PROJECT) from error
    if not isinstance(version, int):
        raise InputError(messages.NO_PROJECT)
    if version > VERSION:
        raise InputError(messages.newer_project(version, VERSION))
    return from_dict(Project, values)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


class _Reader:
    """Images of a project, checked and put where the page may show them, each once."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._paths: dict[str, str] = {}
        self._images: dict[str, dict[str, Any]] = {}
        self._decoded = 0

    def mask(self, name: str | None, image: Mapping[str, Any] | None) -> str:
        """A mask, packed; "" for none."""
        if name is None or image is None:
            return ""
        mask = self._decode(name).convert("L")
        if mask.size != view_size((image["width"], image["height"])):
            raise InputError(messages.PROJECT_DAMAGED)
        return pack_mask(mask)

    def image(self, name: str | None) -> dict[str, Any] | None:
        """An image as the sketchpad knows it."""
        if name is None:
            return None
        if name not in self._images:
            image = self._decode(name)
            path = self._publish(name)
            simple = name.endswith(".png") and image.mode == "RGB" and max(image.size) <= MAX_VIEW_SIDE
            self._images[name] = describe(path, image, path if simple else None)
        return self._images[name]

    def result(self, result: Result) -> dict[str, Any]:
        """A result with its thumbnail."""
        image = self.image(result.file)
        assert image is not None
        small = image["view"]
        if max(image["width"], image["height"]) > MAX_PREVIEW_SIDE:
            small = publish(downscaled(flatten(load_image(find(small))), MAX_PREVIEW_SIDE))
        return {**image, "small": small, "number": result.number}

    def part(self, name: str | None, max_pixels: int) -> str | None:
        """An image that the browser decodes, of at most so many pixels; None for none."""
        if name is None:
            return None
        if name not in self._paths:
            with open_checked(self._archive.read(name), ("PNG",)) as image:
                if image.width * image.height > max_pixels:
                    raise InputError(messages.PROJECT_TOO_LARGE)
        return self._publish(name)

    def _decode(self, name: str) -> Image.Image:
        content = self._archive.read(name)
        with open_checked(content, FORMATS) as image:
            self._decoded += image.width * image.height
        if self._decoded > MAX_DECODED:
            raise InputError(messages.PROJECT_TOO_LARGE)
        return load_image(content)

    def _publish(self, name: str) -> str:
        if name not in self._paths:
            content = self._archive.read(name)
            self._paths[name] = publish_file(Path(name).name, lambda path: path.write_bytes(content))
        return self._paths[name]


def _publish(project: Project, reader: _Reader) -> dict[str, Any]:
    history = []
    for entry in project.history:
        before = reader.image(entry.before)
        steps: list[dict[str, Any]] = [
            {
                "caption": step.caption,
                "slot": step.slot,
                "preview": False,
                "shown": [reader.part(name, MAX_VIEW_SIDE**2) for name in step.shown],
                "parts": [reader.part(name, MAX_PIXELS) for name in step.parts],
            }
            for step in entry.steps
        ]
        results = [reader.result(result) for result in entry.results]
        # Of each variant there is something to show.
        if any(not any(step["shown"][number : number + 1] for step in steps) for number in range(len(results))):
            raise InputError(messages.PROJECT_DAMAGED)
        own = {name: getattr(entry, name) for name in ("task", "prompt", "name", "when", "box", "film")}
        mask = reader.mask(entry.mask, before)
        history.append({**own, "before": before, "mask": mask, "results": results, "steps": steps})
    image = reader.image(project.image)
    shown = project.shown if project.shown is not None and 0 <= project.shown < len(history) else None
    mask = reader.mask(project.mask, image)
    return {"image": image, "mask": mask, "controls": project.controls, "history": history, "shown": shown}
