"""The whole way from a folder of images to a model, as its user takes it; killed, resumed, made longer."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from accelerate.state import AcceleratorState
from fault_injection import run_in_fork
from image_folders import draw_folder
from PIL import Image
from processes import in_processes
from safetensors.torch import load_file
from tiny_models import CAPTIONS, tiny_first_stage, tiny_model, tiny_staged_model
from tiny_runs import SHAPE, write_store
from torch import nn

from imagebart.cli.main import main
from imagebart.errors import InputError
from imagebart.models.vqgan import FirstStage
from imagebart.pipeline import Pipeline
from imagebart.text.conditioners import ClassConditioner, Conditioner, NoConditioner, TextConditioner
from imagebart.training.config import AdversarialLoss, FirstStageLoss, LoopConfig, ModelRun, StageShape
from imagebart.training.data import ImageStore
from imagebart.training.loop import Task, read_metrics
from imagebart.training.plan import read_plan, seconds_per_step
from imagebart.training.token_task import TokenDataset
from imagebart.training.train_model import load_denoiser_to_finetune, write_examples
from imagebart.training.vqgan import load_first_stage
from imagebart.ui.models import find_examples
from imagebart.weights import EXAMPLES, load_part

LICENCE, SHARE = ("--licence", "CC0"), {"first_stage_share": 0.9}  # few steps of the denoiser are left
STEPS = {"first_stage": 2, "decoder": 1, "denoiser": 2}
LOSS = FirstStageLoss(adversarial=AdversarialLoss(start_step=5, crop=32, channels=8))


def tiny_settings(folder: Path, **settings: Any) -> Path:
    """A file of settings, with networks so small that training takes seconds."""
    path = folder / "tiny.json"
    tiny = {
        "model": tiny_first_stage().model_dump(),
        "loss": LOSS.model_dump(),
        "shape": SHAPE.model_dump(),
        "batch_size": 4,
    }
    path.write_text(json.dumps({**tiny, **settings}))
    return path


def train_model(folder: Path, data: Path, *options: str, **settings: Any) -> int:
    if "RANK" not in os.environ:
        AcceleratorState._reset_state(reset_partial_state=True)
    given = ["--data", str(data), "--out", str(folder / "model"), "--hours", "0.0001"]
    return main(["train", "model", *given, "--config", str(tiny_settings(folder, **settings)), *options])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained on images with captions, in model/; the images, in data/."""
    folder = tmp_path_factory.mktemp("trained")
    assert train_model(folder, draw_folder(folder / "data", "text"), *LICENCE, **SHARE) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "prompt"), [("text", "a red square"), ("class", "green"), ("none", None)])
def test_from_a_folder_to_images(
    trained: Path, tmp_path: Path, kind: Literal["text", "class", "none"], prompt: str | None
) -> None:
    if kind != "text":
        assert train_model(tmp_path, draw_folder(tmp_path / "data", kind), *LICENCE) == 0
    folder = trained if kind == "text" else tmp_path
    pipe = Pipeline.from_pretrained(folder / "model")
    assert pipe.conditioning == kind and "Licence of the images: CC0." in pipe.card
    assert "20 images" in pipe.card and "4 held out" in pipe.card
    *_, result = pipe.generate(prompt, seed=0)
    assert result.image.size == (32, 32)
    with Image.open(folder / "data" / ("red/0.png" if kind == "class" else "0.png")) as image:
        mask = Image.new("L", image.size)
        mask.paste(255, (0, 20, 40, 40))
        *_, edited = pipe.edit(image, mask, prompt, seed=0)
        assert edited.image.crop((0, 0, 40, 20)).tobytes() == image.crop((0, 0, 40, 20)).tobytes()
    for part, metric in (("first-stage", "error"), ("denoiser", "loss")):
        rows = read_metrics(folder / "model" / "run" / part)
        assert rows[-1][metric] < rows[0][metric] and rows[-1]["step"] == 20
        assert (folder / "model" / "run" / part / "samples" / "0000020.png").is_file()
    assert (folder / "model" / "credits.csv").is_file() == (kind == "text")
    assert len(find_examples(folder / "model" / "examples")) == 4


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_model(tmp_path, draw_folder(tmp_path / "data", "text"), "--dry-run") == 0
    said = capsys.readouterr().out
    assert "24 images" in said and "32 × 32 pixels, 8 × 8 tokens of 24 codes" in said and "disk: " in said
    assert not (tmp_path / "model").exists()


