"""A published model by its name: downloaded from its address, a mirror or a folder, checked, unpacked and converted.

A file comes over HTTP in as many pieces as it takes. What has come is kept in FILE.part, and FILE.part.json says which
version of the file it is the beginning of: its ETag or date, and its length. The rest is taken only from that very
version (RFC 9110, If-Range); from another, or where the server cannot tell versions apart, the download restarts.
Proxies are those of the environment, as httpx has them.

A model's folder appears all at once, when everything in it has been checked; until then its zip and its parts lie
beside it. Two processes that want the same model take turns.
"""

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
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import httpx
from filelock import FileLock, Timeout
from huggingface_hub import constants
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TimeRemainingColumn, TransferSpeedColumn

from imagebart.atomic_io import NO_ROOM, format_bytes, remove, replace_folder, write_error, write_text
from imagebart.errors import InputError, WeightsError
from imagebart.published.convert import Conversion, convert
from imagebart.published.registry import (
    PublishedModel,
    cache_dir,
    converted_folder,
    estimate_sizes,
    get_model,
    model_folder,
    published_folder,
)

MIRRORS = "IMAGEBART_MIRRORS"  # in the environment: addresses of folders with the zips, separated by spaces
MEMBER = re.compile(r"scale\d+\.(ckpt|yaml)")
CHUNK = 1 << 20  # bytes copied at once
RECORD = "download.json"  # in a model's folder: where it came from

MAX_TRIES = 6  # in a row without a new byte
MAX_WAIT = 600.0  # seconds; a server that asks for more is given up
TIMEOUT = httpx.Timeout(30.0)
BUSY = {408, 425, 429, 500, 502, 503, 504}
RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class DownloadProgress(Protocol):
    """Is told how far a download is."""

    def start(self, what: str, total: int | None, done: int) -> None:
        """A file begins, with so many bytes in all, of which so many are here."""

    def advance(self, count: int) -> None:
        """So many more bytes came."""

    def say(self, sentence: str) -> None:
        """Something that a person should know."""


class ProgressBar:
    """A bar for each file, on standard error: what came, how fast, and how long the rest will take."""

    def __init__(self) -> None:
        columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True, soft_wrap=True), refresh_per_second=4)
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

    def __exit__(self, *_: Any) -> None:
        if self._task is not None:
            self._progress.stop()


def ensure_model(name: str, dtype: str = "float32", progress: DownloadProgress | None = None) -> Path:
    """The folder of a published model, ready to load; downloads and converts it if it is not here, saying its size.

    dtype: of the stored numbers. Raises as `download` and `convert` do.
    """
    if progress is None:
        with ProgressBar() as bar:
            return ensure_model(name, dtype, bar)
    model, folder = get_model(name), model_folder(name)
    conversion = Conversion(published_folder(name), converted_folder(name), dtype, replace=True)
    begun = conversion.work_folder.is_dir()  # then some of the published files may be deleted
    if folder.is_dir() and not (begun and folder == conversion.source):
        return folder
    if not begun:
        sizes = estimate_sizes(model)
        download_size, final_size = format_bytes(sizes.download), format_bytes(sizes.parameters * 4)
        progress.say(f"{name} is not here: about {download_size} to download, {final_size} in the end.")
    download(name, (), progress)
    convert(conversion, progress.say)
    return conversion.out


# One file over HTTP.


class FetchError(OSError):
    """A file cannot be downloaded from an address. One sentence that names it."""


