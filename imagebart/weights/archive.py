"""The container of a PyTorch checkpoint: a zip whose entries are stored as they are, read piece by piece."""

from __future__ import annotations

import struct
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np

from imagebart.weights.bounds import ShortReads
from imagebart.weights.errors import WeightsError

Bytes = bytearray | memoryview
PROGRAM = "data.pkl"  # the pickle; tensors are the entries data/0, data/1, ...
LARGEST_PROGRAM = 2 * 2**20  # bytes, seconds of reading; the published ones have less than one MiB


class Archive:
    """Where the entries of a checkpoint lie. Bytes are read only when asked for; nothing is decompressed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries = _list_entries(path)
        programs = [name for name in self._entries if name.split("/", 1)[-1] == PROGRAM]
        if len(programs) != 1:
            raise self.error(f"holds {len(programs)} entries {PROGRAM}, expected one as in a PyTorch checkpoint")
        self._root = programs[0].removesuffix(PROGRAM)
        order = self._root + "byteorder"
        if order in self._entries and self._read(order) != sys.byteorder.encode():
            raise self.error(f"was written with another byte order than this machine's, {sys.byteorder}")

    def program(self) -> bytes:
        """The pickle that says what is where."""
        size = self._entries[self._root + PROGRAM].file_size
        if size > LARGEST_PROGRAM:
            raise self.error(f"has a pickle of {size} bytes, expected at most {LARGEST_PROGRAM}")
        return bytes(self._read(self._root + PROGRAM))

    def storage(self, key: str, begin: int, end: int, needed: int, mapped: bool) -> Bytes:
        """Bytes begin to end of a tensor storage that has `needed` bytes in all; mapped: they stay in the file."""
        name = f"{self._root}data/{key}"
        if name not in self._entries:
            raise self.error(f"lacks the tensor storage {name}")
        if self._entries[name].file_size < needed:
            raise self.error(f"has {self._entries[name].file_size} bytes in {name}, expected {needed}")
        return self._read(name, begin, end, mapped)

    def error(self, reason: str) -> WeightsError:
        return WeightsError(f"{self.path} {reason}")

    def _read(self, name: str, begin: int = 0, end: int | None = None, mapped: bool = False) -> Bytes:
        entry = self._entries[name]
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise self.error(f"has a compressed or encrypted entry {name}, expected it as PyTorch stores it")
        end = entry.file_size if end is None else end
        total = self.path.stat().st_size
        with self.path.open("rb") as file:
            file.seek(entry.header_offset)
            header = file.read(30)
            if len(header) < 30 or header[:4] != b"PK\3\4":
                raise self.error(f"is damaged at the entry {name}")
            start = entry.header_offset + 30 + sum(struct.unpack("<HH", header[26:]))
            # Before memory is taken: a few bytes of zip can claim any size.
            if entry.compress_size != entry.file_size or start + entry.file_size > total:
                raise self.error(f"is too short for its entry {name} of {entry.file_size} bytes")
            data: Bytes
            if mapped:
                # "c": what is written to it, if anything, goes to memory and never to the file.
                data = np.memmap(self.path, np.uint8, "c", offset=start + begin, shape=(end - begin,)).data
            else:
                data = bytearray(end - begin)
                file.seek(start + begin)
                file.readinto(data)
        if len(data) == entry.file_size and zlib.crc32(data) != entry.CRC:
            raise self.error(f"is damaged: the checksum of {name} is wrong; download it again")
        return data


def _list_entries(path: Path) -> dict[str, zipfile.ZipInfo]:
    try:
        with path.open("rb") as begun:
            start = begun.read(4)
        with ShortReads(path) as file, zipfile.ZipFile(file) as archive:
            return {entry.filename: entry for entry in archive.infolist()}
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        if start[:1] == b"\x80":
            raise WeightsError(
                f"{path} is a bare pickle, the format before PyTorch 1.6, expected its zip format: "
                "load it with PyTorch and save it again"
            ) from error
        raise WeightsError(f"{path} is no PyTorch checkpoint, or only the beginning of one: {error}") from error