def killed_at_move(work: Callable[[], Any], number: int) -> None:
    """Does the work until file or folder number `number` is about to be moved to its place, and is killed there."""
    moves = 0

    def count(event: str, _: Any) -> None:
        nonlocal moves
        if event == "os.rename":
            moves += 1
            if moves == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    work()


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_where_an_unbroken_one_does(trained: Path, tmp_path: Path) -> None:
    """Half-way through checkpoints, metrics, tokens and the model's own files."""
    kills = 0

    def killed(kills: int) -> int:
        def train() -> int:
            return train_model(tmp_path, trained / "data", *LICENCE, **SHARE)

        return run_in_fork(lambda: killed_at_move(train, 6 + kills))

    while killed(kills) == -signal.SIGKILL:
        kills += 1
        assert kills < 30
    assert kills >= 5
    for name in ("first_stage", "denoiser", "text_encoder"):
        ours, theirs = (load_file(folder / "model" / f"{name}.safetensors") for folder in (tmp_path, trained))
        assert ours.keys() == theirs.keys() and all((ours[key] == theirs[key]).all() for key in ours), name


@pytest.mark.slow
def test_two_processes_train_a_model_together(tmp_path: Path) -> None:
    """They plan, train and wait for each other; only the first one writes. Resumed for more steps, too."""
    data, place = draw_folder(tmp_path / "data", "text"), tmp_path / "model" / "run" / "denoiser"
    for count in (2, 3):
        steps = {**STEPS, "denoiser": count}
        assert in_processes(2, lambda steps=steps: train_model(tmp_path, data, steps=steps)) == [0, 0]
        assert [row["step"] for row in read_metrics(place)][-1] == count
    Pipeline.from_pretrained(tmp_path / "model")


@pytest.mark.slow
def test_more_hours_lengthen_a_run_with_a_given_first_stage(tmp_path: Path) -> None:
    tiny_model("none").save_pretrained(tmp_path / "given")
    data, place = draw_folder(tmp_path / "data", "text"), tmp_path / "model" / "run" / "denoiser"
    given = ["--first-stage", str(tmp_path / "given")]

    def steps() -> int:
        return int(json.loads(place.with_suffix(".json").read_text())["trained"])

    assert train_model(tmp_path, data, *given) == 0 and steps() == 20
    before = load_file(tmp_path / "model" / "denoiser.safetensors")
    assert train_model(tmp_path, data, *given, "--hours", "0.0006") == 0 and steps() > 20
    shown = [row["step"] for row in read_metrics(place)]
    assert shown == sorted(set(shown)) and 20 in shown and shown[-1] == steps(), "resumed, not started again"
    after = load_file(tmp_path / "model" / "denoiser.safetensors")
    assert any((before[key] != after[key]).any() for key in before)


