from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from imagebart.ui.picture import Picture


@pytest.fixture
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page writes its pictures into the test's own folder."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "written"))


@pytest.fixture
def picture(tmp_path: Path) -> Picture:
    """An upload that is no square."""
    path = tmp_path / "upload.png"
    pixels = bytes(value % 251 for value in range(50 * 37 * 3))
    Image.frombytes("RGB", (37, 50), pixels).save(path)
    return Picture.load(str(path))
