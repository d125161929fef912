"""The command line, run as a person runs it: one image, folders of them, published models, the demo."""

import json
import shutil
import signal
import socket
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from fake_models import hat_model
from loopback import apart_from_the_net, serving_file
from PIL import Image, ImageSequence
from published_files import package_of, write_tiny
from tiny_models import tiny_model

from imagebart import model as models
from imagebart.cli import batch, demo, draw, main
from imagebart.cli.models import check_model
from imagebart.core.settings import SamplingSettings
from imagebart.imaging.files import Recipe, read_recipe, write_png
from imagebart.pipeline import Pipeline
from imagebart.weights.registry import MODELS

Said = pytest.CaptureFixture[str]
COUNT = 5  # images of a folder
PUBLISHED = "ffhq_4_scales_geometric"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny text model."""
    folder = tmp_path_factory.mktemp("model")
    tiny_model("text").save_pretrained(folder)
    return folder


def write_noise(path: Path, width: int, height: int) -> Path:
    Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """in.png, of 61 x 45 pixels, in the working folder."""
    monkeypatch.chdir(tmp_path)
    return write_noise(tmp_path / "in.png", 61, 45)


def edit(model: Path, mask: Path | str, out: Path | str, *more: str, image: Path | str = "in.png") -> int:
    return main(["edit", "--model", str(model), "--image", str(image), "--mask", str(mask), "--out", str(out), *more])


def pixels(name: Path | str) -> np.ndarray:
    return np.asarray(Image.open(name), int)


def test_edit_changes_the_mask_only_and_a_seed_repeats(model: Path, upload: Path, capsys: Said) -> None:
    for out, seed in (("a.png", "7"), ("b.png", "7"), ("c.png", "8")):
        assert edit(model, "upper half", out, "--prompt", "zebra, hat", "--seed", seed) == 0
        said = capsys.readouterr().err
        assert said.count("expect odd results") == 1 and said.count("zebra") == 1, "each note once"
    before, a, b, c = (pixels(name) for name in ("in.png", "a.png", "b.png", "c.png"))
    assert (a == b).all() and (a != c).any()
    assert (a[22:] == before[22:]).all() and (a[:22] != before[:22]).any()


def test_words_find_a_mask_and_describe_an_image(upload: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    scorer = Mock(spec=["score", "contrast", "describe"])
    scorer.contrast.return_value, scorer.describe.return_value = None, "a hat and a beard"
    pipe = Pipeline(hat_model(), scorer=scorer)
    monkeypatch.setattr(Pipeline, "from_pretrained", lambda model: pipe)
    assert edit(Path("any"), "auto", "o.png", "--seed", "7", "--prompt", "a hat") == 0
    mask = np.asarray(pipe.suggest_mask(upload, "a hat")) > 0
    changed = (pixels("o.png") != pixels("in.png")).any(-1)
    assert changed[mask].any() and not changed[~mask].any()
    assert edit(Path("any"), "auto", "o.png") == 2
    assert "Without words" in capsys.readouterr().err
    assert main(["describe", "in.png"]) == 0
    assert capsys.readouterr().out == "a hat and a beard\n"


def test_generate_writes_every_variant_and_vary_keeps_the_size(model: Path, upload: Path, capsys: Said) -> None:
    assert main(["generate", "--model", str(model), "--prompt", "a hat", "--variants", "3", "--out", "new.png"]) == 0
    assert capsys.readouterr().out.split() == ["new.png", "new-2.png", "new-3.png"]
    assert main(["vary", "--model", str(model), "--image", "in.png", "--strength", "0.2", "--out", "varied.png"]) == 0
    assert (Image.open("new-3.png").size, Image.open("varied.png").size) == ((32, 32), (61, 45))


def test_of_several_classes_there_is_an_image_each(upload: Path, capsys: Said) -> None:
    tiny_model("class").save_pretrained(Path("animals"))
    prompts = ["--prompt", "dog", "--prompt", "bird"]
    assert main(["generate", "--model", "animals", *prompts, "--out", "new.png"]) == 0
    recipes = [read_recipe(Path(name)) for name in capsys.readouterr().out.split()]
    assert [recipe and recipe.prompt for recipe in recipes] == ["dog", "bird"]
    assert edit(Path("animals"), "auto", "new.png", *prompts) == 2
    assert "cannot find a place by words" in capsys.readouterr().err


@pytest.mark.parametrize("most", [2, 120])
def test_steps_are_an_animation(model: Path, upload: Path, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw, "MOST_FRAMES", most)
    assert edit(model, "center", "o.png", "--seed", "1", "--steps-out", "run.webp") == 0
    with Image.open("run.webp") as animation:
        assert animation.n_frames == 2 if most == 2 else animation.n_frames >= 3
        shown = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(animation)]
    after = pixels("o.png")
    assert (shown[-1] == after).all() and (shown[0] != after).any()
    assert all((frame[:11] == pixels("in.png")[:11]).all() for frame in shown), "above the mask"


def test_an_image_is_made_again_from_what_it_says(model: Path, upload: Path) -> None:
    own = ["--prompt", "red hair", "--feather", "2", "--context", "0.5", "--top-k", "5"]
    assert edit(model, "left half", "one.png", *own, "--variants", "2") == 0
    recipe = read_recipe(Path("one-2.png"))
    assert (recipe.task, recipe.prompt, recipe.feather, recipe.context) == ("edit", "red hair", 2, 0.5)
    assert (recipe.settings.top_k, recipe.variant) == (5, 1)
    assert edit(model, "left half", "two.png", "--like", "one-2.png") == 0
    assert np.abs(pixels("one-2.png") - pixels("two.png")).max() <= 1  # rounding of batched sums
    assert edit(model, "left half", "other.png", "--like", "one-2.png", "--seed", "3") == 0
    assert read_recipe(Path("other.png")) == recipe.replace(seed=3, variant=0)


def test_what_a_file_says_does_not_steer_the_terminal(model: Path, upload: Path, capsys: Said) -> None:
    evil = "\x1b]0;mine\x07\x1b[2J\u202e\x9b"
    recipe = Recipe(model=evil, task="generate", prompt=f"zebra{evil}", seed=1)
    write_png(Image.new("RGB", (32, 32)), Path("old.png"), recipe)
    again = ["generate", "--like", "old.png", "--out", "new.png", "--model"]
    assert main([*again, str(model)]) == 0
    assert read_recipe(Path("new.png")) == recipe.replace(model="tiny")
    assert main([*again, f"no model {evil}"]) == 2
    said = capsys.readouterr().err
    assert "old.png was made by the model" in said and "; this one is tiny." in said
    assert said.count(r"\x1b]0;mine\x07") == 2
    assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(said)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images of two sizes, more than are edited at once."""
    monkeypatch.setattr(batch, "IMAGES_AT_ONCE", 3)
    (tmp_path / "in").mkdir()
    for number in range(COUNT):
        write_noise(tmp_path / "in" / f"{number}.png", *((32, 32) if number % 2 else (50, 40)))
    return tmp_path / "in"


