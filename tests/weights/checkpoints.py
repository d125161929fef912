"""Where the recorded models are, and what is expected of models."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from imagebart import ImageBART
from imagebart.core.errors import WeightsError

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
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def write_pickle(path: Path, program: bytes) -> Path:
    """A checkpoint with this pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", b"3\n")
    return path


def edit_entry(path: Path, name: str, content: bytes) -> None:
    """Replaces an entry of a checkpoint."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for entry, old in entries.items():
            archive.writestr(entry, content if entry.split("/", 1)[1] == name else old)