class _Retry(Exception):
    """An answer that may be better later; after: seconds to wait, None where the server did not say."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


@dataclass(frozen=True)
class FileVersion:
    """What a server says of a file: enough to see whether a later answer is about the same one."""

    validator: str = ""  # a strong ETag or the date of the last change; "": the server gives none
    length: int | None = None


class Fetch:
    """The download of one address to one file.

    check_space: is called before bytes are written, with the file's length and how much of it is here; raises OSError
    where they do not fit.
    """

    def __init__(
        self,
        url: str,
        path: Path,
        progress: DownloadProgress,
        check_space: Callable[[int, int], None] = lambda length, here: None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url, self.path, self.progress, self.check_space, self.wait = url, path, progress, check_space, wait
        self.part = path.with_name(path.name + ".part")
        self.note = path.with_name(path.name + ".part.json")
        self.restarts = 0

    def run(self) -> None:
        """Downloads the file, or the rest of it. Raises FetchError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        failures = 0
        with httpx.Client(timeout=TIMEOUT, follow_redirects=True, headers={"accept-encoding": "identity"}) as client:
            while True:
                before = self._size()
                try:
                    self._fetch_rest(client)
                    break
                except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:  # of an address that redirects to it
                    raise self._error("", error) from error
                except (_Retry, httpx.TransportError) as error:
                    failures = 1 if self._size() > before else failures + 1
                    self._pause(error, failures)
                except httpx.HTTPError as error:
                    raise self._error("", error) from error
        with self.part.open("rb") as file:
            os.fsync(file.fileno())
        self.part.replace(self.path)
        self.note.unlink(missing_ok=True)

    def _fetch_rest(self, client: httpx.Client) -> None:
        """Asks for what is missing and writes all that comes; returns when the file is complete."""
        known, size = FileVersion(), self._size()
        with suppress(OSError, ValueError, TypeError):
            known = FileVersion(**json.loads(self.note.read_text(encoding="utf-8")))
        if not known.validator:
            size = 0  # nothing tells what the part is the beginning of
        headers = {"range": f"bytes={size}-", "if-range": known.validator} if size else {}
        with client.stream("GET", self.url, headers=headers) as answer:
            if answer.status_code == 416:  # nothing comes after what is here: it is all, or the file is another one now
                total = answer.headers.get("content-range", "").removeprefix("bytes */")
                if known.validator and total == str(size) == str(known.length):
                    self.progress.start(self.path.name, size, size)
                    return
                raise self._restart("is not as long at its address as what came of it")
            if answer.status_code not in (200, 206):
                reason = f"the server says {answer.status_code} {answer.reason_phrase}".rstrip()
                if answer.status_code in BUSY:
                    raise _Retry(reason, _retry_after(answer.headers.get("retry-after", "")))
                raise self._error("", reason)
            etag = answer.headers.get("etag", "")
            validator = answer.headers.get("last-modified", "") if not etag or etag.startswith("W/") else etag
            if answer.status_code == 206:
                found = RANGE.fullmatch(answer.headers.get("content-range", ""))
                version = FileVersion(validator, int(found[3]) if found and found[3] != "*" else None)
                if not found or int(found[1]) != size or version != known:
                    raise self._restart("has changed at its address while it was downloaded")
            else:
                length = answer.headers.get("content-length", "")
                version = FileVersion(validator, int(length) if length.isdecimal() else None)
                if size:
                    sentence = f"{self.path.name} has changed at its address, or cannot be resumed"
                    self.progress.say(f"{sentence}: the download restarts.")
                    self._delete_part()
                    size = 0
            self._write(answer, version, size)

    def _write(self, answer: httpx.Response, version: FileVersion, size: int) -> None:
        """Writes an answer's bytes after the first `size` ones of the part; raises _Retry where some are missing."""
        if version.length is not None:
            self.check_space(version.length, size)
        if size == 0:
            self.part.unlink(missing_ok=True)  # or a new version's note would stand beside an old version's bytes
        write_text(self.note, json.dumps(asdict(version)))
        self.progress.start(self.path.name, version.length, size)
        try:
            with self.part.open("r+b" if self.part.exists() else "wb") as file:
                file.seek(size)
                file.truncate()
                for chunk in answer.iter_raw():
                    file.write(chunk)
                    self.progress.advance(len(chunk))
        except OSError as error:
            raise write_error(error, self.path, version.length or size) from error
        if version.length is not None and (done := self._size()) != version.length:
            raise _Retry(f"{done:,} bytes came of a file of {version.length:,}")

    def _pause(self, error: Exception, failures: int) -> None:
        """Waits as long as the server asked for, else twice as long each time; raises FetchError in the end."""
        reason = str(error) or type(error).__name__
        after = error.after if isinstance(error, _Retry) else None
        tries = max(failures, self.restarts)
        if tries >= MAX_TRIES:
            raise self._error(f", tried {tries} times", reason) from error
        if after is not None and after > MAX_WAIT:
            raise self._error(" now", f"{reason}, and to wait {after:,.0f} s") from error
        seconds = after if after is not None else 2.0 ** (failures - 1) * random.uniform(0.75, 1.25)
        when = f" in {seconds:.0f} s" if seconds >= 1 else ""
        self.progress.say(f"{self.path.name}: {reason}; trying again{when}.")
        self.wait(seconds)

    def _restart(self, reason: str) -> _Retry:
        self._delete_part()
        return _Retry(f"{self.path.name} {reason}: the download restarts", 0)

    def _error(self, how: str, reason: object) -> FetchError:
        return FetchError(f"{self.url} cannot be downloaded{how}: {reason}.")

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _delete_part(self) -> None:
        self.restarts += 1
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