@pytest.mark.slow
def test_more_hours_train_the_decoder_further_and_tokens_stay(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The denoiser learns from tokens that were encoded before, so images have to become the same ones."""
    data, run = trained / "data", tmp_path / "model" / "run"
    shutil.copytree(trained / "model", tmp_path / "model")
    tokens = load_file(run / "tokens" / "tokens-00000.safetensors")["tokens"]
    plan = json.loads((run / "plan.json").read_text())
    hours = str(2.5 * plan["steps"] * plan["seconds"] / 3600 / plan["run"]["first_stage_share"])
    assert train_model(tmp_path, data, "--hours", hours, **SHARE) == 0
    steps = json.loads((run / "decoder.json").read_text())["trained"]
    assert steps >= 20 and f"the decoder alone, {steps} steps" in capsys.readouterr().out
    rows = read_metrics(run / "decoder")
    assert rows[-1]["step"] == steps and rows[-1]["error"] < read_metrics(run / "first-stage")[-1]["error"]
    before, after = load_first_stage(run / "first-stage"), load_first_stage(run / "decoder")
    store = ImageStore(run / "pictures")
    images = store.images(range(len(store.index.names)))
    assert torch.equal(after.encode(images), before.encode(images))
    assert torch.equal(after.encode(images), tokens[:, 0].long())
    assert not torch.equal(after.decode(tokens[:, 0].long()), before.decode(tokens[:, 0].long()))
    card = Pipeline.from_pretrained(tmp_path / "model").card
    assert "- its decoder alone: " in card and f"{steps} steps" in card
    assert train_model(tmp_path, data, "--hours", hours, **SHARE) == 0
    assert "the decoder alone" not in capsys.readouterr().out, "nothing is left to do"


@pytest.mark.slow
def test_a_model_is_trained_further_on_other_images(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on another machine, where nothing but the finished model is."""
    initial = tmp_path / "model"
    shutil.copytree(trained / "model", initial, ignore=shutil.ignore_patterns("run"))
    more = draw_folder(tmp_path / "more", "text", count=30)
    given = ["--data", str(more), "--init-from", str(initial), "--hours", "0.0001", "--out", str(tmp_path / "new")]
    assert main(["train", "model", *given, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert f"first stage: initialised from {initial}" in said and "denoiser: 1 + 1 layers of 32" in said
    bare = ["--data", str(draw_folder(tmp_path / "bare", "none")), *given[2:]]
    assert main(["train", "model", *bare, "--dry-run"]) == 2
    assert "was trained with captions, the images have neither captions nor classes" in capsys.readouterr().err
    AcceleratorState._reset_state(reset_partial_state=True)
    assert main(["train", "model", *given]) == 0
    rows = read_metrics(tmp_path / "new" / "run" / "denoiser")
    before = read_metrics(trained / "model" / "run" / "denoiser")[-1]["loss"]
    assert rows[0]["loss"] < before and rows[-1]["step"] == 20
    card = Pipeline.from_pretrained(tmp_path / "new").card
    assert "- first stage: initialised from model." in card and "20 steps more, from model;" in card
    ours, theirs = (load_file(folder / "first_stage.safetensors") for folder in (tmp_path / "new", initial))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


# Those with a remedy each, and those that share one of these or need none.
RUN_FILES = (
    "plan.json",
    "denoiser.json",
    "pictures/pictures.json",
    "pictures/pixels.bin",
    "tokens/tokens-00000.safetensors",
    "first-stage/part.safetensors",
    "denoiser/state/step-0000002.safetensors",
)
OTHER_RUN_FILES = (
    "decoder.json",
    "first-stage/part.json",
    "denoiser/part.json",
    "denoiser/part.safetensors",
    "denoiser/figures.csv",
    "left-out.json",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of as many steps as asked for, in model/; its images, in data/."""
    folder = tmp_path_factory.mktemp("finished")
    assert train_model(folder, draw_folder(folder / "data", "text"), steps=STEPS) == 0
    return folder


@pytest.mark.slow
def test_steps_are_the_same_on_every_machine(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished / "model", tmp_path / "model")
    data, run = finished / "data", tmp_path / "model" / "run"

    def taken() -> dict[str, float]:
        return {part: read_metrics(run / part)[-1]["step"] for part in ("first-stage", "decoder", "denoiser")}

    assert taken() == {"first-stage": 2, "decoder": 1, "denoiser": 2}
    assert train_model(tmp_path, data, steps={**STEPS, "denoiser": 3}) == 0
    assert taken() == {"first-stage": 2, "decoder": 1, "denoiser": 3}
    assert "3 steps" in capsys.readouterr().out
    assert train_model(tmp_path, data, steps={**STEPS, "first_stage": 8}) == 2
    assert "started with first-stage steps 2, not 8" in capsys.readouterr().err
    assert train_model(tmp_path, data, "--batch-size", "8") == 2
    assert "started with batch size 4, not 8" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content"),
    [(name, b'{"foreign": [1]}') for name in RUN_FILES] + [(name, b"") for name in RUN_FILES + OTHER_RUN_FILES],
)
def test_a_damaged_file_of_a_run_is_named_and_the_run_goes_on_without_it(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes
) -> None:
    """The sentence says what to delete; with that deleted, the run is finished."""
    shutil.copytree(finished / "model" / "run", tmp_path / "model" / "run")
    path = tmp_path / "model" / "run" / name
    path.write_bytes(content)
    steps = {**STEPS, "denoiser": 3}
    code = train_model(tmp_path, finished / "data", steps=steps)
    error = capsys.readouterr().err
    if code == 2:
        (line,) = [line for line in error.splitlines() if line.startswith("imagebart")]
        assert str(path) in line and "Traceback" not in error
        found = re.search(r"; delete (\S+) to ", line)
        assert found is not None, line
        if content == b"":
            return  # the same way on for each content
        deleted = path if found[1] == "it" else Path(found[1])
        if deleted.is_dir():
            shutil.rmtree(deleted)
        else:
            deleted.unlink()
        assert train_model(tmp_path, finished / "data", steps=steps) == 0
    assert read_metrics(tmp_path / "model" / "run" / "denoiser")[-1]["step"] == 3
    Pipeline.from_pretrained(tmp_path / "model")


@pytest.mark.slow
def test_files_of_a_run_are_refused_wherever_they_are_cut(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished / "model" / "run", run)
    store, config = ImageStore(run / "pictures"), tiny_first_stage()
    readers: dict[str, Callable[[], object]] = {
        "plan.json": lambda: read_plan(run),
        "pictures/pictures.json": lambda: ImageStore(run / "pictures"),
        "pictures/pixels.bin": lambda: ImageStore(run / "pictures"),
        "tokens/tokens-00000.safetensors": lambda: TokenDataset(run / "tokens", store, [0], 8, config),
        "first-stage/part.json": lambda: load_part(run / "first-stage", FirstStage),
        "first-stage/part.safetensors": lambda: load_part(run / "first-stage", FirstStage),
    }
    for name, read in readers.items():
        read()
        whole = (run / name).read_bytes()
        for tenth in range(10):
            (run / name).write_bytes(whole[: len(whole) * tenth // 10])
            with pytest.raises(ValueError, match=f"{run / name} is damaged"):
                read()
        (run / name).write_bytes(whole)


def test_full_memory_is_said(tmp_path: Path) -> None:
    data, said = draw_folder(tmp_path / "data", "none"), tmp_path / "said"

    def work() -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, resource.RLIM_INFINITY))
        with said.open("w") as file, redirect_stderr(file):
            sys.exit(train_model(tmp_path, data, "--batch-size", "4096"))

    assert run_in_fork(work) == 1  # sys.exit raises in the child
    (line,) = [line for line in said.read_text().splitlines() if "The memory is full" in line]
    assert "what was trained is kept" in line and "a smaller --batch-size than 4096" in line


def test_a_step_is_timed_by_its_own_computation_on_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step's own time is counted there, neither that in which others had the cores nor that of threads that wait."""
    monkeypatch.setattr(os, "getloadavg", lambda: (50.0, 0.0, 0.0))
    before, threads = torch.get_num_threads(), []

    class Interrupted(Task):
        model, dataset = nn.Linear(1, 1), [{"x": torch.zeros(1)}]  # type: ignore[assignment]

        def loss(self, model: nn.Module, batch: dict[str, Any], accelerator: Any) -> dict[str, Any]:
            time.sleep(0.2)  # as when others have the cores
            threads.append(torch.get_num_threads())
            return {"loss": model(batch["x"]).sum()}

    config = LoopConfig(steps=1, batch_size=1, mixed_precision="no")
    assert seconds_per_step(Interrupted(), config) < 0.2
    assert set(threads) == {1} and torch.get_num_threads() == before
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    assert seconds_per_step(Interrupted(), config) >= 0.2


def test_a_step_of_many_images_is_timed_by_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    sizes = []

    class Counting(Task):
        model, dataset = nn.Linear(1, 1), [{"x": torch.zeros(1)}]  # type: ignore[assignment]

        def loss(self, model: nn.Module, batch: dict[str, Any], accelerator: Any) -> dict[str, Any]:
            sizes.append(len(batch["x"]))
            time.sleep(0.01)
            return {"loss": model(batch["x"]).sum()}

    assert seconds_per_step(Counting(), LoopConfig(steps=1, batch_size=4096, mixed_precision="no")) >= 1.28
    assert set(sizes) == {32}


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--hours", "0", "hours is 0, expected over 0"),
        ("--hours", "nan", "hours is nan"),
        ("--resolution", "100", "resolution is 100, expected one of 32, 64"),
        ("--batch-size", "0", "batch_size is 0, expected 1 or more"),
        ("--first-stage", "nowhere", "No first stage can be initialised from nowhere"),
        ("--init-from", "nowhere", "nowhere has its own shape"),
        ("--data", "./nowhere", "./nowhere is no folder"),
        ("--out", "", "the name is empty"),
        ("--out", __file__, f"{__file__} is a file"),
        ("--out", f"{__file__}/model", f"{__file__} is a file"),
    ],
)
def test_bad_settings_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, said: str
) -> None:
    assert train_model(tmp_path, tmp_path, option, value) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1
    assert not (tmp_path / "model").exists()


def test_a_denoiser_to_finetune_computes_the_same_for_the_words_it_knew(tmp_path: Path) -> None:
    model = tiny_model("text")
    model.save_pretrained(tmp_path, "float32")
    more = TextConditioner.from_captions([CAPTIONS[0], "an aardvark"], length=3)
    network, conditioner = load_denoiser_to_finetune(str(tmp_path), more)
    assert conditioner.length == model.conditioner.length and isinstance(conditioner, TextConditioner)
    assert conditioner.words == more.words and all(p.requires_grad for p in network.parameters())
    x = torch.arange(64)[None] % 24
    rates, none = torch.ones(1, 64), torch.zeros(1, 64)
    before = model.conditioner.encode([CAPTIONS[0]]).tokens
    after = conditioner.encode([CAPTIONS[0]]).tokens
    assert not torch.equal(before, after), "the words have other numbers now"
    assert model.denoiser is not None
    expected = model.denoiser.logits(x, x, rates, none, cond=before)
    assert torch.equal(network.eval().logits(x, x, rates, none, cond=after), expected)
    other = conditioner.encode(["an aardvark"]).tokens
    assert not torch.equal(network.logits(x, x, rates, none, cond=other), expected), "other words matter"


def test_a_model_s_first_stage_and_shape_are_loaded(tmp_path: Path) -> None:
    model = tiny_model("none")
    model.save_pretrained(tmp_path, "float32")
    ours, theirs = load_first_stage(tmp_path).state_dict(), model.first_stage.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    network, _ = load_denoiser_to_finetune(str(tmp_path), NoConditioner())
    assert StageShape.of(network.config) == StageShape(width=32, depth=1, heads=2, head_size=16, encoder_depth=1)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (NoConditioner(), "trained with captions, the images have neither captions nor classes"),
        (TextConditioner.from_captions(CAPTIONS, length=17), "up to 17 tokens, and the model in .* reads 16"),
    ],
)
def test_other_conditioning_is_said(tmp_path: Path, wanted: Conditioner, said: str) -> None:
    tiny_model("text").save_pretrained(tmp_path)
    with pytest.raises(InputError, match=f"{said}; .*--first-stage"):
        load_denoiser_to_finetune(str(tmp_path), wanted)


