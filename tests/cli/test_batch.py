"""`imagebart edit` over a folder: many images, resumed."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagebart.cli import batch, main
from imagebart.imaging.files import read_recipe

COUNT = 5  # images


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images of two sizes, more than are edited at once."""
    monkeypatch.setattr(batch, "IMAGES_AT_ONCE", 3)
    random = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for number in range(COUNT):
        size = (32, 32, 3) if number % 2 else (40, 50, 3)
        Image.fromarray(random.integers(0, 256, size, np.uint8)).save(tmp_path / "in" / f"{number}.png")
    return tmp_path / "in"


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), int)


def edit(model: Path, image: Path, mask: Path | str, out: Path, *more: str) -> int:
    return main(["edit", "--model", str(model), "--image", str(image), "--mask", str(mask), "--out", str(out), *more])


def test_each_image_of_a_folder_is_as_from_a_command_of_its_own(
    model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prompts from three places, a mask for each; then what is done is left alone, and what is missing made again."""
    prompts = ["red hair", "", "a hat", "", ""]
    lines = [{"file_name": "0.png", "text": prompts[0]}, {"file_name": "1.png", "text": None}]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    (folder / "2.txt").write_text(prompts[2])
    for number in range(COUNT):
        mask = Image.new("L", Image.open(folder / f"{number}.png").size)
        mask.paste(128 if number == 2 else 255, (3, 4, 20, 9 + 2 * number))  # gray: a chain of its own
        mask.save(folder / f"{number}.mask.png")
    out, common = tmp_path / "new" / "out", ["--seed", "5", "--feather", "2"]
    assert edit(model, folder, folder, out, *common) == 0
    written = sorted(out.iterdir())
    assert capsys.readouterr().out.split() == [str(path) for path in written]
    assert [path.name for path in written] == [f"{number}.png" for number in range(COUNT)]
    for number, prompt in enumerate(prompts):
        alone, words = tmp_path / "alone.png", ["--prompt", prompt] if prompt else []
        assert edit(model, folder / f"{number}.png", folder / f"{number}.mask.png", alone, *common, *words) == 0
        assert np.abs(pixels(alone) - pixels(written[number])).max() <= 1  # rounding of batched sums
        assert (read_recipe(alone).prompt or "") == (read_recipe(written[number]).prompt or "") == prompt
    times = {path: path.stat().st_mtime_ns for path in written}
    written[3].unlink()
    capsys.readouterr()
    assert edit(model, folder, folder, out, *common) == 0
    assert capsys.readouterr().out.split() == [str(written[3])]
    assert [path for path in written if path.stat().st_mtime_ns != times[path]] == [written[3]]


def test_images_that_cannot_be_edited_are_named_and_the_others_are_edited(
    model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "1.png").write_bytes(b"no image")
    (folder / "2.txt").write_text("zebra")
    assert edit(model, folder, "upper half", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "1.png: The image file is not an image we can read" in said and "zebra" in said
    assert f"1 of {COUNT} images could not be edited" in said and "Traceback" not in said
    seeds = {read_recipe(path).seed for path in (tmp_path / "out").glob("*.png")}
    assert len(seeds) == COUNT - 1, "a new one for each"


@pytest.mark.parametrize("beside", [True, False])
def test_an_image_without_a_mask_is_named_and_is_no_mask_itself(
    model: Path, folder: Path, tmp_path: Path, beside: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    masks, out = folder if beside else tmp_path / "masks", tmp_path / "out"
    masks.mkdir(exist_ok=True)
    for number in range(1, COUNT):
        name = f"{number}.mask.png" if beside or number % 2 else f"{number}.png"
        Image.new("L", Image.open(folder / f"{number}.png").size, 255).save(masks / name)
    assert edit(model, folder, masks, out) == 2
    said = capsys.readouterr().err
    assert "0.png: " in said and "0.mask.png" in said and f"1 of {COUNT} images could not be edited" in said
    assert len(list(out.glob("*.png"))) == COUNT - 1


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--out", "IN"], "--image and --out are the same folder"),
        (["--out", "new.png"], "--image is a folder, and so --out must be one"),
        (["--variants", "2"], "--variants is for one image"),
        (["--mask", "auto"], "--mask auto is for one image"),
        (["--image", "EMPTY"], "holds no images"),
        (["--image", "TWINS"], "0.jpg and 0.png would have the same result"),
        (["--image", "WORDS"], "cannot be read after 1 prompts ('text')"),
    ],
)
def test_what_a_folder_cannot_have_is_one_sentence(
    model: Path, folder: Path, tmp_path: Path, extra: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"IN": folder} | {name: tmp_path / name for name in ("EMPTY", "TWINS", "WORDS")}
    for name in ("EMPTY", "TWINS", "WORDS"):
        places[name].mkdir()
    for name in ("0.jpg", "0.png"):
        (places["TWINS"] / name).touch()
    (places["WORDS"] / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "hat"}\n{"file_name": "1.png"}\n')
    assert edit(model, folder, "centre", tmp_path / "out", *(str(places.get(word, word)) for word in extra)) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not (tmp_path / "out").exists()