# A model's files.


@dataclass(frozen=True)
class Package:
    """A model's zip on this machine, or a folder with what would be in it."""

    path: Path
    origin: str
    downloaded: bool  # then it is deleted when it is unpacked; other people's files stay as they are

    def discard(self) -> None:
        if self.downloaded:
            self.path.unlink(missing_ok=True)


def download(
    name: str, sources: Sequence[str], progress: DownloadProgress, wait: Callable[[float], None] = time.sleep
) -> Path:
    """The folder with a published model's files, which are downloaded if they are not there.

    sources: addresses of zips, addresses of folders with zips, zips, or folders, tried in order; none: the mirrors of
    the environment and the model's own address. Raises InputError for an unknown name, and OSError or WeightsError,
    in one sentence, where the files cannot be had, do not fit on the disk or are not what they should be.
    """
    model, folder = get_model(name), published_folder(name)
    every = sources or [*os.environ.get(MIRRORS, "").split(), model.url]
    with _locked(folder, progress):
        if folder.is_dir():
            progress.say(f"{name} is in {folder}.")
            return folder
        for number, source in enumerate(every, 1):
            try:
                package = _get_package(model, source, progress, wait)
                if package.path.is_file():
                    _check_sha256(package, model, progress)
                break
            except (OSError, ValueError) as error:
                if number == len(every) or getattr(error, "errno", None) in NO_ROOM:
                    raise
                progress.say(f"{error} Trying {every[number]}.")
        _unpack(package, model, folder, progress)
        package.discard()
    return folder


@contextmanager
def _locked(folder: Path, progress: DownloadProgress) -> Iterator[None]:
    """Waits until no other process downloads this model."""
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress.say(f"Another process is downloading {folder.name}: waiting for it.")
            lock.acquire()
    except OSError as error:
        raise write_error(error, folder, 0) from error
    try:
        yield
    finally:
        lock.release()


def _get_package(
    model: PublishedModel, source: str, progress: DownloadProgress, wait: Callable[[float], None]
) -> Package:
    zip_name = f"{model.name}.zip"
    if "://" not in source:
        place = Path(source)
        candidates = [place / zip_name, place / model.name, place] if place.is_dir() else [place]
        found = [path for path in candidates if path.is_file() or (path / "scale1.ckpt").is_file()]
        if not found:
            raise InputError(f"{source} holds neither {zip_name} nor scale1.ckpt, files of {model.name}.")
        return Package(found[0], str(found[0].absolute()), downloaded=False)
    if not source.startswith(("http://", "https://")):
        raise InputError(f"{source} is no address to download from; it must begin with https:// or http://.")
    url = source if source.endswith(".zip") else f"{source.rstrip('/')}/{zip_name}"
    path = published_folder(model.name).with_name(zip_name)
    if not path.is_file():
        if constants.HF_HUB_OFFLINE:
            raise InputError(f"{url} is not asked for: HF_HUB_OFFLINE is set. Give a folder, or unset it.")

        def check_space(length: int, here: int) -> None:  # the zip's rest, and as much again for what is unpacked
            _check_free_space(model.name, path.parent, 2 * length - here)

        Fetch(url, path, progress, check_space, wait).run()
    return Package(path, url, downloaded=True)


