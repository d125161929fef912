from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page writes its images into the test's own folder."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "written"))


@pytest.fixture
def image() -> Image.Image:
    """An image that is no square."""
    return Image.frombytes("RGB", (37, 50), bytes(value % 251 for value in range(50 * 37 * 3)))
