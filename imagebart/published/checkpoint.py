"""Reads the tensors of a published PyTorch checkpoint without importing or running anything that the file names.

A checkpoint is a zip with uncompressed entries: data.pkl, a pickle that says which tensor lies where, and data/KEY,
the numbers of one tensor storage. A pickle is a program for a stack machine. The machine here has only the
instructions that build plain values and tensors: names of classes and functions stay names, the few calls that tensors
need are done by our own code, and any other call or object ends the reading.

Why not `torch.load(weights_only=True, mmap=True)`? It runs no code either, but it refuses the published files, which
have classes of PyTorch Lightning as keys, and with PyTorch 2.13 sixty bytes of pickle make it take more than 8 GB (a
nested list is written out in an error), and a storage that is damaged, or shorter than the pickle says, becomes
weights without an error. A check beforehand would have to know what is on the stack at each call, as this machine does.
"""

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

from imagebart.errors import WeightsError, format_value, reason_of
from imagebart.weights.folder import MAX_INDEX_BYTES, open_file, open_zip

MAX_PICKLE_BYTES = 2 * 2**20  # takes seconds to read; the published ones have less than one MiB
MAX_COUNT = 2**63  # of a size, offset or stride
MAX_KEY = 2**60  # whole numbers in dictionaries; a file could choose larger ones with equal hashes
MAX_NAME = 200  # characters
CALLBACKS = "pytorch_lightning.callbacks."  # PyTorch Lightning 1.4 has the classes of callbacks as keys

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

# Instructions whose argument is the value that they put on the stack.
LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}


def read_tensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a checkpoint's `state_dict` (or of a file that is one), by name; their data is not read yet.

    Raises WeightsError where the file is damaged, or its pickle holds anything but plain values and tensors.
    """
    archive = Archive(path)
    content = _Unpickler(archive).run(archive.pickle())
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state:
        raise archive.error("holds no state_dict, expected a checkpoint's named tensors")
    for name, value in state.items():
        valid_name = isinstance(name, str) and len(name) <= MAX_NAME and name.isprintable()
        if not valid_name or not isinstance(value, StoredTensor):
            raise archive.error(f"has {format_value(name)} in its state_dict, expected tensors only")
    return state


class Archive:
    """The zip. Bytes are read only when asked for; nothing is decompressed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries = _zip_entries(path)
        pickles = [name for name in self._entries if name.split("/", 1)[-1] == "data.pkl"]
        if len(pickles) != 1:
            raise self.error(f"holds {len(pickles)} entries data.pkl, expected one as in a PyTorch checkpoint")
        self._root = pickles[0].removesuffix("data.pkl")
        byte_order = self._root + "byteorder"
        if byte_order in self._entries and self._read(byte_order) != sys.byteorder.encode():
            raise self.error(f"was written with another byte order than this machine's, {sys.byteorder}")

    def pickle(self) -> bytes:
        size = self._entries[self._root + "data.pkl"].file_size
        if size > MAX_PICKLE_BYTES:
            raise self.error(f"has a pickle of {size} bytes, expected at most {MAX_PICKLE_BYTES}")
        return bytes(self._read(self._root + "data.pkl"))

    def storage(self, key: str, begin: int, end: int, size: int, mapped: bool) -> bytearray | memoryview:
        """Bytes begin to end of a tensor storage that has `size` bytes in all; mapped: they stay in the file."""
        name = f"{self._root}data/{key}"
        if name not in self._entries:
            raise self.error(f"lacks the tensor storage {name}")
        if self._entries[name].file_size < size:
            raise self.error(f"has {self._entries[name].file_size} bytes in {name}, expected {size}")
        return self._read(name, begin, end, mapped)

    def error(self, reason: str) -> WeightsError:
        return WeightsError(f"{self.path} {reason}")

    def _read(self, name: str, begin: int = 0, end: int | None = None, mapped: bool = False) -> bytearray | memoryview:
        entry = self._entries[name]
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise self.error(f"has a compressed or encrypted entry {name}, expected it as PyTorch stores it")
        end = entry.file_size if end is None else end
        with open_file(self.path) as file:
            file.seek(entry.header_offset)
            header = file.read(30)
            if len(header) < 30 or header[:4] != b"PK\3\4":
                raise self.error(f"is damaged at the entry {name}")
            start = entry.header_offset + 30 + sum(struct.unpack("<HH", header[26:]))
            # Checked before memory is allocated: a few bytes of zip can claim any size.
            if entry.compress_size != entry.file_size or start + entry.file_size > self.path.stat().st_size:
                raise self.error(f"is too short for its entry {name} of {entry.file_size} bytes")
            data: bytearray | memoryview
            if mapped:
                # "c", copy on write: the file never changes.
                data = np.memmap(self.path, np.uint8, "c", offset=start + begin, shape=(end - begin,)).data
            else:
                data = bytearray(end - begin)
                file.seek(start + begin)
                file.readinto(data)
        if len(data) == entry.file_size and zlib.crc32(data) != entry.CRC:
            raise self.error(f"is damaged: the checksum of {name} is wrong; download it again")
        return data


