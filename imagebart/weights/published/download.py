"""How a download goes, on standard error: what came, how fast, and how long the rest will take."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import re
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO, Protocol

import httpx
import torch
import torch.nn.functional as F
from filelock import FileLock, Timeout
from huggingface_hub import constants
from rich.progress import DownloadColumn, TaskID, TransferSpeedColumn

from imagebart.atomic_io import NO_ROOM, format_bytes, remove, replace_folder, write_error, write_text
from imagebart.errors import InputError, WeightsError
from imagebart.models.stages import build_stage
from imagebart.models.vqgan import FirstStage
from imagebart.progress import bars
from imagebart.weights.published.convert import Conversion, convert
from imagebart.weights.published.registry import (
    MODELS,
    PublishedModel,
    cache,
    converted_folder,
    find,
    model_of,
    places,
    published_folder,
)


class ProgressBar:
    """A bar for each file (see `imagebart.weights.published.download.Bar`)."""

    def __init__(self) -> None:
        self._progress = bars(DownloadColumn(), TransferSpeedColumn())
        self._task: TaskID | None = None

    def start(self, what: str, total: int | None, done: int) -> None:
        if self._task is None:
            self._progress.start()
        else:
            self._progress.stop_task(self._task)
        self._task = self._progress.add_task(what, total=total, completed=done)

    def advance(self, count: int) -> None:
        if self._task is not None:
            self._progress.advance(self._task, count)

    def say(self, sentence: str) -> None:
        self._progress.console.print(sentence, markup=False, highlight=False)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._progress.stop()


# What `list` says of the published models: sizes, reckoned from their shapes, and what a picture takes here.


TOKENS = 256  # of a picture of theirs
PROBE = (4608, 1152, 12)  # layers of a size like theirs, more than a cache holds: rows, columns, how many
COPIES = 2  # of each number of a stage that its checkpoint holds: as trained, and averaged


@dataclass(frozen=True)
class Row:
    """A model. Sizes and times are about right: they follow from its shapes."""

    name: str
    draws: str
    stages: int
    download: str
    memory: str  # while drawing
    picture: str  # time for a whole one on this machine
    where: str  # it is, if it is here


@dataclass(frozen=True)
class Sizes:
    """Of a model: its stages' parameters, about how many bytes its checkpoints have, and what a picture reads."""

    numbers: int
    download: int
    read: int  # parameters, each as often as it is read


def sizes(model: PublishedModel) -> Sizes:
    """Reckoned from the shapes of its tensors."""
    with torch.device("meta"):
        configs = [model.description(t).stage_config(t, 0.5, 0) for t in range(1, model.stages + 1)]
        stages = [build_stage(config, model.stages) for config in configs]
        first_stage = _numbers(FirstStage(model.description(1).first_stage))  # which each checkpoint has
    numbers = sum(_numbers(stage) for stage in stages)
    # A token a pass, which reads all of a decoder; drafts make it fewer.
    read = sum(TOKENS * _numbers(stage.decoder) + _numbers(stage) for stage in stages)
    return Sizes(numbers, 4 * (COPIES * numbers + model.stages * first_stage), read)


def overview() -> Iterator[Row]:
    """All published models, in the registry's order."""
    speed = numbers_a_second()
    for model in MODELS.values():
        size = sizes(model)
        here = next((str(place) for place in places(model.name) if place.is_dir()), "not here")
        yield Row(
            model.name,
            model.knows,
            model.stages,
            f"about {format_bytes(size.download)}",
            format_bytes(4 * size.numbers),
            f"at most {_duration(size.read / speed)}",
            here,
        )


def numbers_a_second() -> float:
    """How many weights a second go through a product with one vector on this machine."""
    rows, columns, layers = PROBE
    weights = [torch.rand(rows, columns) for _ in range(layers)]
    x = torch.rand(1, columns)
    best = 0.0
    for _ in range(4):
        began = time.perf_counter()
        for weight in weights:
            F.linear(x, weight)
        best = max(best, layers * rows * columns / (time.perf_counter() - began))
    return best


