"""Files are there whole or not at all: kills at every step and at random moments, full disks, links, permissions."""

from __future__ import annotations

import itertools
import os
import random
import signal
import stat
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from fault_injection import killed_at_every_step, run_in_fork, with_full_disk
from PIL import Image

from imagebart import atomic_io as files
from imagebart.errors import InputError
from imagebart.imaging.files import save_animation, save_image
from imagebart.imaging.metadata import Recipe, read_recipe, write_png

RECIPE = Recipe(model="tiny", task="generate", prompt="a hat", seed=1)


def noise(seed: int, side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8))


def same(path: Path, image: Image.Image) -> bool:
    with Image.open(path) as found:
        return bool(np.array_equal(np.asarray(found.convert("RGB")), np.asarray(image)))


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_an_image_is_old_or_new_whenever_its_writer_is_killed(tmp_path: Path) -> None:
    path, old, new = tmp_path / "out.png", noise(0), noise(1)
    write_png(old, path, RECIPE)
    steps = list(killed_at_every_step(lambda: write_png(new, path, RECIPE)))
    assert len(steps) >= 3  # made, given its permissions, moved
    assert same(path, new)
    write_png(old, path, RECIPE)
    for _ in killed_at_every_step(lambda: write_png(new, path, RECIPE)):
        assert same(path, old) and read_recipe(path) == RECIPE


@pytest.mark.parametrize("name", ["out.png", "out.webp", "out.gif", "out.jpg"])
def test_a_full_disk_leaves_the_old_image_and_says_what_it_takes(tmp_path: Path, name: str) -> None:
    path, new = tmp_path / name, noise(1)

    def write() -> None:
        if path.suffix in (".webp", ".gif"):
            save_animation([new, noise(2)], path, 1.0)
        else:
            save_image(new, path)

    run_in_fork(write)
    size = path.stat().st_size
    path.write_bytes(b"old")
    for room in (0, 1, size // 2, size - 1):
        said = with_full_disk(write, room)
        assert f"{name} cannot be written to {tmp_path} (" in said
        assert f"it takes {files.format_bytes(size)}, and" in said and "free there" in said
        assert path.read_bytes() == b"old" and not hidden(tmp_path)
    assert with_full_disk(write, size) == ""
    assert path.stat().st_size == size


def test_an_image_survives_kills_at_random_moments(tmp_path: Path) -> None:
    """A program that writes two images in turn, without end, killed as the system and people kill."""
    images, path, moments = [noise(0, 200), noise(1, 200)], tmp_path / "out.png", random.Random(0)
    save_image(images[0], path)

    def forever() -> None:
        for image in itertools.cycle(images):
            save_image(image, path)

    for kind in [signal.SIGKILL] * 30 + [signal.SIGTERM] * 10 + [signal.SIGINT] * 10:
        assert run_in_fork(forever, (kind, moments.uniform(0, 0.02))) != 0
        assert any(same(path, image) for image in images)


def test_what_killed_writers_left_is_removed_when_it_is_old(tmp_path: Path) -> None:
    names = ("0123456789ab", "0123456789ac", "2 of my film", "0123456789ab.mp4")
    fresh, old, *foreign = (tmp_path / f"{files.PART}{name}" for name in names)
    for path in (fresh, old, *foreign):
        path.write_bytes(b"half")
    hours_ago = time.time() - 2 * files.STALE
    for path in (old, *foreign):
        os.utime(path, (hours_ago, hours_ago))
    files.write_bytes(tmp_path / "new", b"1")
    assert not old.exists() and all(path.exists() for path in (fresh, *foreign))


def test_permissions_and_links_stay(tmp_path: Path) -> None:
    target, link = tmp_path / "target.txt", tmp_path / "link.txt"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    files.write_text(link, "néw")
    assert link.is_symlink() and target.read_text(encoding="utf-8") == "néw"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_pipe_is_written_to_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        files.write_text(pipe, "through")
        assert reader.stdout is not None and reader.stdout.read() == b"through"
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"^out.txt cannot be written to .*nowhere \(No such file or directory\)\.$"):
        files.write_text(tmp_path / "nowhere" / "out.txt", "text")
    with pytest.raises(InputError, match=r"'out.words'; end the name in .png"):
        save_image(noise(0), tmp_path / "out.words")


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if not path.name.startswith(".")}


