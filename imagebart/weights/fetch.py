"""One file over HTTP, in as many pieces as it takes: resumed, tried again, and never taken for whole when it is not.

What has come is kept in FILE.part, and in FILE.part.json which version of the file it is the beginning of: its ETag or
date, and its length. A later range is taken only from that very version (RFC 9110, If-Range); from another, or where
the server has no way to tell, it begins anew. Proxies are those of the environment, as httpx has them.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import BinaryIO, Protocol

import httpx

from imagebart.writing import not_written, readable, write_text

TRIES = 6  # in a row without a new byte
LONGEST_WAIT = 600.0  # seconds; a server that asks for more is given up
TIMEOUT = httpx.Timeout(30.0)
BUSY = {408, 425, 429, 500, 502, 503, 504}
RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class FetchError(OSError):
    """A file cannot be had from an address. One sentence that names it."""


class Bar(Protocol):
    """Is told how a download goes; `imagebart.weights.progress` has one that people see."""

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
            raise not_written(error, self.path, version.length or size) from error
        done = self._size()
        if version.length is not None and done < version.length:
            raise _TryAgain(f"the connection ended {readable(version.length - done)} before the file does")
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