def _numbers(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# One file over HTTP, in as many pieces as it takes: resumed, tried again, and never taken for whole when it is not.
#
# What has come is kept in FILE.part, and in FILE.part.json which version of the file it is the beginning of: its ETag
# or
# date, and its length. A later range is taken only from that very version (RFC 9110, If-Range); from another, or where
# the server has no way to tell, it begins anew. Proxies are those of the environment, as httpx has them.


TRIES = 6  # in a row without a new byte
LONGEST_WAIT = 600.0  # seconds; a server that asks for more is given up
TIMEOUT = httpx.Timeout(30.0)
BUSY = {408, 425, 429, 500, 502, 503, 504}
RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class FetchError(OSError):
    """A file cannot be had from an address. One sentence that names it."""


class Bar(Protocol):
    """Is told how a download goes; `imagebart.weights.published.download` has one that people see."""

    def start(self, what: str, total: int | None, done: int) -> None:
        """A file begins: so many bytes there are in all, so many are here."""

    def advance(self, count: int) -> None:
        """So many more came."""

    def say(self, sentence: str) -> None:
        """Something that a person should know."""


@dataclass(frozen=True)
class Version:
    """What a server says of a file: enough to see whether a later answer is about the same one."""

    validator: str = ""  # a strong ETag or the date of the last change; "": the server gives none
    length: int | None = None

    @classmethod
    def of(cls, answer: httpx.Response) -> Version:
        """The version that an answer with status 200 or 206 is about."""
        tag = answer.headers.get("etag", "")
        validator = answer.headers.get("last-modified", "") if not tag or tag.startswith("W/") else tag
        if answer.status_code == 206:
            found = RANGE.fullmatch(answer.headers.get("content-range", ""))
            return cls(validator, int(found[3]) if found and found[3] != "*" else None)
        length = answer.headers.get("content-length", "")
        return cls(validator, int(length) if length.isdecimal() else None)


class _TryAgain(Exception):
    """An answer that may be better later; after: seconds to wait, None where the server did not say."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class Fetch:
    """The download of one address to one file.

    room: is asked before bytes are written, with the file's length and how much of it is here; raises OSError where
    they do not fit.
    """

    def __init__(
        self,
        address: str,
        path: Path,
        bar: Bar,
        room: Callable[[int, int], None] = lambda length, here: None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.address, self.path, self.bar, self.room, self.wait = address, path, bar, room, wait
        self.part = path.with_name(path.name + ".part")
        self.note = path.with_name(path.name + ".part.json")
        self.anew = 0  # times that what had come was of no use

    def run(self) -> Version:
        """Downloads the file, or the rest of it; returns what the server said of it. Raises FetchError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        failures = 0
        with httpx.Client(timeout=TIMEOUT, follow_redirects=True, headers={"accept-encoding": "identity"}) as client:
            while True:
                before = self._size()
                try:
                    version = self._piece(client)
                    break
                except httpx.UnsupportedProtocol as error:  # of an address that leads elsewhere
                    raise self._failed("", error) from error
                except (_TryAgain, httpx.TransportError) as error:
                    failures = 1 if self._size() > before else failures + 1
                    self._pause(error, failures)
                except (httpx.HTTPError, httpx.InvalidURL) as error:
                    raise self._failed("", error) from error
        self._finish()
        return version

    def _piece(self, client: httpx.Client) -> Version:
        """Asks for what is missing and writes all that comes; returns when the file is complete."""
        known, size = self._read_note(), self._size()
        if not known.validator:
            size = 0  # nothing tells what the part is the beginning of
        headers = {"range": f"bytes={size}-", "if-range": known.validator} if size else {}
        with client.stream("GET", self.address, headers=headers) as answer:
            if answer.status_code == 416:
                return self._beyond(answer, known, size)
            if answer.status_code not in (200, 206):
                raise self._refused(answer)
            version = Version.of(answer)
            if answer.status_code == 206:
                self._check_range(answer, known, version, size)
            elif size:
                self.bar.say(f"{self.path.name} has changed at its address, or cannot be resumed: it begins anew.")
                self._forget()
                size = 0
            self._take(answer, version, size)
        return version

    def _take(self, answer: httpx.Response, version: Version, size: int) -> None:
        """Writes an answer's bytes after the first `size` ones of the part; raises _TryAgain where some are missing."""
        if version.length is not None:
            self.room(version.length, size)
        if size == 0:
            self.part.unlink(missing_ok=True)  # or a new version's note would stand beside an old version's bytes
        write_text(self.note, json.dumps(asdict(version)))
        self.bar.start(self.path.name, version.length, size)
        try:
            with self.part.open("r+b" if self.part.exists() else "wb") as file:
                file.seek(size)
                file.truncate()
                self._copy(answer, file)
        except OSError as error:
            raise write_error(error, self.path, version.length or size) from error
        done = self._size()
        if version.length is not None and done < version.length:
            raise _TryAgain(f"the connection ended {format_bytes(version.length - done)} before the file does")
        if version.length is not None and done > version.length:
            self._forget()
            raise _TryAgain(f"{done:,} bytes came of a file of {version.length:,}")

    def _copy(self, answer: httpx.Response, file: BinaryIO) -> None:
        for piece in answer.iter_raw():
            file.write(piece)
            self.bar.advance(len(piece))

    def _check_range(self, answer: httpx.Response, known: Version, version: Version, size: int) -> None:
        """Raises _TryAgain, with nothing kept, where a range is not the rest of what is here."""
        found = RANGE.fullmatch(answer.headers.get("content-range", ""))
        begins = int(found[1]) if found else None
        if begins == size and version == known:
            return
        self._forget()
        raise _TryAgain(f"{self.path.name} has changed at its address while it was downloaded: it begins anew", 0)

    def _beyond(self, answer: httpx.Response, known: Version, size: int) -> Version:
        """A 416: nothing comes after what is here, so that it is all, or the file is another one now."""
        total = answer.headers.get("content-range", "").removeprefix("bytes */")
        if known.validator and total == str(size) == str(known.length):
            self.bar.start(self.path.name, size, size)
            return known
        self._forget()
        raise _TryAgain(f"{self.path.name} is not as long at its address as what came of it: it begins anew", 0)

    def _refused(self, answer: httpx.Response) -> Exception:
        said = f"the server says {answer.status_code} {answer.reason_phrase}".rstrip()
        if answer.status_code in BUSY:
            return _TryAgain(said, _retry_after(answer.headers.get("retry-after", "")))
        return self._failed("", said)

    def _failed(self, how: str, reason: object) -> FetchError:
        return FetchError(f"{self.address} cannot be downloaded{how}: {reason}.")

    def _pause(self, error: Exception, failures: int) -> None:
        """Waits as long as the server asked for, else twice as long each time; raises FetchError in the end."""
        reason = str(error) or type(error).__name__
        after = error.after if isinstance(error, _TryAgain) else None
        if max(failures, self.anew) >= TRIES:
            raise self._failed(f", tried {max(failures, self.anew)} times", reason) from error
        if after is not None and after > LONGEST_WAIT:
            raise self._failed(" now", f"{reason}, and to wait {after:,.0f} s") from error
        seconds = after if after is not None else 2.0 ** (failures - 1) * random.uniform(0.75, 1.25)
        self.bar.say(f"{self.path.name}: {reason}; trying again" + (f" in {seconds:.0f} s." if seconds >= 1 else "."))
        self.wait(seconds)

    def _finish(self) -> None:
        with self.part.open("rb") as file:
            os.fsync(file.fileno())
        self.part.replace(self.path)
        self.note.unlink(missing_ok=True)

    def _read_note(self) -> Version:
        with suppress(OSError, ValueError, TypeError):
            return Version(**json.loads(self.note.read_text(encoding="utf-8")))
        return Version()

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _forget(self) -> None:
        self.anew += 1
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def _retry_after(value: str) -> float | None:
    """Seconds that a Retry-After asks for, given as such or as a date; None where it asks for nothing."""
    if value.strip().isdecimal():
        return float(value)
    with suppress(ValueError, TypeError):
        moment = parsedate_to_datetime(value)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
        return max(0.0, (moment - datetime.now(timezone.utc)).total_seconds())
    return None


# A published model's files on this machine: fetched from its address, a mirror or a folder, checked and unpacked.
#
# A model's folder appears all at once, when everything in it has been checked; until then its zip and its pieces lie
# beside it. Two processes that want the same model take turns.


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
        raise write_error(error, folder, 0) from error
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
                raise write_error(error, path, len(piece)) from error
            bar.advance(len(piece))


def _check_room(name: str, folder: Path, size: int) -> None:
    """Raises OSError where so many bytes do not fit into a folder."""
    free = shutil.disk_usage(folder).free
    if size > free:
        needed, available = format_bytes(size), format_bytes(free)
        sentence = f"There is no room for {name}: it takes {needed}, and {available} are free at {folder}."
        failure = OSError(sentence)
        failure.errno = errno.ENOSPC
        raise failure


# A published model by its name alone: downloaded and converted, unless it is here.


def obtain(name: str, dtype: str = "float32", bar: Bar | None = None) -> Path:
    """The folder of a published model, ready to load; says first how large it is, where it has to be fetched.

    dtype: of the stored numbers. bar: is told how it goes; None: a bar on standard error. Raises as `download` and
    `convert` do.
    """
    model = model_of(name)
    if find(name).is_dir():
        return find(name)
    if bar is None:
        with ProgressBar() as bar:
            return obtain(name, dtype, bar)
    size = sizes(model)
    fetched, kept = format_bytes(size.download), format_bytes(size.numbers * 4)
    bar.say(f"{name} is not here: about {fetched} to download, {kept} in the end.")
    folder = download(name, (), bar)
    out = converted_folder(name)
    convert(Conversion(folder, out, dtype, replace=True), bar.say)
    return out