def _check_sha256(package: Package, model: PublishedModel, progress: DownloadProgress) -> None:
    """Compares a zip's checksum with that of the first download, or records it as that: none was published."""
    record = cache_dir() / "recorded.json"
    recorded: dict[str, str] = {}
    with suppress(OSError, ValueError):
        recorded = {str(name): str(value) for name, value in json.loads(record.read_text(encoding="utf-8")).items()}
    digest = hashlib.sha256()
    progress.start(f"checking {package.path.name}", package.path.stat().st_size, 0)
    with package.path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            progress.advance(len(chunk))
    found, expected = digest.hexdigest(), recorded.get(model.name)
    if expected is None:
        if not zipfile.is_zipfile(package.path):
            size = package.path.stat().st_size
            package.discard()
            raise WeightsError(f"{package.origin} is no zip, or not all of one: {size:,} bytes came.")
        write_text(record, json.dumps({**recorded, model.name: found}, indent=1) + "\n")
        progress.say(
            f"No checksum of {model.name}.zip was published. Its SHA-256 is {found}; this is recorded in "
            f"{record}, and later downloads have to have it."
        )
    elif found != expected:
        package.discard()
        raise WeightsError(
            f"{package.origin} has the SHA-256 {found}, expected the one of the first download, {expected}."
        )


def _unpack(package: Package, model: PublishedModel, folder: Path, progress: DownloadProgress) -> None:
    """Puts a package's files into a folder, which appears when all are there."""
    work_folder = folder.with_name(f".{folder.name}.unpacking")
    remove(work_folder)
    try:
        work_folder.mkdir(parents=True)
        with _members(package) as members:
            needed = {f"scale{t}.ckpt" for t in range(1, model.stages + 1)}
            missing = sorted(needed - members.keys())
            if missing:
                raise WeightsError(f"{package.origin} lacks {missing[0]}, expected scale1.ckpt to {max(needed)} in it.")
            size = sum(length for length, _ in members.values())
            _check_free_space(model.name, folder.parent, size)
            progress.start(f"unpacking {model.name}", size, 0)
            for name, (_, open_member) in members.items():
                with open_member() as source, (work_folder / name).open("wb") as target:
                    while chunk := source.read(CHUNK):
                        try:
                            target.write(chunk)
                        except OSError as error:
                            raise write_error(error, work_folder / name, len(chunk)) from error
                        progress.advance(len(chunk))
        write_text(work_folder / RECORD, json.dumps({"from": package.origin}) + "\n")
        replace_folder(work_folder, folder, folder.with_name(f".{folder.name}.old"))
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        package.discard()
        raise WeightsError(f"{package.origin} cannot be unpacked: {error}; download it again.") from error
    finally:
        remove(work_folder)


@contextmanager
def _members(package: Package) -> Iterator[dict[str, tuple[int, Callable[[], Any]]]]:
    """The files of a package that are a model's, by name: their size, and what opens them. Others are left alone."""
    if package.path.is_dir():
        files = [path for path in sorted(package.path.iterdir()) if MEMBER.fullmatch(path.name)]
        yield {path.name: (path.stat().st_size, partial(path.open, "rb")) for path in files}
        return
    with zipfile.ZipFile(package.path) as archive:
        found: dict[str, tuple[int, Callable[[], Any]]] = {}
        for entry in archive.infolist():
            name = entry.filename.rpartition("/")[2]
            if name in found:
                raise WeightsError(f"{package.origin} has {name} twice, expected the files of one model.")
            if MEMBER.fullmatch(name):
                found[name] = entry.file_size, partial(archive.open, entry)  # which checks the checksum at the end
        yield found


def _check_free_space(name: str, folder: Path, size: int) -> None:
    """Raises OSError where so many bytes do not fit into a folder."""
    free = shutil.disk_usage(folder).free
    if size > free:
        needed = format_bytes(size)
        error = OSError(
            f"There is no room for {name}: it takes {needed}, and {format_bytes(free)} are free at {folder}."
        )
        error.errno = errno.ENOSPC
        raise error