def test_a_folder_is_edited_as_its_images_are_alone(model: Path, folder: Path, tmp_path: Path, capsys: Said) -> None:
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
    assert edit(model, folder, out, *common, image=folder) == 0
    written = sorted(out.iterdir())
    assert capsys.readouterr().out.split() == [str(path) for path in written]
    assert [path.name for path in written] == [f"{number}.png" for number in range(COUNT)]
    for number, prompt in enumerate(prompts):
        alone, words = tmp_path / "alone.png", ["--prompt", prompt] if prompt else []
        image, mask = (folder / f"{number}{kind}.png" for kind in ("", ".mask"))
        assert edit(model, mask, alone, *common, *words, image=image) == 0
        assert np.abs(pixels(alone) - pixels(written[number])).max() <= 1  # rounding of batched sums
        assert (read_recipe(alone).prompt or "") == (read_recipe(written[number]).prompt or "") == prompt
    times = {path: path.stat().st_mtime_ns for path in written}
    written[3].unlink()
    capsys.readouterr()
    assert edit(model, folder, out, *common, image=folder) == 0
    assert capsys.readouterr().out.split() == [str(written[3])]
    assert [path for path in written if path.stat().st_mtime_ns != times[path]] == [written[3]]


@pytest.mark.parametrize("beside", [True, False])
def test_images_with_no_mask_are_named(model: Path, folder: Path, tmp_path: Path, beside: bool, capsys: Said) -> None:
    """So is what is no image. Masks lie beside the images, or in a folder of their own. The others are edited."""
    masks, out = folder if beside else tmp_path / "masks", tmp_path / "out"
    masks.mkdir(exist_ok=True)
    for number in range(1, COUNT):
        name = f"{number}.mask.png" if beside or number % 2 else f"{number}.png"
        Image.new("L", Image.open(folder / f"{number}.png").size, 255).save(masks / name)
    (folder / "1.png").write_bytes(b"no image")
    (folder / "2.txt").write_text("zebra")
    assert edit(model, masks, out, image=folder) == 2
    said = capsys.readouterr().err
    assert "0.png: " in said and "0.mask.png" in said and "zebra" in said and "Traceback" not in said
    assert "1.png: The image file is not an image we can read" in said
    assert f"2 of {COUNT} images could not be edited" in said
    assert len({read_recipe(path).seed for path in out.glob("*.png")}) == COUNT - 2, "a new one for each"