def test_other_classes_and_models_without_a_denoiser_are_said(tmp_path: Path) -> None:
    tiny_model("class").save_pretrained(tmp_path / "classes")
    with pytest.raises(InputError, match="trained with other classes than the images have"):
        load_denoiser_to_finetune(str(tmp_path / "classes"), ClassConditioner(names=("cat", "cow")))
    tiny_staged_model().save_pretrained(tmp_path / "stages")
    with pytest.raises(InputError, match="has stages, and one with a denoiser is expected"):
        load_denoiser_to_finetune(str(tmp_path / "stages"), NoConditioner())
    with pytest.raises(InputError, match="The model in nowhere cannot be trained further"):
        load_denoiser_to_finetune("nowhere", NoConditioner())


@pytest.mark.parametrize("other", [{"first_stage": "a model"}, {"shape": StageShape()}])
def test_what_the_initial_model_has_cannot_be_given(other: dict[str, object]) -> None:
    with pytest.raises(InputError, match="has its own (first stage|shape); leave out one of the two"):
        ModelRun(data="", hours=1.0, init_from="another", **other)  # type: ignore[arg-type]


def test_examples_are_as_different_as_possible(tmp_path: Path) -> None:
    """The last one was trained on, and is none of them."""
    texts = ("red roses", "red roses", "dark roses", "green apples, dark background", "red apples", "green lime")
    write_examples(write_store(tmp_path, texts, "text", held_out=5), tmp_path)
    prompts = [example.prompt for example in find_examples(tmp_path / EXAMPLES)]
    assert prompts == ["green apples, dark background", "red roses", "red roses", "dark roses"]
