"""PyTorch checkpoints: tensors are read as PyTorch saved them, and nothing that a file names is run."""

from __future__ import annotations

import os
import pickle
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from imagebart.errors import WeightsError
from imagebart.published.checkpoint import read_tensors

from .checkpoints import CLASS_MODEL, edit_entry, tensor, with_state_dict, write_pickle, write_zip

MARKER = "executed"


class Reduced:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def assert_refused(path: Path, *reasons: str) -> None:
    with pytest.raises(WeightsError) as caught:
        for stored in read_tensors(path).values():
            stored.read()
    for reason in (str(path), *reasons):
        assert reason in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where programs that do run would leave their marker."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestTensors:
    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    @pytest.mark.parametrize("whole", [True, False], ids=["checkpoint", "state_dict"])
    def test_equal_what_pytorch_saved(self, tmp_path: Path, protocol: int, whole: bool) -> None:
        base = torch.randn(6, 8)
        state = {
            "float32": base,
            "part": base[2:5, 1:7:2],
            "transposed": base.t(),
            "expanded": torch.randn(3, 1).expand(3, 4),
            "parameter": nn.Parameter(torch.randn(2, 3)),
            "float64": torch.randn(2, dtype=torch.float64),
            "float16": torch.randn(3).half(),
            "bfloat16": torch.randn(3).bfloat16(),
            "int64": torch.arange(4),
            "int32": torch.arange(4, dtype=torch.int32),
            "uint8": torch.arange(4, dtype=torch.uint8),
            "bool": torch.tensor([True, False]),
            "scalar": torch.tensor(3.5),
            "empty": torch.empty(0, 4),
        }
        path = tmp_path / "x.ckpt"
        content = {"epoch": 3, "state_dict": state, "other": [None, 1.5, (1, 2), b"x", 2**80, True]} if whole else state
        torch.save(content, path, pickle_protocol=protocol)
        tensors = read_tensors(path)
        assert list(tensors) == list(state)
        for name, saved in state.items():
            read = tensors[name].read()
            assert read.dtype == saved.dtype
            assert tensors[name].shape == tuple(saved.shape)
            assert torch.equal(read, saved)

    def test_class_of_a_callback_as_a_key_is_never_imported(self) -> None:
        assert len(read_tensors(CLASS_MODEL / "scale1.ckpt")) == 301
        assert not any(name.startswith("pytorch_lightning") for name in sys.modules)
        with pytest.raises(pickle.UnpicklingError):  # which is why PyTorch's own safe reader is not enough
            torch.load(CLASS_MODEL / "scale1.ckpt", weights_only=True)

    def test_numpy_numbers_of_schedulers_do_not_hinder(self, tmp_path: Path) -> None:
        content = {"state_dict": {"w": torch.ones(2)}, "lr_schedulers": [{"_last_lr": [np.float64(0.1)]}]}
        torch.save(content, tmp_path / "x.ckpt")
        assert torch.equal(read_tensors(tmp_path / "x.ckpt")["w"].read(), torch.ones(2))

    def test_data_is_read_only_when_asked_for(self, tmp_path: Path) -> None:
        path = tmp_path / "x.ckpt"
        content = {"state_dict": {"w": torch.ones(2)}, "optimizer_states": [torch.zeros(1000)]}
        torch.save(content, path)
        edit_entry(path, "data/1", None)  # a reader that touched the optimizer's state would miss it
        assert torch.equal(read_tensors(path)["w"].read(), torch.ones(2))
        edit_entry(path, "data/0", None)
        tensors = read_tensors(path)
        with pytest.raises(WeightsError, match="data/0"):
            tensors["w"].read()