def test_from_nothing_to_an_edit(upload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    home = apart_from_the_net(tmp_path, monkeypatch) / "imagebart"
    published, converted = home / "published" / PUBLISHED, home / "converted" / PUBLISHED
    write_tiny(tmp_path / "files")
    with serving_file(package_of(tmp_path / "files", f"{PUBLISHED}/")) as server:
        server.breaks += [100_000]
        assert main(["download", PUBLISHED, "--from", server.address]) == 2  # random weights restore no image
    said = capsys.readouterr()
    assert said.out == f"{published}\n" and "The self-check failed (" in said.err and "dB): report it." in said.err
    assert Image.open(f"{published}.png").size == (16, 16)
    assert "codes, reconstruction 45." in check_model(shutil.copytree(models.locate("avatars"), tmp_path / "avatars"))
    assert main(["convert", PUBLISHED, "--dtype", "bfloat16", "--replace"]) == 0
    assert capsys.readouterr().out == f"{converted}\n"
    assert edit(Path(PUBLISHED), "upper half", "out.png", "--seed", "1") == 0
    before, edited = pixels("in.png"), pixels("out.png")
    assert (edited[22:] == before[22:]).all() and (edited[:22] != before[:22]).any()
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()[-len(MODELS) :]
    assert all(name in line for name, line in zip(MODELS, lines, strict=True))
    assert "photographs of faces" in lines[0] and "7.6 GB" in lines[0] and str(home) in lines[0]
    assert all("not here" in line for line in lines[1:])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, published files, an image, and folders with images and without."""
    here = tmp_path_factory.mktemp("place")
    tiny_model("text").save_pretrained(here / "model")
    write_tiny(here / "files", stages=2)
    write_noise(here / "in.png", 61, 45)
    for name in ("many/0.png", "twins/0.jpg", "twins/0.png", "words/0.png", "empty/0.txt"):
        (here / name).parent.mkdir(exist_ok=True)
        write_noise(here / name, 40, 40) if name.endswith(("png", "jpg")) else (here / name).touch()
    (here / "words" / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "hat"}\n{"file_name": "1.png"}\n')
    return here


EDIT = "edit --model model --image in.png --mask center --out o.png"
EDIT_MANY = "edit --model model --image many --mask center --out new"


def test_bad_input_is_one_sentence(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    apart_from_the_net(tmp_path, monkeypatch)
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    for line, said in (
        (f"{EDIT} --temperature 0", "'--temperature': Input should be greater than or equal to 0.01"),
        (f"{EDIT} --mask nowhere.png", "nowhere.png"),
        (f"{EDIT} --variants 2 --best-of 2", "leave out --variants"),
        (f"{EDIT} --steps-out run.mp4", "'run.mp4'; end the name in .webp"),
        (f"{EDIT} --out ../both.webp --steps-out ../x/../both.webp", "--out and --steps-out are both both.webp"),
        (f"{EDIT} --out no/such/folder/o.png", "no folder no/such/folder"),
        (f"{EDIT} --out picture.words", "'picture.words'; end the name in .png"),
        (f"{EDIT} --like in.png", "in.png is no PNG that says how it was made"),
        (f"{EDIT_MANY} --out many", "--image and --out are the same folder"),
        (f"{EDIT_MANY} --out new.png", "--image is a folder, and so --out must be one"),
        (f"{EDIT_MANY} --variants 2", "--variants is for one image"),
        (f"{EDIT_MANY} --mask auto", "--mask auto is for one image"),
        (f"{EDIT_MANY} --image empty", "holds no images"),
        (f"{EDIT_MANY} --image twins", "0.jpg and 0.png would have the same result"),
        (f"{EDIT_MANY} --image words", "cannot be read after 1 prompts ('text')"),
        ("generate --model cats_3_scales --out a.png", "cats_3_scales is not on this machine: run `"),
        ("convert cats_3_scales", "python -m imagebart download cats_3_scales"),
        ("convert files", "say with --out where the new one is to be"),
        ("convert files --out .", "choose a new or empty folder"),
    ):
        assert main(line.split()) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1 and len(error) < 1200, line
        assert sorted(place.rglob("*")) == before, "nothing is written"


def test_help_names_commands_and_settings_with_their_ranges(capsys: Said) -> None:
    assert main([]) == main(["edit", "--help"]) == 0
    said, settings = capsys.readouterr().out, [name.replace("_", "-") for name in SamplingSettings.model_fields]
    assert all(f" {name} " in said for name in ("demo", "generate", "edit", "vary", "describe", "train"))
    assert all(f"--{name}" in said for name in settings) and "0.01<=x<=100" in said and "1<=x<=8" in said


def test_a_file_that_ends_too_early_is_bad_input_and_no_ctrl_d(monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    monkeypatch.setattr(Pipeline, "from_pretrained", Mock(side_effect=EOFError("Ran out of input")))
    assert main(["generate", "--out", "o.png"]) == 2
    assert "A file ended too early: Ran out of input" in capsys.readouterr().err


@pytest.fixture
def same_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo sets no variables, and no handler of signals, that other tests would have."""
    monkeypatch.setattr(demo, "set_environment", lambda: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)


@pytest.mark.usefixtures("same_environment")
def test_a_taken_port_is_named(model: Path, capsys: Said) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["demo", "--model", str(model), "--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert f"Port {port} is taken" in said and said.count("\n") == 1


@pytest.mark.usefixtures("same_environment")
@pytest.mark.parametrize("offered", [True, False])
def test_the_demo_opens_the_model(model: Path, monkeypatch: pytest.MonkeyPatch, offered: bool) -> None:
    opened: list[Any] = []
    monkeypatch.setattr("imagebart.ui.page.build_page", lambda models, seconds: models)
    monkeypatch.setattr("imagebart.ui.page.launch_page", lambda page, **options: opened.append((page, options)))
    monkeypatch.setenv("GRADIO_MCP_SERVER", str(offered))
    assert main(["demo", "--model", str(model), "--host", "0.0.0.0"]) == 0
    [(page, options)] = opened
    assert page.first.name == "tiny" and len(page.examples("tiny")) >= 6 and model.name in page.folders()
    assert options == {"server_name": "0.0.0.0", "server_port": None, "mcp_server": offered}


def test_the_default_model_is_found_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    (tmp_path / "things").mkdir()  # a folder of something else
    monkeypatch.chdir(tmp_path)
    shipped = models.locate("things")
    assert (shipped / "config.json").is_file() and (shipped / "examples").is_dir()
    tiny_model().save_pretrained(tmp_path / "things")
    assert models.locate("things") == Path("things")
    monkeypatch.chdir("/")
    monkeypatch.setattr(models, "shipped_model", lambda name: None)
    assert main(["generate", "--out", str(tmp_path / "a.png")]) == 2
    assert "this installation has no weights of things" in capsys.readouterr().err