def test_files_that_belong_together_change_at_once(tmp_path: Path) -> None:
    old = {"a": "old", "b": "old"}
    new = {"a": "new", "c": "new"}

    def write(texts: dict[str, str]) -> None:
        files.replace_files(tmp_path, [(n, t.encode()) for n, t in texts.items()], owned="abc")

    (tmp_path / "README.md").write_text("a card")
    seen = set()
    for texts, before in ((old, {}), (new, old)):
        for _ in killed_at_every_step(lambda texts=texts: write(texts)):
            files.recover_files(tmp_path)
            now = content(tmp_path)
            assert now.pop("README.md") == "a card"
            assert now in (before, texts)
            seen.add(now == texts)
            write(before) if before else [(tmp_path / name).unlink() for name in now]
        files.recover_files(tmp_path)
        assert content(tmp_path) == {**texts, "README.md": "a card"} and not hidden(tmp_path)
    assert seen == {True, False}


def test_what_fails_before_all_is_written_changes_nothing(tmp_path: Path) -> None:
    files.replace_files(tmp_path, [("a", b"old")])

    def halfway() -> list[tuple[str, bytes]]:
        yield "a", b"new"  # type: ignore[misc]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.replace_files(tmp_path, halfway())
    assert content(tmp_path) == {"a": "old"} and not hidden(tmp_path)


def test_a_folder_of_someone_else_s_touches_nothing_outside(tmp_path: Path) -> None:
    """What a half-done `replace_files` left may be made up: it names files to remove, and to move."""
    folder, outside = tmp_path / "model", tmp_path / "outside"
    saved = folder / files.SAVED
    saved.mkdir(parents=True)
    outside.write_text("mine")
    names = ["../outside", str(outside), "x/../../outside", ".", "..", "a\0b", "\udcff"]
    for kept in (["b"], []):
        for name in kept:
            (saved / name).write_text("new")
        (folder / "old").write_text("old")
        (saved.parent / "moved").write_text("theirs")
        listed = "\n".join([*names, "../moved", *kept, "", *names, "old"])
        (saved / files.OBSOLETE).write_bytes(listed.encode("utf-8", "surrogateescape"))
        files.recover_files(folder)
        assert outside.read_text() == "mine" and not (folder / "old").exists() and not saved.exists()
        assert sorted(tmp_path.iterdir()) == [folder, outside]
        saved.mkdir()
    assert content(folder) == {"b": "new", "moved": "theirs"}


@pytest.mark.parametrize("name", [files.SAVED, files.SAVING])
def test_a_link_in_the_place_of_a_half_done_write_is_removed_and_not_followed(tmp_path: Path, name: str) -> None:
    folder, outside = tmp_path / "model", tmp_path / "outside"
    for place in (folder, outside):
        place.mkdir()
    (outside / files.OBSOLETE).write_text("a\n\nb")
    (outside / "a").write_text("theirs")
    (folder / "b").write_text("mine")
    (folder / name).symlink_to(outside)
    files.replace_files(folder, [("c", b"new")])
    assert content(folder) == {"b": "mine", "c": "new"}
    assert sorted(path.name for path in outside.iterdir()) == [files.OBSOLETE, "a"]


def test_a_folder_is_replaced_by_another_whenever_its_writer_is_killed(tmp_path: Path) -> None:
    new, place, old = (tmp_path / name for name in ("new", "place", "old"))

    def write(text: str) -> None:
        files.remove(new)
        new.mkdir()
        for name in "abc":
            (new / name).write_text(text)
        files.replace_folder(new, place, old)

    write("0")
    for step in killed_at_every_step(lambda: write("1")):
        found = place if place.exists() else old
        assert content(found) in (dict.fromkeys("abc", "0"), dict.fromkeys("abc", "1")), step
        write("0")  # the next save works, whatever was left
        assert content(place) == dict.fromkeys("abc", "0") and not old.exists() and not new.exists()


def test_models_and_states_are_safe_on_the_disk_before_they_are_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No test can cut the power; it can see what the system is told, and when."""
    safe: set[int] = set()
    move = Path.rename

    def moved(path: Path, target: Path) -> Path:
        if target.name != "old":
            assert {one.stat().st_ino for one in [path, *path.rglob("*")]} <= safe
            seen.append(target.name)
        return move(path, target)

    seen: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: safe.add(os.fstat(handle).st_ino))
    monkeypatch.setattr(Path, "rename", moved)
    files.replace_files(tmp_path / "model", [("a", b"1"), ("b", b"2")])
    for _ in range(2):
        safe.clear()
        (tmp_path / "new" / "inner").mkdir(parents=True)
        (tmp_path / "new" / "inner" / "a").write_text("1")
        files.replace_folder(tmp_path / "new", tmp_path / "state", tmp_path / "old")
    assert seen == [files.SAVED, "state", "state"]


def test_sizes_are_said_as_people_read_them() -> None:
    sizes = [0, 999, 1000, 2_345_678, 40_000_000_000]
    assert [files.format_bytes(size) for size in sizes] == ["0 bytes", "999 bytes", "1.0 kB", "2.3 MB", "40.0 GB"]
