"""Temporary files: tidied by age, kept where the page shows them."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
from PIL import Image

from imagebart.ui import files
from imagebart.ui.environment import temporary_folder
from imagebart.ui.examples import find_examples
from imagebart.ui.files import MAX_AGE, MAX_AGES, publish, publish_preview, tidy, tidying


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    own = Path(temporary_folder())
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(own))
    return own


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}


def test_the_folder_is_only_for_this_user_and_inside_the_one_that_is_set(folder: Path, tmp_path: Path) -> None:
    assert folder.parent == tmp_path.resolve() and folder.stat().st_mode & 0o077 == 0


def test_each_kind_of_file_has_its_age(folder: Path) -> None:
    result, preview = publish(Image.new("RGB", (8, 8))), publish_preview(Image.new("RGB", (8, 8)))
    (folder / "tmpabc").write_bytes(b"half an upload")
    upload = folder / "0123" / "upload.png"
    upload.parent.mkdir()
    upload.write_bytes(b"an upload")
    now = time.time()
    assert tidy(folder, now) == 0
    assert tidy(folder, now + MAX_AGES["preview-"] + 5) == 1 and not Path(preview).exists()
    assert tidy(folder, now + MAX_AGES["tmp"] + 5) == 1 and "tmpabc" not in left(folder)
    assert upload.exists() and Path(result).exists()
    assert tidy(folder, now + MAX_AGE + 5) == 2
    assert tidy(folder, now + 2 * MAX_AGE) == 0 and left(folder) == set()


def test_a_copy_of_an_old_file_is_new(folder: Path) -> None:
    copy = folder / "example.png"
    copy.write_bytes(b"an example")
    os.utime(copy, (0, 0))  # as shutil.copy2 leaves it
    assert tidy(folder) == 0 and copy.exists()


def test_the_server_tidies_but_keeps_its_examples(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "there").mkdir()
    Image.new("RGB", (40, 40), "red").save(folder / "there" / "01-red.png")
    (example,) = find_examples(folder / "there")
    shown = example.publish()
    paths = [Path(path) for path in (shown["image"]["path"], shown["image"]["view"], shown["small"])]
    uploaded = folder / "0123" / paths[0].name
    uploaded.parent.mkdir()
    uploaded.write_bytes(b"an upload of that name")
    monkeypatch.setattr(files, "MAX_AGE", 0.5)  # all is older
    time.sleep(0.6)

    async def live() -> None:
        async with tidying(None, interval=0.05):
            while uploaded.exists():
                await asyncio.sleep(0.05)

    asyncio.run(asyncio.wait_for(live(), 20))
    assert len(set(paths)) == 3 and all(path.exists() for path in paths)


def test_folders_within_folders_go_with_their_last_file(tmp_path: Path) -> None:
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    (inner / "image.png").write_bytes(b"x")
    assert tidy(tmp_path, time.time() + 7200) == 1
    assert list(tmp_path.iterdir()) == []