def _zip_entries(path: Path) -> dict[str, zipfile.ZipInfo]:
    first = b""
    try:
        with open_file(path) as file:
            first = file.read(1)
        with open_zip(path, MAX_INDEX_BYTES) as archive:
            return {entry.filename: entry for entry in archive.infolist()}
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    except zipfile.BadZipFile as error:
        if first == b"\x80":
            raise WeightsError(
                f"{path} is a bare pickle, the format before PyTorch 1.6, expected its zip format: "
                "load it with PyTorch and save it again"
            ) from error
        raise WeightsError(f"{path} is no PyTorch checkpoint, or only the beginning of one: {error}") from error


@dataclass(frozen=True)
class Storage:
    """Numbers in a row: the entry data/KEY."""

    dtype: torch.dtype
    key: str
    length: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that still lies in its file."""

    archive: Archive
    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def read(self, mapped: bool = False) -> Tensor:
        """Reads it into memory of its own; mapped: leaves it in the file. Raises WeightsError where it is damaged."""
        dtype, size = self.storage.dtype, self.storage.dtype.itemsize
        if 0 in self.shape:
            return torch.empty(self.shape, dtype=dtype)
        end = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True)) + 1
        if end > self.storage.length:
            raise self.archive.error(
                f"has a tensor of shape {list(self.shape)} that ends after its storage of {self.storage.length} numbers"
            )
        total = self.storage.length * size
        data = self.archive.storage(self.storage.key, self.offset * size, end * size, total, mapped)
        return torch.frombuffer(data, dtype=dtype).as_strided(self.shape, self.stride)


@dataclass(frozen=True)
class GlobalName:
    """A class or function that the file names; it is never looked up."""

    dotted: str


class Opaque:
    """An object that is not needed, so not made."""


class _Unpickler:
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
            raise self.archive.error(f"has a damaged pickle: {reason_of(error)}") from error

    def step(self, instruction: str, argument: Any) -> None:
        stack = self.stack
        match instruction:
            case _ if instruction in LITERALS:
                stack.append(argument)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(instruction == "NEWTRUE")
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "MARK":
                self.marks.append(len(stack))
            case "POP" if self.marks and self.marks[-1] == len(stack):
                self.marks.pop()
            case "POP":
                stack.pop()
            case "POP_MARK":
                self.pop_to_mark()
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(self.pop(int(instruction[-1])))
            case "TUPLE":
                stack.append(tuple(self.pop_to_mark()))
            case "LIST":
                stack.append(self.pop_to_mark())
            case "DICT":
                items = self.pop_to_mark()
                stack.append({})
                self.set_items(items)
            case "APPEND":
                self.extend(self.pop(1))
            case "APPENDS":
                self.extend(self.pop_to_mark())
            case "SETITEM":
                self.set_items(self.pop(2))
            case "SETITEMS":
                self.set_items(self.pop_to_mark())
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "GLOBAL":
                stack.append(self.global_name(argument.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                stack.append(self.global_name(".".join(self.pop(2))))
            case "BINPERSID":
                stack.append(_storage(*stack.pop()))
            case "REDUCE":
                stack.append(self.call(*self.pop(2)))
            case "BUILD":  # attributes of a state_dict (its version numbers) or of an opaque object: not needed
                target, _ = self.pop(2)
                if not isinstance(target, dict | Opaque):
                    raise self.refuse(f"sets attributes of {_name_of(target)}")
                stack.append(target)
            case "INST":
                raise self.refuse(f"makes an object of {argument.replace(' ', '.', 1):.200}")
            case _:
                names = [value.dotted for value in stack if isinstance(value, GlobalName)]
                raise self.refuse(f"uses {instruction}" + (f" with {names[-1]}" if names else ""))

    def global_name(self, dotted: str) -> GlobalName:
        known = dotted in CALLS or dotted in DTYPES or dotted.startswith(CALLBACKS)
        if not known or len(dotted) > MAX_NAME:
            raise self.refuse(f"names {dotted:.200}")
        return GlobalName(dotted)

    def call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, GlobalName) or function.dotted not in CALLS:
            raise self.refuse(f"calls {_name_of(function)}")
        return CALLS[function.dotted](self.archive, *arguments)

    def pop(self, count: int) -> tuple[Any, ...]:
        if len(self.stack) < count:
            raise ValueError("its stack runs empty")
        values = tuple(self.stack[-count:])
        del self.stack[-count:]
        return values

    def pop_to_mark(self) -> list[Any]:
        begin = self.marks.pop()
        values = self.stack[begin:]
        del self.stack[begin:]
        return values

    def extend(self, values: list[Any] | tuple[Any, ...]) -> None:
        if not isinstance(self.stack[-1], list):
            raise self.refuse("appends to what is no list")
        self.stack[-1].extend(values)

    def set_items(self, items: list[Any] | tuple[Any, ...]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise self.refuse("sets items of what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | bytes | int | float | GlobalName | None):
                raise self.refuse(f"has a {type(key).__name__} as a key")
            if isinstance(key, int) and abs(key) >= MAX_KEY:
                raise self.refuse(f"has a number of {key.bit_length()} bits as a key")
            target[key] = value

    def refuse(self, what: str) -> WeightsError:
        return self.archive.error(
            f"{what} in its pickle, expected tensors and plain values only; nothing of it was executed"
        )


def _name_of(value: object) -> str:
    return value.dotted if isinstance(value, GlobalName) else "a value"


def _is_count(number: object) -> bool:
    return isinstance(number, int) and 0 <= number < MAX_COUNT


def _storage(kind: Any, dtype: GlobalName, key: str, location: Any, length: int) -> Storage:
    if kind != "storage" or not isinstance(key, str) or not _is_count(length):
        raise ValueError(f"a storage is described as {format_value(kind)}, {format_value(key)}, {format_value(length)}")
    return Storage(DTYPES[dtype.dotted], key, length)


def _tensor(
    archive: Archive, storage: Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *rest: Any
) -> StoredTensor:
    counts = isinstance(storage, Storage) and all(map(_is_count, (offset, *shape, *stride)))
    if not counts or len(shape) != len(stride) or len(shape) > 64:
        layout = ", ".join(map(format_value, (offset, shape, stride)))
        raise ValueError(f"a tensor has the offset, shape and stride {layout}")
    return StoredTensor(archive, storage, offset, tuple(shape), tuple(stride))


def _opaque(archive: Archive, *arguments: Any) -> Opaque:
    return Opaque()


# The calls that a checkpoint may ask for, and what is done instead.
CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": lambda archive: {},
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda archive, tensor, *rest: tensor,
    # Numbers of NumPy, which learning-rate schedulers keep.
    "numpy.core.multiarray.scalar": _opaque,
    "numpy._core.multiarray.scalar": _opaque,
    "numpy.dtype": _opaque,
    "_codecs.encode": _opaque,
}
