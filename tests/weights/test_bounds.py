"""Files that would take minutes or gigabytes to read, or are no texts: refused, or read within bounds, by a process
that has little of both."""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from killing import apart
from safetensors.torch import save_file

from imagebart.avatars.attributes import VALUES
from imagebart.avatars.reader import load_reader
from imagebart.pipeline import Pipeline
from imagebart.testing import tiny_model
from imagebart.weights import WeightsError, load
from imagebart.weights import folder as bounds

from .checkpoints import CLASS_MODEL

SECONDS = 10  # of the processor
MEMORY = 10**9  # bytes, beside what is there


def within_bounds(work: Callable[[], object], said: str) -> None:
    """Does the work in a process with so much time and memory, in which it has to be refused with these words."""

    def limited() -> None:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
        with pytest.raises(WeightsError, match=said):
            work()

    assert apart(limited) == 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model("text", scales=1).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def sparse(path: Path) -> None:
    """Three gigabytes that take no room on the disk."""
    with path.open("wb") as file:
        file.truncate(3 << 30)


def long_header(path: Path, tensors: int) -> None:
    """A file of safetensors with so many tensors of no numbers."""
    listed = {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(tensors)}
    text = json.dumps(listed).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)


def many_entries(path: Path, count: int) -> None:
    """A zip whose list names so many entries."""
    one = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 3, 20, 0, *[0] * 7, 1, *[0] * 6) + b"a"
    listed = one * count
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(listed), 0)
    end64 += struct.pack("<4sLQL", b"PK\6\7", 0, len(listed), 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(listed + end64 + end)


def test_a_huge_configuration_is_refused_unread(folder: Path) -> None:
    sparse(folder / "config.json")
    within_bounds(lambda: load(folder), r"config.json has 3,221,225,472 bytes, expected at most 2,000,000")


def test_a_file_with_a_million_tensors_is_refused_by_its_header(folder: Path) -> None:
    long_header(folder / "first_stage.safetensors", 1_000_000)
    within_bounds(lambda: load(folder), r"first_stage.safetensors is damaged .* its header has [\d,]+ bytes")


def test_a_checkpoint_with_a_million_entries_is_refused_by_its_list(tmp_path: Path) -> None:
    folder = tmp_path / "published"
    shutil.copytree(CLASS_MODEL, folder)
    many_entries(folder / "scale1.ckpt", 1_000_000)
    within_bounds(
        lambda: load(folder), r"scale1.ckpt is no PyTorch checkpoint.*its list of entries has 47,000,000 bytes"
    )


@pytest.mark.parametrize("size", [{"channels": [20_000] * 3}, {"squeeze": 20_000, "features": 1000}])
def test_a_judge_of_gigabytes_is_refused_by_its_description(tmp_path: Path, size: dict[str, object]) -> None:
    path = tmp_path / "judge.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"values": json.dumps(VALUES), "config": json.dumps(size)})
    with pytest.raises(ValueError, match="expected at most 512"):
        load_reader(path)


def test_the_shipped_files_are_far_from_the_bounds() -> None:
    shipped = Path(__file__).parents[2] / "checkpoints" / "avatars"
    assert (shipped / "config.json").stat().st_size < bounds.MAX_CONFIG_BYTES / 10
    for path in shipped.glob("*.safetensors"):
        assert int.from_bytes(path.read_bytes()[:8], "little") < bounds.MAX_INDEX_BYTES / 10


@pytest.mark.parametrize("content", [b"\xff\xfe caf\xe9", "a café".encode(), b""])
def test_any_card_is_shown(folder: Path, content: bytes) -> None:
    (folder / "README.md").write_bytes(content)
    card = Pipeline.from_pretrained(folder).card
    assert ("caf" in card) if content else "denoiser" in card


def test_of_a_huge_card_the_beginning_is_shown(folder: Path) -> None:
    sparse(folder / "README.md")
    assert len(Pipeline.from_pretrained(folder).card) == 200_000
