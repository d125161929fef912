"""The container of a PyTorch checkpoint: a zip whose entries are stored as they are, read piece by piece."""

from __future__ import annotations

import pickletools
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imagebart.errors import WeightsError, shown
from imagebart.weights.folder import ShortReads

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


# Reads the tensors of a PyTorch checkpoint without importing or running anything that it names.
#
# A pickle is a program for a small stack machine. This machine has only the instructions that build plain values and
# tensors: names of classes and functions stay names, the few calls that tensors need are done by our own code, and any
# other call or object ends the reading. Nothing in the file can reach Python's own unpickler.
#
# Why not torch.load(weights_only=True, mmap=True)? It runs nothing either, but (2.13) 60 bytes of pickle make it take
# 3 GB or repeat 10^9 words in an error, and sizes that lie, compressed or damaged entries become weights without a
# word.


DTYPES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}

LARGEST = 2**63  # of whole numbers; no tensor is larger
LARGEST_KEY = 2**60  # Python finds larger ones in dictionaries as slowly as a file wishes
LONGEST_NAME = 200  # characters

# PyTorch Lightning 1.4 uses the classes of its callbacks as keys.
NAMES_ONLY = "pytorch_lightning.callbacks."

# Instructions whose argument is the value that they put on the stack.
LITERALS = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
)


@dataclass(frozen=True)
class Name:
    """A class or function that the file names."""

    dotted: str


@dataclass(frozen=True)
class Storage:
    """Numbers in a row, somewhere in the file."""

    dtype: torch.dtype
    key: str
    length: int


class Opaque:
    """A value that was not needed, so not made."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that still lies in its file."""

    archive: Archive
    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def read(self, mapped: bool = False) -> Tensor:
        """Reads it into memory of its own; mapped: leaves it in the file. Raises WeightsError where that lacks it."""
        size = self.storage.dtype.itemsize
        needed = self.storage.length * size
        if 0 in self.shape:
            return torch.empty(self.shape, dtype=self.storage.dtype)
        last = sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
        if self.offset + last >= self.storage.length:
            raise self.archive.error(
                f"has a tensor of shape {list(self.shape)} that ends after its storage of {self.storage.length} numbers"
            )
        begin, end = self.offset * size, (self.offset + last + 1) * size
        data = self.archive.storage(self.storage.key, begin, end, needed, mapped)
        return torch.frombuffer(data, dtype=self.storage.dtype).as_strided(self.shape, self.stride)


