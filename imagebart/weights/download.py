"""A published model's files on this machine: fetched from its address, a mirror or a folder, checked and unpacked.

A model's folder appears all at once, when everything in it has been checked; until then its zip and its pieces lie
beside it. Two processes that want the same model take turns.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout
from huggingface_hub import constants

from imagebart.errors import InputError
from imagebart.weights.errors import WeightsError
from imagebart.weights.fetch import Bar, Fetch
from imagebart.weights.places import cache, model_of, published_folder
from imagebart.weights.registry import PublishedModel
from imagebart.writing import NO_ROOM, not_written, readable, remove, replace_folder, write_text

MIRRORS = "IMAGEBART_MIRRORS"  # in the environment: addresses of folders with the zips, separated by spaces
MEMBER = re.compile(r"scale\d+\.(ckpt|yaml)")
PIECE = 1 << 20  # bytes copied at once
RECORD = "download.json"  # in a model's folder: where it came from


@dataclass(frozen=True)
class Package:
    """A model's zip on this machine, or a folder with what would be in it."""

    path: Path
    origin: str
    ours: bool  # a download, which goes when it is unpacked; other people's files stay as they are


def download(name: str, sources: Sequence[str], bar: Bar, wait: Callable[[float], None] = time.sleep) -> Path:
    """The folder with a published model's files, which are fetched if they are not there.

    sources: addresses of zips, addresses of folders with zips, zips, or folders, tried in order; none: the mirrors of
    the environment and the model's own address. Raises InputError for an unknown name, and OSError or WeightsError,
    in one sentence, where the files cannot be had, do not fit on the disk or are not what they should be.
    """
    model, folder = model_of(name), published_folder(name)
    with _turn(folder, bar):
        if folder.is_dir():
            bar.say(f"{name} is in {folder}.")
            return folder
        package = _first_good(model, sources, bar, wait)
        _unpack(package, model, folder, bar)
        if package.ours:
            package.path.unlink()
    return folder


def is_offline() -> bool:
    """Whether nothing may be asked of the network, as HF_HUB_OFFLINE says."""
    return bool(constants.HF_HUB_OFFLINE)


@contextmanager
def _turn(folder: Path, bar: Bar) -> Iterator[None]:
    """Waits until no other process downloads this model."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f"{folder.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            bar.say(f"Another process is downloading {folder.name}: waiting for it.")
            lock.acquire()
    except OSError as error:
        raise not_written(error, folder, 0) from error
    try:
        yield
    finally:
        lock.release()


def _first_good(model: PublishedModel, sources: Sequence[str], bar: Bar, wait: Callable[[float], None]) -> Package:
    """The package of the first source that has it, its checksum compared; raises what the last one is refused for."""
    every = sources or [*os.environ.get(MIRRORS, "").split(), model.address]
    for number, source in enumerate(every, 1):
        try:
            package = _get(model, source, bar, wait)
            if package.path.is_file():
                _check(package, model, bar)
            return package
        except (OSError, ValueError) as error:
            if number == len(every) or getattr(error, "errno", None) in NO_ROOM:
                raise
            bar.say(f"{error} Trying {every[number]}.")
    raise AssertionError("a model has an address")


def _get(model: PublishedModel, source: str, bar: Bar, wait: Callable[[float], None]) -> Package:
    zipped = f"{model.name}.zip"
    if "://" not in source:
        place = Path(source)
        found = [place / zipped, place / model.name, place] if place.is_dir() else [place]
        found = [path for path in found if path.is_file() or (path / "scale1.ckpt").is_file()]
        if not found:
            raise InputError(f"{source} holds neither {zipped} nor scale1.ckpt, files of {model.name}.")
        return Package(found[0], str(found[0].absolute()), ours=False)
    if not source.startswith(("http://", "https://")):
        raise InputError(f"{source} is no address to download from; it must begin with https:// or http://.")
    address = source if source.endswith(".zip") else f"{source.rstrip('/')}/{zipped}"
    path = published_folder(model.name).with_name(zipped)
    if not path.is_file():
        if is_offline():
            raise InputError(f"{address} is not asked for: HF_HUB_OFFLINE is set. Give a folder, or unset it.")

        def room(length: int, here: int) -> None:  # the zip's rest, and as much again for what is unpacked from it
            _check_room(model.name, path.parent, 2 * length - here)

        Fetch(address, path, bar, room, wait).run()
    return Package(path, address, ours=True)


def _check(package: Package, model: PublishedModel, bar: Bar) -> None:
    """Compares a zip's checksum with the published one, or with that of the first download, or records it as that."""
    records = _records()
    found = _checksum(package.path, bar)
    expected = model.sha256 or records.get(model.name)
    if expected is None:
        records[model.name] = found
        _check_zip(package)
        write_text(cache() / "recorded.json", json.dumps(records, indent=1) + "\n")
        bar.say(
            f"No checksum of {model.name}.zip was published. Its SHA-256 is {found}; this is recorded in "
            f"{cache() / 'recorded.json'}, and later downloads have to have it."
        )
    elif found != expected:
        which = "published" if model.sha256 else "of the first download"
        _discard(package)
        raise WeightsError(f"{package.origin} has the SHA-256 {found}, expected the one {which}, {expected}.")


