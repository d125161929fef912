"""PyTorch checkpoints: tensors are read as PyTorch saved them, and nothing that a file names is run."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from published_files import CLASS_MODEL, assert_refused, zipped
from torch import nn

from imagebart.weights.convert import read_state_dict


def checkpoint(program: bytes) -> bytes:
    """A checkpoint with this pickle."""
    return zipped({"archive/data.pkl": program, "archive/version": b"3\n"})


def assert_unreadable(path: Path, content: bytes, reason: str = "") -> None:
    path.write_bytes(content)
    assert_refused(path, str(path), reason, read=read_state_dict)


def test_tensors_equal_what_pytorch_saved(tmp_path: Path) -> None:
    base = torch.randn(6, 8)
    state = {
        "part": base[2:5, 1:7:2],
        "transposed": base.t(),
        "parameter": nn.Parameter(torch.randn(2, 3)),
        "float16": torch.randn(3).half(),
        "int64": torch.arange(4),
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 4),
    }
    schedulers = [{"_last_lr": [np.float64(0.1)]}]  # numbers of NumPy
    for content in (state, {"epoch": 3, "state_dict": state, "lr_schedulers": schedulers}):
        torch.save(content, tmp_path / "x.ckpt")
        tensors = read_state_dict(tmp_path / "x.ckpt")
        assert list(tensors) == list(state)
        assert all(tensors[n].dtype == t.dtype and torch.equal(tensors[n], t) for n, t in state.items())


def test_the_class_of_a_callback_as_a_key_is_never_imported() -> None:
    assert len(read_state_dict(CLASS_MODEL / "scale1.ckpt")) == 301
    assert not any(name.startswith("pytorch_lightning") for name in sys.modules)
    with pytest.raises(pickle.UnpicklingError):  # without the names that published files have
        torch.load(CLASS_MODEL / "scale1.ckpt", weights_only=True)


CALL = b"cos\nmkdir\n(X\x08\0\0\0executedtR"
PROGRAMS = {
    "call": CALL + b".",
    "call, protocol 4": b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93\x8c\x08executed\x85R.",
    "eval": b'c__builtin__\neval\n(S\'__import__("os").mkdir("executed")\'\ntR.',
    "beside tensors": b"}(X\x0a\0\0\0state_dict}X\x09\0\0\0callbacks](" + CALL + b"eu.",
    "state": b"cfunctools\npartial\n(cos\nmkdir\ntR(cos\nmkdir\n)}}tb(X\x08\0\0\0executedtR.",
    "shell": b"cos\nsystem\n(X\x0e\x00\x00\x00mkdir executedtR.",
    "INST": b"(S'mkdir executed'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'mkdir executed'\no.",
    "partial": b"cfunctools\npartial\n(cos\nmkdir\nX\x08\x00\x00\x00executedtR)R.",
    "behind a callback": b"cpytorch_lightning.callbacks.x\nY\n0cos\nsystem\n(X\x0e\x00\x00\x00mkdir executedtR.",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_are_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Programs that leave a marker when they run, as is proved for all but the last."""
    monkeypatch.chdir(tmp_path)
    for content in (checkpoint(PROGRAMS[name]), PROGRAMS[name]):  # the second without a zip around it
        assert_unreadable(tmp_path / "x.ckpt", content)
    assert not (tmp_path / "executed").exists()
    if name != "behind a callback":
        pickle.loads(PROGRAMS[name])
        assert (tmp_path / "executed").is_dir()


def test_pickles_that_hold_no_tensors_are_named(tmp_path: Path) -> None:
    for program, reason in (
        (PROGRAMS["shell"], "names os.system, expected tensors"),
        (b"cpytorch_lightning.core.saving\nload\n.", "names pytorch_lightning.core.saving.load"),
        (b"c" + b"x" * 1000 + b"\ny\n.", "names xxx"),
        (b"X\x02\x00\x00\x00hi)R.", "unrecognized function hi"),
        (b"\x80\x02}q", "no PyTorch checkpoint"),
        (b"K\x01.", "state_dict"),
        (b"}X\x0a\0\0\0state_dict}K\x01K\x01ss.", "state_dict"),
    ):
        assert_unreadable(tmp_path / "x.ckpt", checkpoint(program), reason)


def test_other_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    assert_refused(path, "no PyTorch checkpoint", read=read_state_dict)
    torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=False)  # as before PyTorch 1.6
    cut = (CLASS_MODEL / "scale1.ckpt").read_bytes()[:-5000]
    for content in (b"", b"<html>not found</html>", cut, path.read_bytes()):
        assert_unreadable(path, content, "no PyTorch checkpoint")
