"""The command line, run as a person runs it."""

import signal
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from fake_models import hat_model
from PIL import Image, ImageSequence
from tiny_models import tiny_model

from imagebart import model
from imagebart.cli import demo, draw, main
from imagebart.cli.main import run
from imagebart.cli.options import command
from imagebart.core.settings import SamplingSettings
from imagebart.imaging.files import Recipe, read_recipe, write_png
from imagebart.pipeline import Pipeline


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (45, 61, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    return tmp_path / "in.png"


def test_edit_changes_the_mask_only_and_a_seed_repeats(model: Path, upload: Path, tmp_path: Path) -> None:
    common = ["edit", "--model", str(model), "--image", str(upload), "--mask", "upper half", "--prompt", "red hair"]
    outs = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    for out, seed in zip(outs, ("7", "7", "8"), strict=True):
        assert main([*common, "--seed", seed, "--out", str(out)]) == 0
    before, a, b, c = (np.asarray(Image.open(path)) for path in (upload, *outs))
    assert (a == b).all()
    assert (a != c).any()
    assert (a[22:] == before[22:]).all()
    assert (a[:22] != before[:22]).any()


def test_each_note_is_said_once_though_it_comes_with_the_result(
    model: Path, upload: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit = ["edit", "--model", str(model), "--image", str(upload), "--mask", "upper half", "--prompt", "zebra, hat"]
    assert main([*edit, "--seed", "7", "--out", str(tmp_path / "a.png")]) == 0
    said = capsys.readouterr().err
    assert said.count("expect odd results") == 1 and said.count("zebra") == 1


def test_a_mask_is_found_by_the_words_and_an_image_described(
    upload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Seen:
        def score(self, images: object, prompt: str) -> object: ...
        def contrast(self, image: object, prompt: str) -> None: ...
        def describe(self, image: object) -> str:
            return "a hat and a beard"

    pipe = Pipeline(hat_model(), scorer=Seen())  # type: ignore[arg-type]
    monkeypatch.setattr(Pipeline, "from_pretrained", lambda model: pipe)
    out = tmp_path / "o.png"
    command = ["edit", "--image", str(upload), "--mask", "auto", "--seed", "7", "--out", str(out)]
    assert main([*command, "--prompt", "a hat"]) == 0
    mask = np.asarray(pipe.suggest_mask(upload, "a hat")) > 0
    changed = (np.asarray(Image.open(out)) != np.asarray(Image.open(upload))).any(-1)
    assert changed[mask].any() and not changed[~mask].any()
    assert main(command) == 2
    assert "Without words" in capsys.readouterr().err
    assert main(["describe", str(upload)]) == 0
    assert capsys.readouterr().out == "a hat and a beard\n"


def test_generate_writes_every_variant_and_vary_keeps_the_size(model: Path, upload: Path, tmp_path: Path) -> None:
    out, varied = tmp_path / "new.png", tmp_path / "varied.png"
    assert main(["generate", "--model", str(model), "--prompt", "a hat", "--variants", "3", "--out", str(out)]) == 0
    assert sorted(p.name for p in tmp_path.glob("new*")) == ["new-2.png", "new-3.png", "new.png"]
    assert main(["vary", "--model", str(model), "--image", str(upload), "--strength", "0.2", "--out", str(varied)]) == 0
    assert (Image.open(out).size, Image.open(varied).size) == ((32, 32), (61, 45))


@pytest.mark.parametrize("options", [["--best-of", "2"], ["--variants", "2", "--best-first"]])
def test_the_best_is_found_by_a_judge_only(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    common = ["generate", "--model", str(model), "--prompt", "hair", "--out", str(tmp_path / "out.png")]
    assert main([*common, *options]) == 2
    assert "scorer" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_of_several_classes_there_is_an_image_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_model("class").save_pretrained(tmp_path / "animals")
    out, upload = tmp_path / "new.png", tmp_path / "upload.png"
    common = ["--model", str(tmp_path / "animals"), "--prompt", "dog", "--prompt", "bird", "--out", str(out)]
    assert main(["generate", *common]) == 0
    written = [tmp_path / "new.png", tmp_path / "new-2.png"]
    assert capsys.readouterr().out.split() == [str(path) for path in written]
    recipes = [read_recipe(path) for path in written]
    assert [recipe and recipe.prompt for recipe in recipes] == ["dog", "bird"]
    Image.new("RGB", (32, 32)).save(upload)
    assert main(["edit", "--image", str(upload), "--mask", "auto", *common]) == 2
    assert "cannot find a place by words" in capsys.readouterr().err


@pytest.mark.parametrize("most", [2, 120])
def test_steps_are_an_animation_from_noise_to_the_result(
    model: Path, upload: Path, tmp_path: Path, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draw, "MOST_FRAMES", most)
    command = ["edit", "--model", str(model), "--image", str(upload), "--mask", "centre", "--seed", "1"]
    out, steps = tmp_path / "o.png", tmp_path / "run.webp"
    assert main([*command, "--out", str(out), "--steps-out", str(steps)]) == 0
    with Image.open(steps) as animation:
        assert animation.n_frames == 2 if most == 2 else animation.n_frames >= 3
        shown = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(animation)]
    before, after = np.asarray(Image.open(upload)), np.asarray(Image.open(out))
    assert (shown[-1] == after).all()
    assert (shown[0] != after).any()
    for frame in shown:
        assert (frame[:11] == before[:11]).all(), "above the mask"


def test_an_image_is_made_again_from_what_it_says(model: Path, upload: Path, tmp_path: Path) -> None:
    place = ["--model", str(model), "--image", str(upload), "--mask", "left half"]
    own = ["--prompt", "red hair", "--feather", "2", "--context", "0.5", "--top-k", "5"]
    one, two, other = (tmp_path / name for name in ("one.png", "two.png", "other.png"))
    assert main(["edit", *place, *own, "--variants", "2", "--out", str(one)]) == 0
    second = one.with_stem("one-2")
    recipe = read_recipe(second)
    assert recipe is not None
    assert (recipe.task, recipe.prompt, recipe.feather, recipe.context) == ("edit", "red hair", 2, 0.5)
    assert (recipe.settings.top_k, recipe.variant) == (5, 1)
    assert main(["edit", *place, "--like", str(second), "--out", str(two)]) == 0
    first, again = np.asarray(Image.open(second), int), np.asarray(Image.open(two), int)
    assert np.abs(first - again).max() <= 1  # rounding of batched sums
    assert main(["edit", *place, "--like", str(second), "--seed", "3", "--out", str(other)]) == 0
    assert read_recipe(other) == recipe.replace(seed=3, variant=0)


def test_another_model_is_pointed_out_and_what_a_file_says_does_not_steer_the_terminal(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b]0;mine\x07\x1b[2J\u202e\x9b"
    recipe = Recipe(model=evil, task="generate", prompt=f"zebra{evil}", seed=1)
    write_png(Image.new("RGB", (32, 32)), tmp_path / "old.png", recipe)
    command = ["generate", "--like", str(tmp_path / "old.png"), "--out", str(tmp_path / "new.png"), "--model"]
    assert main([*command, str(model)]) == 0
    assert read_recipe(tmp_path / "new.png") == recipe.replace(model="tiny")
    assert main([*command, f"no model {evil}"]) == 2
    said = capsys.readouterr().err
    assert "old.png was made by the model" in said and "; this one is tiny." in said
    assert said.count(r"\x1b]0;mine\x07") == 2
    assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(said)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--temperature", "0"], "'--temperature': Input should be greater than or equal to 0.01"),
        (["--mask", "nowhere.png"], "nowhere.png"),
        (["--variants", "99"], "variants is 99"),
        (["--variants", "2", "--best-of", "2"], "leave out --variants"),
        (["--top-p", "0"], "top_p is 0, expected over 0"),
        (["--context", "-1"], "context is -1"),
        (["--steps-out", "run.mp4"], "'run.mp4'; end the name in .webp"),
        (["--out", "../both.webp", "--steps-out", "../x/../both.webp"], "--out and --steps-out are both both.webp"),
        (["--out", "no/such/folder/o.png"], "no folder no/such/folder"),
        (["--out", "picture.words"], "'picture.words'; end the name in .png"),
        (["--like", "in.png"], "in.png is no PNG that says how it was made"),
    ],
)
def test_bad_input_is_one_sentence(
    model: Path, upload: Path, tmp_path: Path, extra: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["edit", "--model", str(model), "--image", str(upload), "--mask", "centre"]
    assert main([*options, "--out", str(tmp_path / "o.png"), *extra]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "o.png").exists()


@pytest.mark.parametrize("command", [["edit"], ["vary"], ["generate"], ["evaluate", "typed"], ["train", "stage"], []])
@pytest.mark.parametrize(
    "extra",
    [
        *(["--seed=--"], ["--seed", "1e400"], ["--seed=" + "9" * 5000], ["--seed"], ["--"], ["-"], [""], ["--=", "x"]),
        *(["--out=\0"], ["--image=\0", "--out", "o.png", "--mask", "m"], ["\udcff"], ["--nonsense"]),
    ],
)
def test_hostile_arguments_are_one_sentence(
    command: list[str], extra: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, *extra]) == 2
    said = capsys.readouterr().err
    assert said.startswith("imagebart") and said.count("\n") == 1
    assert "Traceback" not in said


def test_help_names_all_settings_with_their_ranges(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["edit", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')}" in said for name in SamplingSettings.model_fields)
    assert "0.01<=x<=100" in said and "1<=x<=8" in said


def test_a_file_that_ends_too_early_is_bad_input_and_no_ctrl_d(capsys: pytest.CaptureFixture[str]) -> None:
    commands = typer.Typer()

    @command(commands)
    def read(path: str) -> None:
        raise EOFError("Ran out of input")

    assert run(commands, "reader", ["a"]) == 2
    assert "A file ended too early: Ran out of input" in capsys.readouterr().err


def test_without_a_command_it_says_what_it_can_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    said = capsys.readouterr().out
    assert all(f" {name} " in said for name in ("demo", "generate", "edit", "vary", "describe", "train"))


def test_a_taken_port_is_named(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "set_environment", lambda: None)
    handler = signal.getsignal(signal.SIGTERM)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["demo", "--model", str(model), "--port", str(port)]) == 2
    signal.signal(signal.SIGTERM, handler)
    said = capsys.readouterr().err
    assert f"Port {port} is taken" in said and said.count("\n") == 1


@pytest.mark.parametrize("offered", [True, False])
def test_the_demo_opens_the_model_and_offers_tools_where_the_environment_says_so(
    model: Path, monkeypatch: pytest.MonkeyPatch, offered: bool
) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(demo, "set_environment", lambda: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("imagebart.ui.page.build_page", lambda models, seconds: models)
    monkeypatch.setattr("imagebart.ui.page.launch_page", lambda page, **options: opened.append((page, options)))
    monkeypatch.setenv("GRADIO_MCP_SERVER", str(offered))
    assert main(["demo", "--model", str(model), "--host", "0.0.0.0"]) == 0
    [(models, options)] = opened
    assert models.first.name == "tiny" and len(models.examples("tiny")) >= 6 and model.name in models.folders()
    assert options == {"server_name": "0.0.0.0", "server_port": None, "mcp_server": offered}


def test_a_folder_for_files_that_cannot_be_made_is_named(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "file"))
    for name in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY", "GRADIO_ANALYTICS_MAX_EVENTS"):
        monkeypatch.setenv(name, "")  # set by the command, and put back after the test
    assert main(["demo", "--model", str(model)]) == 2
    assert "set GRADIO_TEMP_DIR to a folder that can be written to" in capsys.readouterr().err


def test_without_weights_the_default_model_is_named_as_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "shipped_model", lambda name: None)
    assert main(["generate", "--out", str(tmp_path / "a.png")]) == 2
    assert "this installation has no weights of avatars" in capsys.readouterr().err


def test_the_default_model_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "avatars").mkdir()  # a folder of something else
    monkeypatch.chdir(tmp_path)
    shipped = model.locate("avatars")
    assert (shipped / "config.json").is_file() and (shipped / "examples").is_dir()
    tiny_model().save_pretrained(tmp_path / "avatars")
    assert model.locate("avatars") == Path("avatars")