def _check_zip(package: Package) -> None:
    """Raises WeightsError for what is no whole zip, as the beginning of one."""
    if not zipfile.is_zipfile(package.path):
        size = package.path.stat().st_size
        _discard(package)
        raise WeightsError(f"{package.origin} is no zip, or not all of one: {size:,} bytes came.")


def _discard(package: Package) -> None:
    if package.ours:
        package.path.unlink(missing_ok=True)


def _records() -> dict[str, str]:
    with suppress(OSError, ValueError):
        values = json.loads((cache() / "recorded.json").read_text(encoding="utf-8"))
        return {str(name): str(value) for name, value in values.items()}
    return {}


def _checksum(path: Path, bar: Bar) -> str:
    digest = hashlib.sha256()
    bar.start(f"checking {path.name}", path.stat().st_size, 0)
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
            bar.advance(len(piece))
    return digest.hexdigest()


def _unpack(package: Package, model: PublishedModel, folder: Path, bar: Bar) -> None:
    """Puts a package's files into a folder, which appears when all are there."""
    place = folder.with_name(f".{folder.name}.unpacking")
    remove(place)
    try:
        place.mkdir(parents=True)
        with _members(package) as members:
            needed = {f"scale{t}.ckpt" for t in range(1, model.stages + 1)}
            missing = sorted(needed - members.keys())
            if missing:
                raise WeightsError(f"{package.origin} lacks {missing[0]}, expected scale1.ckpt to {max(needed)} in it.")
            size = sum(length for length, _ in members.values())
            _check_room(model.name, folder.parent, size)
            bar.start(f"unpacking {model.name}", size, 0)
            for name, (_, opened) in members.items():
                _copy(opened, place / name, bar)
        write_text(place / RECORD, json.dumps({"from": package.origin}) + "\n")
        replace_folder(place, folder, folder.with_name(f".{folder.name}.old"))
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        _discard(package)
        raise WeightsError(f"{package.origin} cannot be unpacked: {error}; download it again.") from error
    finally:
        remove(place)


Members = dict[str, tuple[int, Callable[[], IO[bytes]]]]  # by name: bytes, and what opens it


@contextmanager
def _members(package: Package) -> Iterator[Members]:
    """The files of a package that are a model's; others, as a zip may have them, are left where they are."""
    if package.path.is_dir():
        files = [path for path in sorted(package.path.iterdir()) if MEMBER.fullmatch(path.name)]
        yield {path.name: (path.stat().st_size, _opener(path)) for path in files}
        return
    with zipfile.ZipFile(package.path) as archive:
        found: Members = {}
        for entry in archive.infolist():
            name = entry.filename.rpartition("/")[2]
            if MEMBER.fullmatch(name):
                if name in found:
                    raise WeightsError(f"{package.origin} has {name} twice, expected the files of one model.")
                found[name] = entry.file_size, _entry_opener(archive, entry)
        yield found


def _opener(path: Path) -> Callable[[], IO[bytes]]:
    return lambda: path.open("rb")


def _entry_opener(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
    return lambda: archive.open(entry)  # which checks the entry's own checksum when all is read


def _copy(opened: Callable[[], IO[bytes]], path: Path, bar: Bar) -> None:
    with opened() as source, path.open("wb") as target:
        while piece := source.read(PIECE):
            try:
                target.write(piece)
            except OSError as error:
                raise not_written(error, path, len(piece)) from error
            bar.advance(len(piece))


def _check_room(name: str, folder: Path, size: int) -> None:
    """Raises OSError where so many bytes do not fit into a folder."""
    free = shutil.disk_usage(folder).free
    if size > free:
        sentence = f"There is no room for {name}: it takes {readable(size)}, and {readable(free)} are free at {folder}."
        failure = OSError(sentence)
        failure.errno = errno.ENOSPC
        raise failure