class TestCode:
    """Programs that leave a marker when they run, as the second test proves."""

    PROGRAMS = {
        "call": pickle.dumps({"state_dict": Reduced(os.mkdir, MARKER)}, 2),
        "call, protocol 4": pickle.dumps({"state_dict": Reduced(os.mkdir, MARKER)}, 4),
        "eval": pickle.dumps(Reduced(eval, f"__import__('os').mkdir({MARKER!r})"), 2),
        "beside tensors": pickle.dumps({"state_dict": {}, "callbacks": [Reduced(os.mkdir, MARKER)]}, 2),
        "shell": b"cos\nsystem\n(X\x0e\x00\x00\x00mkdir executedtR.",
        "INST": b"(S'mkdir executed'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nS'mkdir executed'\no.",
        "partial": b"cfunctools\npartial\n(cos\nmkdir\nX\x08\x00\x00\x00executedtR)R.",
    }

    @pytest.mark.parametrize("name", PROGRAMS)
    def test_is_refused_and_not_run(self, folder: Path, name: str) -> None:
        assert_refused(write_pickle(folder / "x.ckpt", self.PROGRAMS[name]), "pickle", "expected")
        assert not (folder / MARKER).exists()

    @pytest.mark.parametrize("name", PROGRAMS)
    def test_would_run_otherwise(self, folder: Path, name: str) -> None:
        pickle.loads(self.PROGRAMS[name])
        assert (folder / MARKER).is_dir()

    def test_state_of_an_object_is_refused(self, folder: Path) -> None:
        program = pickle.dumps(Reduced(Stateful, state=f"__import__('os').mkdir({MARKER!r})"), 2)
        pickle.loads(program)
        assert (folder / MARKER).is_dir()
        (folder / MARKER).rmdir()
        assert_refused(write_pickle(folder / "x.ckpt", program), "Stateful")
        assert not (folder / MARKER).exists()

    def test_the_message_has_the_name(self, folder: Path) -> None:
        assert_refused(write_pickle(folder / "x.ckpt", self.PROGRAMS["shell"]), "names os.system", "nothing")

    @pytest.mark.parametrize(
        ("program", "reason"),
        [
            (b"cpytorch_lightning.callbacks.x\nY\n)R.", "calls pytorch_lightning.callbacks.x.Y"),
            (b"cpytorch_lightning.callbacks.x\nY\n)\x81.", "NEWOBJ with pytorch_lightning.callbacks.x.Y"),
            (b"(cpytorch_lightning.callbacks.x\nY\no.", "OBJ with pytorch_lightning.callbacks.x.Y"),
            (b"cpytorch_lightning.callbacks.x\nY\n}b.", "attributes of pytorch_lightning.callbacks.x.Y"),
            (b"cpytorch_lightning.core.saving\nload\n.", "names pytorch_lightning.core.saving.load"),
            (b"ctorch\nFloatStorage\n(K\x02tR.", "calls torch.FloatStorage"),
            (b"ctorch.hub\nload\n.", "names torch.hub.load"),
            (b"c__builtin__\nbytearray\n(J\x00\x00\x00\x7ftR.", "names __builtin__.bytearray"),  # of 2 GB
            (b"X\x02\x00\x00\x00hi)R.", "calls a value"),
            (b"\x82\x01.", "EXT1"),
            (b"cargparse\nNamespace\n.", "names argparse.Namespace"),
            (b"}}K\x01s.", "a dict as a key"),
            (b"}(K\x01e.", "appends to what is no list"),
            (b"]K\x01K\x02s.", "sets items of what is no dictionary"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_only_the_calls_of_tensors_are_known(self, folder: Path, program: bytes, reason: str) -> None:
        assert_refused(write_pickle(folder / "x.ckpt", program), reason)


class Stateful:
    def __setstate__(self, state: str) -> None:
        eval(state)


# A list of nine times the list before, nine levels deep: a few bytes that would be said in 10^9 words.
ENDLESS = b"\x8b" + struct.pack("<I", 3001) + b"\0" * 2999 + b"\x80\0"  # a number of more digits than Python writes
NESTED = b"]q\x00" + b"".join(b"](" + b"h%c" % i * 9 + b"eq%c" % (i + 1) for i in range(9))
NESTED = NESTED + b"(h\x09h\x09h\x09h\x09K\x01t"


class TestDamage:
    @pytest.mark.parametrize(
        ("program", "reason"),
        [
            (b"", "pickle"),
            (b"}", "pickle"),
            (b"\x80\x02}q", "pickle"),
            (b"\xff\xfe.", "pickle"),
            (b"0.", "pickle"),
            (b"t.", "pickle"),
            (b"h\x07.", "pickle"),
            (b"X\xff\xff\xff\xffabc.", "pickle"),
            (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.", "pickle"),
            (b"}r\xff\xff\xff\xff.", "state_dict"),
            (b"K\x01.", "state_dict"),
            (b"}.", "state_dict"),
            (with_state_dict(b"K\x01"), "'w'"),
            (with_state_dict(b"K\x01Q"), "pickle"),
            (with_state_dict(tensor(0, (2,), (1,), 4, key="7")), "data/7"),
            (with_state_dict(tensor(0, (5,), (1,), 4)), "ends after its storage"),
            (with_state_dict(tensor(3, (2,), (1,), 4)), "ends after its storage"),
            (with_state_dict(tensor(0, (2, 2), (3, 1), 4)), "ends after its storage"),
            (with_state_dict(tensor(2**62, (1,), (1,), 4)), "ends after its storage"),
            (with_state_dict(tensor(0, (8,), (1,), 8)), "has 16 bytes in archive/data/0, expected 32"),
            (with_state_dict(tensor(0, (2**60,), (1,), 2**60)), "has 16 bytes"),
            (with_state_dict(tensor(-1, (2,), (1,), 4)), "stride -1, (2,), (1,)"),
            (with_state_dict(tensor(0, (-2,), (1,), 4)), "stride 0, (-2,), (1,)"),
            (with_state_dict(tensor(1, (2,), (-1,), 4)), "stride 1, (2,), (-1,)"),
            (with_state_dict(tensor(0, (2,), (1, 1), 4)), "stride 0, (2,), (1, 1)"),
            (with_state_dict(tensor(0, (2,), (1,), -4)), "-4"),
            (with_state_dict(tensor(0, (2,), (1,), 2**64)), "a storage is described as"),
            (with_state_dict(tensor(0, (2**64,), (1,), 4)), "stride 0, (18446744073709551616,)"),
            (with_state_dict(tensor(0, (1,) * 65, (1,) * 65, 4)), "stride 0, (1, 1, "),
            (b"}" + ENDLESS + b"K\x01s.", "a number of 24000 bits as a key"),
            (b"}X\x0a\0\0\0state_dict}X\xe8\3\0\0" + b"w" * 1000 + tensor(0, (2,), (1,), 4) + b"ss.", "www…"),
            (b"}X\x0a\0\0\0state_dict}X\3\0\0\0a\nb" + tensor(0, (2,), (1,), 4) + b"ss.", r"'a\nb'"),
            (b"c" + b"x" * 1000 + b"\ny\n.", "names xxx"),
            (b"cpytorch_lightning.callbacks.x\n" + b"y" * 1000 + b"\n.", "names pytorch_lightning"),
            (b"(i" + b"x" * 1000 + b"\ny\n.", "an object of xxx"),
            (NESTED + b"Q.", "a storage is described as"),
            (NESTED + b"R.", "calls a value"),
            (with_state_dict(b"(cos\nx\nt."), "os.x"),
        ],
    )
    def test_pickles_are_named_and_refused(self, tmp_path: Path, program: bytes, reason: str) -> None:
        assert_refused(write_pickle(tmp_path / "x.ckpt", program, bytes(16)), reason)

    def test_the_helpers_make_what_is_right_otherwise(self, tmp_path: Path) -> None:
        data = np.arange(4, dtype=np.float32).tobytes()
        path = write_pickle(tmp_path / "x.ckpt", with_state_dict(tensor(1, (3,), (1,), 4)), data)
        assert read_tensors(path)["w"].read().tolist() == [1, 2, 3]

    def test_deep_nesting_ends_without_a_crash(self, tmp_path: Path) -> None:
        assert_refused(write_pickle(tmp_path / "x.ckpt", b"]" * 10**5 + b"a" * (10**5 - 1) + b"."), "state_dict")

    def test_a_program_that_would_take_long_is_refused(self, tmp_path: Path) -> None:
        """Ten seconds and more: numbers of one hash in a dictionary, and more instructions than a checkpoint has."""
        step, count = 2**61 - 1, 30_000
        keys = b"".join(b"\x8a\x0a" + (number * step).to_bytes(10, "little") + b"N" for number in range(count))
        assert len({hash(number * step) for number in range(count)}) == 1
        assert_refused(write_pickle(tmp_path / "x.ckpt", b"}(" + keys + b"u."), "bits as a key")
        assert_refused(write_pickle(tmp_path / "x.ckpt", b"}" * 2**22 + b"."), "expected at most")

    def test_compressed_entries_are_refused_before_they_unfold(self, tmp_path: Path) -> None:
        entries = {"data.pkl": with_state_dict(tensor(0, (4,), (1,), 4)), "data/0": bytes(10**6)}
        assert_refused(write_zip(tmp_path / "x.ckpt", entries, zipfile.ZIP_DEFLATED), "a compressed or encrypted entry")

    def test_sizes_that_lie_are_refused_before_memory_is_taken(self, tmp_path: Path) -> None:
        path = write_pickle(tmp_path / "x.ckpt", with_state_dict(tensor(0, (2**40,), (1,), 2**40)), bytes(16))
        content = bytearray(path.read_bytes())
        entry = content.rindex(b"PK\1\2")  # data/0 in the directory at the end: sizes are 20 bytes on
        content[entry + 20 : entry + 28] = struct.pack("<II", 0xFFFFFFF0, 0xFFFFFFF0)
        path.write_bytes(content)
        assert_refused(path, "expected 4398046511104")
        short = write_pickle(tmp_path / "y.ckpt", with_state_dict(tensor(0, (2**20,), (1,), 2**20)), bytes(16))
        content = bytearray(short.read_bytes())
        entry = content.rindex(b"PK\1\2")
        content[entry + 20 : entry + 28] = struct.pack("<II", 2**22, 2**22)
        short.write_bytes(content)
        assert_refused(short, "too short")

    def test_a_huge_pickle_is_refused(self, tmp_path: Path) -> None:
        assert_refused(write_pickle(tmp_path / "x.ckpt", bytes(17 * 2**20)), "17825792 bytes")

    def test_a_flipped_bit_is_noticed(self, tmp_path: Path) -> None:
        path = write_pickle(tmp_path / "x.ckpt", with_state_dict(tensor(0, (4,), (1,), 4)), b"\1" * 16)
        content = bytearray(path.read_bytes())
        content[content.index(b"\1" * 16)] = 2
        path.write_bytes(content)
        assert_refused(path, "checksum of archive/data/0")

    def test_other_byte_order_is_refused(self, tmp_path: Path) -> None:
        entries = {"data.pkl": with_state_dict(tensor(0, (1,), (1,), 1)), "byteorder": b"big", "data/0": bytes(4)}
        assert_refused(write_zip(tmp_path / "x.ckpt", entries), "byte order")

    def test_the_old_format_is_named(self, tmp_path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.save({"w": torch.ones(2)}, tmp_path / "x.ckpt", _use_new_zipfile_serialization=False)
        assert_refused(tmp_path / "x.ckpt", "before PyTorch 1.6", "save it again")

    def test_other_files_are_named(self, tmp_path: Path) -> None:
        path = tmp_path / "x.ckpt"
        assert_refused(path, "cannot be read")
        for content in (b"", b"<html>not found</html>", (CLASS_MODEL / "scale1.ckpt").read_bytes()[:-5000]):
            path.write_bytes(content)
            assert_refused(path, "no PyTorch checkpoint")
        assert_refused(write_zip(path, {"readme": b""}), "holds 0 entries data.pkl")