def read_tensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a checkpoint's `state_dict` (or of a file that is one), by name; their data is not read yet.

    Raises WeightsError where the file is damaged, or its pickle holds anything but plain values and tensors.
    """
    archive = Archive(path)
    content = _Machine(archive).run(archive.program())
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state:
        raise archive.error("holds no state_dict, expected a checkpoint's named tensors")
    for name, value in state.items():
        named = isinstance(name, str) and len(name) <= LONGEST_NAME and name.isprintable()
        if not named or not isinstance(value, StoredTensor):
            raise archive.error(f"has {shown(name)} in its state_dict, expected tensors only")
    return state


class _Machine:
    """The stack machine of pickles, without the instructions that could run something."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, program: bytes) -> Any:
        """What the program leaves on the stack."""
        try:
            for instruction, argument, _ in pickletools.genops(program):
                self.step(instruction.name, argument)
            return self.stack.pop()
        except WeightsError:
            raise
        except Exception as error:  # whatever a file holds
            raise self.archive.error(f"has a damaged pickle: {str(error)[:300] or type(error).__name__}") from error

    def step(self, instruction: str, argument: Any) -> None:
        stack = self.stack
        match instruction:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                self.marks.append(len(stack))
            case "POP" if self.marks and self.marks[-1] == len(stack):
                self.marks.pop()
            case "POP":
                stack.pop()
            case "POP_MARK":
                self.since_mark()
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(instruction == "NEWTRUE")
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                stack.append({"DICT": {}, "LIST": [], "TUPLE": ()}[instruction[6:]])
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(self.take(int(instruction[-1])))
            case "TUPLE" | "LIST":
                values = self.since_mark()
                stack.append(tuple(values) if instruction == "TUPLE" else values)
            case "DICT":
                stack.append(self.put_items({}, self.since_mark()))
            case "APPEND":
                self.extend(self.take(1))
            case "APPENDS":
                self.extend(self.since_mark())
            case "SETITEM":
                key, value = self.take(2)
                self.put_items(stack[-1], [key, value])
            case "SETITEMS":
                items = self.since_mark()
                self.put_items(stack[-1], items)
            case _ if instruction in LITERALS:
                stack.append(argument)
            case _:
                self.refer(instruction, argument)

    def refer(self, instruction: str, argument: Any) -> None:
        """Instructions that go beyond plain values: back to earlier ones, to names, to storages, to calls."""
        stack = self.stack
        match instruction:
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "GLOBAL":
                stack.append(self.name(argument.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                stack.append(self.name(".".join(self.take(2))))
            case "BINPERSID":
                stack.append(_storage(*stack.pop()))
            case "REDUCE":
                function, arguments = self.take(2)
                stack.append(self.call(function, arguments))
            case "BUILD":
                self.build(*self.take(2))
            case "INST":
                raise self.refuse(f"makes an object of {argument.replace(' ', '.', 1):.200}")
            case _:
                names = [value.dotted for value in stack if isinstance(value, Name)]
                raise self.refuse(f"uses {instruction}" + (f" with {names[-1]}" if names else ""))

    def name(self, dotted: str) -> Name:
        """A name that may be in the file; it is never looked up."""
        known = dotted in CALLS or dotted in DTYPES or dotted.startswith(NAMES_ONLY)
        if not known or len(dotted) > LONGEST_NAME:
            raise self.refuse(f"names {dotted:.200}")
        return Name(dotted)

    def call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Name) or function.dotted not in CALLS:
            raise self.refuse(f"calls {function.dotted if isinstance(function, Name) else 'a value'}")
        return CALLS[function.dotted](self.archive, *arguments)

    def build(self, target: Any, state: Any) -> None:
        """Attributes of a state_dict (its version numbers) or of something opaque: not needed."""
        if not isinstance(target, dict | Opaque):
            raise self.refuse(f"sets attributes of {target.dotted if isinstance(target, Name) else 'a value'}")
        self.stack.append(target)

    def since_mark(self) -> list[Any]:
        begin = self.marks.pop()
        values = self.stack[begin:]
        del self.stack[begin:]
        return values

    def take(self, count: int) -> tuple[Any, ...]:
        if len(self.stack) < count:
            raise ValueError("its stack runs empty")
        values = tuple(self.stack[-count:])
        del self.stack[-count:]
        return values

    def extend(self, values: tuple[Any, ...] | list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise self.refuse("appends to what is no list")
        self.stack[-1].extend(values)

    def put_items(self, target: Any, items: list[Any]) -> Any:
        if not isinstance(target, dict):
            raise self.refuse("sets items of what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | bytes | int | float | Name | None):
                raise self.refuse(f"has a {type(key).__name__} as a key")
            if isinstance(key, int) and abs(key) >= LARGEST_KEY:
                raise self.refuse(f"has a number of {key.bit_length()} bits as a key")
            target[key] = value
        return target

    def refuse(self, what: str) -> WeightsError:
        return self.archive.error(
            f"{what} in its pickle, expected tensors and plain values only; nothing of it was executed"
        )


def _is_count(number: object) -> bool:
    return isinstance(number, int) and 0 <= number < LARGEST


def _storage(kind: Any, dtype: Name, key: str, location: Any, length: int) -> Storage:
    if kind != "storage" or not isinstance(key, str) or not _is_count(length):
        raise ValueError(f"a storage is described as {shown(kind)}, {shown(key)}, {shown(length)}")
    return Storage(DTYPES[dtype.dotted], key, length)


def _tensor(
    archive: Archive, storage: Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *rest: Any
) -> StoredTensor:
    numbers = (offset, *shape, *stride)
    if not isinstance(storage, Storage) or not all(map(_is_count, numbers)):
        raise ValueError(f"a tensor has offset {shown(offset)}, shape {shown(shape)} and stride {shown(stride)}")
    if len(shape) != len(stride) or len(shape) > 64:
        raise ValueError(f"a tensor has shape {shown(shape)} and stride {shown(stride)}")
    return StoredTensor(archive, storage, offset, tuple(shape), tuple(stride))


def _parameter(archive: Archive, tensor: StoredTensor, *rest: Any) -> StoredTensor:
    return tensor


def _dictionary(archive: Archive) -> dict[Any, Any]:
    return {}


def _opaque(archive: Archive, *arguments: Any) -> Opaque:
    return Opaque()


# The calls that a checkpoint may ask for, and what is done instead.
CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _dictionary,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    # Numbers of NumPy, as learning-rate schedulers leave them.
    "numpy.core.multiarray.scalar": _opaque,
    "numpy._core.multiarray.scalar": _opaque,
    "numpy.dtype": _opaque,
    "_codecs.encode": _opaque,
}
