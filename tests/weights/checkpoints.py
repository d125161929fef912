"""Checkpoint files made by hand, entry by entry and instruction by instruction; and what is expected of models."""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from imagebart import ImageBART
from imagebart.errors import WeightsError

FIXTURES = Path(__file__).parents[1] / "fixtures"
TINY = FIXTURES / "tiny"
CLASS_MODEL = TINY / "class_cond_custom"
RESIDUAL_MODEL = TINY / "uncond_residual_geometric"
load = ImageBART.from_pretrained


def same_weights(one: ImageBART, other: ImageBART) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]) for name in theirs
    )


def assert_refused(folder: Path, *reasons: str) -> None:
    """A model cannot be loaded from there: one sentence, with all these reasons in it."""
    with pytest.raises(WeightsError) as caught:
        load(folder)
    for reason in reasons:
        assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def write_zip(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """A zip as PyTorch writes it."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(f"archive/{name}", content)
    return path


def write_pickle(path: Path, program: bytes, data: bytes = b"") -> Path:
    """A checkpoint with this pickle and one tensor storage, 0."""
    return write_zip(path, {"data.pkl": program, "data/0": data})


def with_state_dict(entry: bytes) -> bytes:
    """A pickle of {"state_dict": {"w": entry}}."""
    return pickle.PROTO + b"\x02" + b"}" + _text("state_dict") + b"}" + _text("w") + entry + b"ss."


def tensor(offset: int, shape: tuple[int, ...], stride: tuple[int, ...], length: int, key: str = "0") -> bytes:
    """The instructions that make a float32 tensor in a storage of `length` numbers."""
    storage = b"(" + _text("storage") + b"ctorch\nFloatStorage\n" + _text(key) + _text("cpu") + _number(length) + b"tQ"
    sizes = b"".join(b"(" + b"".join(map(_number, numbers)) + b"t" for numbers in (shape, stride))
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n("
    return rebuild + storage + _number(offset) + sizes + b"\x89ccollections\nOrderedDict\n)R" + b"tR"


def edit_entry(path: Path, name: str, content: bytes | None) -> None:
    """Replaces an entry of a checkpoint, or takes it out."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    full = next(entry for entry in entries if entry.split("/", 1)[1] == name)
    with zipfile.ZipFile(path, "w") as archive:
        for entry, old in entries.items():
            new = content if entry == full else old
            if new is not None:
                archive.writestr(entry, new)


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _number(number: int) -> bytes:
    digits = number.to_bytes(9, "little", signed=True)
    return b"\x8a\x09" + digits
