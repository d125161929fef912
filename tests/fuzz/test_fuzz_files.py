"""Damaged images, checkpoints and models are read within limits or refused; interrupted writes leave whole files."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import struct
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from fault_injection import run_in_fork, with_full_disk
from fuzzing import ANYTHING, FuzzRun, limited, mutated
from PIL import Image
from published_files import CLASS_MODEL, RESIDUAL_MODEL, edit_entry
from tiny_models import tiny_model, tiny_staged_model

from imagebart.core.errors import InputError, WeightsError
from imagebart.imaging.files import (
    FORMATS,
    MAX_PIXELS,
    MIN_SIDE,
    Recipe,
    load_image,
    save_animation,
    save_image,
    write_png,
)
from imagebart.model import ImageBART
from imagebart.pipeline import Pipeline

MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
}


def image_file(random: Random) -> bytes:
    """An undamaged file of any format and mode, sometimes with several frames, or of a very large size."""
    kind = random.choice(FORMATS)
    mode = random.choice(MODES[kind])
    size = random.choice([(16, 16), (37, 50), (200, 17), (300, 300)])
    if random.random() < 0.03:
        size = random.choice([(1, 1), (6000, 6600), (6400, 6400), (40_000, 20)])
    shape = (size[1] // 8 + 1, size[0] // 8 + 1)
    image = Image.fromarray(np.random.default_rng(random.randrange(2**32)).integers(0, 256, shape, np.uint8))
    image = image.resize(size).convert("L").convert(mode) if mode != "CMYK" else Image.new(mode, size)
    frames = {}
    if kind == "WEBP" and max(size) < 1000 and random.random() < 0.1:
        frames = {"save_all": True, "append_images": [image]}
    file = BytesIO()
    try:
        image.save(file, kind, **frames)
    except (OSError, ValueError, RuntimeError):  # a size that this format does not know
        file = BytesIO()
        image.resize((32, 32)).save(file, kind)
    return file.getvalue()


def test_an_image_is_read_or_refused(fuzz_run: FuzzRun) -> None:
    read = 0
    for case, random in fuzz_run.cases(40, 4500):
        content = image_file(random)
        if random.random() < 0.9:
            content = mutated(content, random)
        try:
            with limited(case):
                image = load_image(content)
        except InputError as error:
            text = str(error)
            assert text.startswith("The image") and text.endswith(".") and len(text) < 300, (case, text)
        else:
            read += 1
            assert image.mode in ("RGB", "RGBA") and min(image.size) >= MIN_SIDE, case
            assert image.width * image.height <= MAX_PIXELS, case
    assert read, "every image was refused"


CANARY = "canary"
# Pickles that would make the canary, were they run; `test_checkpoint.py` shows that PyTorch's own reader runs such.
PROGRAMS = [
    f"cos\nmkdir\n(X{struct.pack('<I', len(CANARY)).decode()}{CANARY}tR".encode(),
    f"(S'mkdir {CANARY}'\nios\nsystem\n".encode(),
    f'c__builtin__\neval\n(S\'__import__("os").mkdir("{CANARY}")\'\ntR'.encode(),
    f"(cos\nmkdir\nS'{CANARY}'\no".encode(),
]
TAGGED = [f"!!python/object/apply:os.mkdir [{CANARY}]", f"!!python/object/new:os.system ['mkdir {CANARY}']"]
YAML_VALUES = [
    *("", "null", "true", "-1", "0", "1e999", ".nan", "9" * 400, "9" * 6000, "[]", "{}", "[1, 2]", "{a: b}", "*a"),
    *("x" * 3000, "'\\ud800'", "&a [*a, *a]", "2147483648", "1.5", "[[[[[[]]]]]]", "\0", "2001-01-01", *TAGGED),
]


def damage_bytes(path: Path, random: Random) -> None:
    path.write_bytes(mutated(path.read_bytes(), random))


def damage_yaml(path: Path, random: Random) -> None:
    """Another value for one of the settings, or damaged bytes."""
    if random.random() < 0.3:
        damage_bytes(path, random)
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    number = random.choice([number for number, line in enumerate(lines) if ":" in line])
    lines[number] = f"{lines[number].partition(':')[0]}: {random.choice(YAML_VALUES)}"
    path.write_text("\n".join(lines), encoding="utf-8")


def damage_pickle(path: Path, random: Random) -> None:
    """Another pickle in the checkpoint: damaged, or with a program that would make the canary inside it."""
    with zipfile.ZipFile(path) as archive:
        (entry,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        pickled = archive.read(entry)
    if random.random() < 0.5:
        place = random.randrange(len(pickled))
        pickled = pickled[:place] + random.choice(PROGRAMS) + pickled[place:]
    else:
        pickled = mutated(pickled, random)
    edit_entry(path, "data.pkl", pickled)


@pytest.mark.parametrize("source", [CLASS_MODEL, RESIDUAL_MODEL], ids=lambda path: path.name)
def test_a_published_model_is_loaded_or_refused(
    fuzz_run: FuzzRun, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / source.name
    shutil.copytree(source, folder)
    original = {path: path.read_bytes() for path in folder.iterdir()}
    checkpoints, texts = (sorted(folder.glob(f"*.{ending}")) for ending in ("ckpt", "yaml"))
    refused = 0
    for case, random in fuzz_run.cases(12, 3000):
        damage = random.choice([damage_yaml, damage_pickle, damage_bytes])
        path = random.choice(texts if damage is damage_yaml else checkpoints)
        damage(path, random)
        try:
            with limited(case):
                assert isinstance(ImageBART.from_pretrained(folder), ImageBART), case
        except WeightsError as error:
            refused += 1
            assert source.name in str(error) and "\n" not in str(error), (case, error)
        path.write_bytes(original[path])
    assert not (tmp_path / CANARY).exists(), "a program in a file was run"
    assert refused


LARGE_VALUES: list[Any] = [[[]] * 500, ["x"] * 500, {"type": "clip", "length": 10**9}]


def damage_json(path: Path, random: Random) -> None:
    """Another value anywhere in a configuration, or one less, or damaged bytes."""
    if random.random() < 0.2:
        damage_bytes(path, random)
        return
    values = json.loads(path.read_text(encoding="utf-8"))
    for _ in range(random.choice([1, 1, 2])):
        place: Any = values
        while True:
            keys = list(place) if isinstance(place, dict) else range(len(place))
            if not keys:
                break
            key = random.choice(keys)
            if isinstance(place[key], dict | list) and random.random() < 0.8:
                place = place[key]
            elif random.random() < 0.1:
                del place[key]
                break
            else:
                place[key] = random.choice(ANYTHING + LARGE_VALUES)
                break
    path.write_text(json.dumps(values), encoding="utf-8")


@pytest.mark.parametrize("make", [tiny_model, tiny_staged_model])
def test_a_model_folder_is_loaded_or_refused(fuzz_run: FuzzRun, tmp_path: Path, make: Any) -> None:
    folder = tmp_path / "ours"
    make("text").save_pretrained(folder)
    (folder / "README.md").write_text("---\ntags: [x]\n---\nA card.", encoding="utf-8")
    original = {path: path.read_bytes() for path in folder.iterdir()}
    refused = 0
    for case, random in fuzz_run.cases(12, 1000):
        path = random.choice([folder / "config.json", *original])
        (damage_json if path.name == "config.json" else damage_bytes)(path, random)
        try:
            with limited(case):
                pipe = Pipeline.from_pretrained(folder)
                assert pipe.knows is not None and pipe.vocabulary is not None and pipe.suggestions is not None, case
        except WeightsError as error:
            refused += 1
            assert folder.name in str(error) and "\n" not in str(error), (case, error)
        path.write_bytes(original[path])
    assert refused


IMAGES = [Image.fromarray(np.random.default_rng(seed).integers(0, 256, (120, 120, 3), np.uint8)) for seed in range(2)]
RECIPE = Recipe(model="tiny", task="generate", prompt="a hat", seed=1)
WRITERS: dict[str, Callable[[Path, int], Any]] = {
    "image with a recipe": lambda folder, which: write_png(IMAGES[which], folder / "out.png", RECIPE),
    "image": lambda folder, which: save_image(IMAGES[which], folder / "out.jpg"),
    "animation": lambda folder, which: save_animation([IMAGES[which]] * 2, folder / "out.webp", 1.0),
}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.mark.parametrize("name", WRITERS)
def test_files_are_whole_whatever_ends_their_writer(fuzz_run: FuzzRun, tmp_path: Path, name: str) -> None:
    """Killed, interrupted, or on a full disk: a file is the old one or the new one."""
    write, whole = WRITERS[name], []
    for which in (1, 0):
        write(tmp_path, which)
        whole.append(content(tmp_path))

    def write_forever() -> None:
        for which in itertools.cycle([1, 0]):
            write(tmp_path, which)

    size = max(len(file) for file in whole[0].values())
    for case, random in fuzz_run.cases(4, 100):
        if random.random() < 0.3:
            error = with_full_disk(lambda: write(tmp_path, 1), random.randrange(size))
            assert "cannot be written to" in error and "free there" in error, case
        else:
            kind = random.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
            assert run_in_fork(write_forever, (kind, random.uniform(0, 0.05))) != 0, case
        assert content(tmp_path) in whole, case
    shutil.rmtree(tmp_path)
