"""`imagebart edit` over a folder: many images, resumed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagebart.cli import main
from imagebart.cli.batch import IMAGES_AT_ONCE
from imagebart.imaging.files import read_recipe


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of two sizes, one more than are edited at once."""
    place = tmp_path / "in"
    place.mkdir()
    random = np.random.default_rng(0)
    for number in range(IMAGES_AT_ONCE + 1):
        size = (32, 32, 3) if number % 2 else (40, 50, 3)
        Image.fromarray(random.integers(0, 256, size, np.uint8)).save(place / f"{number}.png")
    return place


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), int)


def test_each_image_of_a_folder_is_as_from_a_command_of_its_own(
    model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prompts from three places, a mask for each; then what is done is left alone, and what is missing made again."""
    prompts = ["red hair", "", "a hat"]
    lines = [{"file_name": "0.png", "text": prompts[0]}, {"file_name": "1.png", "text": None}]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    (folder / "2.txt").write_text(prompts[2])
    for path in folder.glob("*.png"):
        mask = Image.new("L", Image.open(path).size)
        strength = 128 if path.stem == "2" else 255  # a chain of its own
        mask.paste(strength, (3, 4, 20, 9 + 2 * int(path.stem)))
        mask.save(tmp_path / f"{path.stem}.mask.png")
    for path in tmp_path.glob("*.mask.png"):
        path.replace(folder / path.name)
    out = tmp_path / "new" / "out"
    common = ["edit", "--model", str(model), "--seed", "5", "--feather", "2"]
    whole = [*common, "--image", str(folder), "--mask", str(folder), "--out", str(out)]
    assert main(whole) == 0
    written = sorted(out.iterdir())
    assert capsys.readouterr().out.split() == [str(path) for path in written]
    assert [path.name for path in written] == [f"{number}.png" for number in range(IMAGES_AT_ONCE + 1)]
    for number in (0, 1, 2, IMAGES_AT_ONCE):
        alone = tmp_path / "alone.png"
        words = ["--prompt", prompts[number]] if number < len(prompts) and prompts[number] else []
        one = ["--image", str(folder / f"{number}.png"), "--mask", str(folder / f"{number}.mask.png")]
        assert main([*common, *one, *words, "--out", str(alone)]) == 0
        assert np.abs(pixels(alone) - pixels(written[number])).max() <= 1  # rounding of batched sums
        assert (read_recipe(alone).prompt or "") == (read_recipe(written[number]).prompt or "")
    times = {path: path.stat().st_mtime_ns for path in written}
    written[3].unlink()
    capsys.readouterr()
    assert main(whole) == 0
    assert capsys.readouterr().out.split() == [str(written[3])]
    assert [path for path in written if path.stat().st_mtime_ns != times[path]] == [written[3]]


def test_images_that_cannot_be_edited_are_named_and_the_others_are_edited(
    model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "1.png").write_bytes(b"no image")
    (folder / "2.txt").write_text("zebra")
    out = tmp_path / "out"
    command = ["edit", "--model", str(model), "--image", str(folder), "--mask", "upper half", "--out", str(out)]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "1.png: The image file is not an image we can read" in said and "zebra" in said
    assert f"1 of {IMAGES_AT_ONCE + 1} images could not be edited" in said and "Traceback" not in said
    assert len(list(out.glob("*.png"))) == IMAGES_AT_ONCE
    seeds = {read_recipe(path).seed for path in out.glob("*.png")}
    assert len(seeds) == IMAGES_AT_ONCE, "a new one for each"


@pytest.mark.parametrize("beside", [True, False])
def test_an_image_without_a_mask_is_named_and_is_no_mask_itself(
    model: Path, folder: Path, tmp_path: Path, beside: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = folder if beside else tmp_path / "masks"
    masks.mkdir(exist_ok=True)
    for number in range(1, IMAGES_AT_ONCE + 1):
        name = f"{number}.mask.png" if beside or number % 2 else f"{number}.png"
        Image.new("L", Image.open(folder / f"{number}.png").size, 255).save(masks / name)
    out = tmp_path / "out"
    assert main(["edit", "--model", str(model), "--image", str(folder), "--mask", str(masks), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "0.png: " in said and "0.mask.png" in said
    assert f"1 of {IMAGES_AT_ONCE + 1} images could not be edited" in said
    assert len(list(out.glob("*.png"))) == IMAGES_AT_ONCE


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--out", "IN"], "--image and --out are the same folder"),
        (["--out", "new.png"], "--image is a folder, and so --out must be one"),
        (["--variants", "2"], "--variants is for one image"),
        (["--mask", "auto"], "--mask auto is for one image"),
        (["--scales", "9"], "--scales"),
        (["--image", "EMPTY"], "holds no images"),
    ],
)
def test_what_a_folder_cannot_have_is_one_sentence(
    model: Path, folder: Path, tmp_path: Path, extra: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    extra = [{"IN": str(folder), "EMPTY": str(tmp_path / "empty")}.get(word, word) for word in extra]
    options = ["--image", str(folder), "--mask", "centre", "--out", str(tmp_path / "out")]
    assert main(["edit", "--model", str(model), *options, *extra]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_prompts_that_cannot_be_read_and_results_of_one_name_are_one_sentence(
    model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["edit", "--model", str(model), "--image", str(folder), "--mask", "centre"]
    command += ["--out", str(tmp_path / "out")]
    (folder / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "hat"}\n{"file_name": "1.png"}\n')
    assert main(command) == 2
    assert "cannot be read after 1 prompts ('text')" in capsys.readouterr().err
    (folder / "metadata.jsonl").unlink()
    (folder / "0.jpg").touch()
    assert main(command) == 2
    assert "0.jpg and 0.png would have the same result" in capsys.readouterr().err
