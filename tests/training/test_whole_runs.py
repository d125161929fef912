"""Whole runs: from a folder of images to a model, as its user takes it; the parts one by one; initialized, resumed."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image, ImageOps
from safetensors.torch import load_file
from tiny_models import CAPTIONS, tiny_first_stage, tiny_model, tiny_staged_model
from tiny_runs import SHAPE, SMALL, draw_folder, in_processes

from imagebart.cli.main import main
from imagebart.core.errors import InputError
from imagebart.model import ImageBART
from imagebart.models.vqgan import FirstStage
from imagebart.pipeline import Pipeline
from imagebart.text.conditioners import ClassConditioner, NoConditioner, TextConditioner
from imagebart.training.config import AdversarialLoss, DenoiserRun, FirstStageLoss, FirstStageRun, LoopConfig, StageRun
from imagebart.training.denoiser import train_denoiser
from imagebart.training.loop import read_log
from imagebart.training.stage import train_stages
from imagebart.training.token_task import conditioner_of, load_text_encoder
from imagebart.training.train_model import load_denoiser_to_finetune
from imagebart.training.vqgan import load_first_stage, train_first_stage
from imagebart.ui.models import find_examples
from recipes.avatars.training import CaptionsRun, avatar_data, train_captions

Said = pytest.CaptureFixture[str]
COLORS = {"dark": 20, "light": 235}  # and the classes that have them


def train_model(folder: Path, data: Path, *options: str, **steps: int) -> int:
    """Trains a model of tiny networks in folder/model for 12 steps a part, or as asked for."""
    if "RANK" not in os.environ:
        AcceleratorState._reset_state(reset_partial_state=True)
    loss = FirstStageLoss(adversarial=AdversarialLoss(start=0.5, crop=32, channels=8))
    parts = {"model": tiny_first_stage(), "shape": SHAPE, "loss": loss}
    settings = {name: part.model_dump(mode="json") for name, part in parts.items()} | {"batch_size": 4}
    if "--hours" not in options:
        settings["steps"] = {"first_stage": 12, "denoiser": 12} | steps
    folder.mkdir(exist_ok=True)
    (folder / "tiny.json").write_text(json.dumps(settings))
    given = ["--data", str(data), "--out", str(folder / "model"), "--config", str(folder / "tiny.json")]
    return main(["train", "model", *given, *options])


def held_out(folder: Path, part: str) -> list[dict[str, Any]]:
    return [record for record in read_log(folder / "model" / "run" / part) if "held_out" in record]


def same_tensors(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained on images with captions, in model/; the images, in data/."""
    folder = tmp_path_factory.mktemp("trained")
    assert train_model(folder, draw_folder(folder / "data", "text"), "--license", "CC0") == 0
    return folder


@pytest.mark.parametrize(
    ("kind", "prompt"),
    [
        pytest.param("text", "a red square", marks=pytest.mark.slow),
        pytest.param("class", "green", marks=pytest.mark.release),
        pytest.param("none", None, marks=pytest.mark.release),
    ],
)
def test_from_a_folder_to_images(trained: Path, tmp_path: Path, kind: Any, prompt: str | None) -> None:
    """The model generates and edits; both parts improved on held-out images; card, grids and examples are there."""
    folder = trained if kind == "text" else tmp_path
    if kind != "text":
        assert train_model(folder, draw_folder(folder / "data", kind), "--license", "CC0") == 0
    pipe = Pipeline.from_pretrained(folder / "model")
    assert pipe.conditioning == kind and "License of the images: CC0." in pipe.card
    assert "20 images" in pipe.card and "4 held out" in pipe.card
    *_, result = pipe.generate(prompt, seed=0)
    assert result.image.size == (32, 32)
    with Image.open(next((folder / "data").rglob("0.png"))) as image:
        mask = Image.new("L", image.size)
        mask.paste(255, (0, 20, 40, 40))
        *_, edited = pipe.edit(image, mask, prompt, seed=0)
        assert edited.image.crop((0, 0, 40, 20)).tobytes() == image.crop((0, 0, 40, 20)).tobytes()
    for part, metric in (("first-stage", "error"), ("denoiser", "loss")):
        first, *_, last = held_out(folder, part)
        assert last["held_out"][metric] < first["held_out"][metric] and last["step"] == 12
        assert (folder / "model" / "run" / part / "samples" / "0000012.png").is_file()
    assert len(find_examples(folder / "model" / "examples")) == 4


def test_a_dry_run_says_what_there_is_and_writes_nothing(tmp_path: Path, capsys: Said) -> None:
    assert train_model(tmp_path, draw_folder(tmp_path / "data", "text"), "--dry-run") == 0
    said = capsys.readouterr().out
    assert "24 images" in said and "32 × 32 pixels, 8 × 8 tokens of 24 codes" in said
    assert not (tmp_path / "model").exists()


@pytest.mark.release
def test_two_processes_train_a_model_together(tmp_path: Path) -> None:
    """Only the first one writes. Resumed for more steps, and until hours are over, too."""
    data = draw_folder(tmp_path / "data", "text")
    for count in (2, 3):
        assert in_processes(2, lambda n=count: train_model(tmp_path, data, first_stage=2, denoiser=n)) == [0, 0]
        assert held_out(tmp_path, "denoiser")[-1]["step"] == count
    assert in_processes(2, lambda: train_model(tmp_path, data, "--hours", "0.002")) == [0, 0]
    Pipeline.from_pretrained(tmp_path / "model")


@pytest.mark.slow
def test_a_stopped_run_ends_where_an_unbroken_one_does(trained: Path, tmp_path: Path, capsys: Said) -> None:
    shutil.copytree(trained / "model", tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "run" / "denoiser")
    for path in ("run/tokens.safetensors", "config.json", "model.safetensors"):
        (tmp_path / "model" / path).unlink()
    assert train_model(tmp_path, trained / "data", "--batch-size", "8") == 2
    assert "started with batch size 4, not 8" in capsys.readouterr().err
    assert train_model(tmp_path, trained / "data") == 0
    assert same_tensors(*(load_file(folder / "model" / "model.safetensors") for folder in (trained, tmp_path)))
    # More hours train the denoiser alone.
    used = sum(read_log(tmp_path / "model" / "run" / part)[-1]["hours"] for part in ("first-stage", "denoiser"))
    assert train_model(tmp_path, trained / "data", "--hours", str(used + 0.001)) == 0
    assert held_out(tmp_path, "denoiser")[-1]["step"] > 12
    assert same_tensors(*(load_first_stage(folder / "model").state_dict() for folder in (trained, tmp_path)))


@pytest.mark.slow
def test_a_model_is_trained_further_on_other_images(trained: Path, tmp_path: Path, capsys: Said) -> None:
    """As on another machine, where nothing but the finished model is."""
    initial = tmp_path / "initial"
    shutil.copytree(trained / "model", initial, ignore=shutil.ignore_patterns("run"))
    more = draw_folder(tmp_path / "more", "text", count=30)
    (tmp_path / "steps.json").write_text(json.dumps({"steps": {"denoiser": 12}}))
    given = ["--data", str(more), "--init-from", str(initial), "--config", str(tmp_path / "steps.json")]
    AcceleratorState._reset_state(reset_partial_state=True)
    assert main(["train", "model", *given, "--out", str(tmp_path / "model")]) == 0
    assert f"denoiser: that of {initial}, trained further" in capsys.readouterr().out
    untrained, after = held_out(trained, "denoiser")[0], held_out(tmp_path, "denoiser")
    assert after[0]["held_out"]["loss"] < untrained["held_out"]["loss"] and after[-1]["step"] == 12
    card = Pipeline.from_pretrained(tmp_path / "model").card
    assert "- first stage: that of initial." in card and "12 steps more, from initial;" in card
    assert same_tensors(*(load_first_stage(folder).state_dict() for folder in (tmp_path / "model", initial)))


def test_bad_settings_are_said(tmp_path: Path, capsys: Said) -> None:
    for option, value, said in (
        ("--resolution", "100", "resolution is 100, expected one of 32, 64"),
        ("--init-from", "nowhere", "nowhere has its own shape"),
        ("--data", "./nowhere", "./nowhere is no folder"),
        ("--out", f"{__file__}/model", f"{__file__} is a file"),
    ):
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
    given = x, x, torch.ones(1, 64), torch.zeros(1, 64)
    before, after = (one.encode([CAPTIONS[0]]).tokens for one in (model.conditioner, conditioner))
    assert not torch.equal(before, after), "the words have other numbers now"
    assert torch.equal(network.eval().logits(*given, cond=after), model.denoiser.logits(*given, cond=before))
    new = conditioner.encode(["aardvark"]).tokens
    assert not torch.equal(network.logits(*given, cond=new), network.logits(*given, cond=0 * new)), "it is read"


def test_other_conditioning_is_said(tmp_path: Path) -> None:
    captions, classes = TextConditioner.from_captions(CAPTIONS, 17), ClassConditioner(names=("cat", "cow"))
    for model, wanted, said in (
        (tiny_model("text"), NoConditioner(), "trained with captions, the images have neither captions nor classes"),
        (tiny_model("text"), captions, "up to 17 tokens, and the model in .* reads 16"),
        (tiny_model("class"), classes, "trained with other classes than the images have"),
        (tiny_staged_model(), NoConditioner(), "has no denoiser to train further"),
    ):
        model.save_pretrained(tmp_path)
        with pytest.raises(InputError, match=said):
            load_denoiser_to_finetune(str(tmp_path), wanted)


def two_classes(run_class: type[Any], folder: Path, **settings: Any) -> Any:
    """A run on two classes, each of one color, and on a random first stage."""
    for name, color in COLORS.items():
        (folder / "data" / name).mkdir(parents=True)
        for i in range(8):
            Image.new("RGB", (16, 16), (color + i,) * 3).save(folder / "data" / name / f"{i}.png")
    ImageBART(FirstStage(SMALL)).save_pretrained(folder / "first")
    loop = LoopConfig(steps=80, batch_size=8, lr=1e-2, warmup=5, ema=0.5, mixed_precision="no")
    places = {"data": str(folder / "data"), "first_stage": str(folder / "first")}
    return run_class(**places, loop=loop, shape=SHAPE, conditioning="class", **settings)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["denoiser", "stage"])
def test_a_model_that_a_command_trained_on_classes_draws_their_colors(tmp_path: Path, command: str) -> None:
    """A denoiser, in one step and in four; stages that are trained jointly. The run's folder holds the model."""
    if command == "denoiser":
        run, scales = two_classes(DenoiserRun, tmp_path), [1, 4]
    else:
        run, scales = two_classes(StageRun, tmp_path, betas=(0.5, 1.0), t=None, decoder_corruption=0.8), [None]
    (tmp_path / "run.json").write_text(run.model_dump_json())
    assert main(["train", command, "--config", str(tmp_path / "run.json"), "--run", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "samples" / "0000080.png").is_file()
    model = ImageBART.from_pretrained(tmp_path / "run")
    assert isinstance(model.conditioner, ClassConditioner) and model.conditioner.names == ("dark", "light")
    for index, color in enumerate(COLORS.values()):
        wanted = model.first_stage.encode(torch.full((1, 3, 16, 16), color / 127.5 - 1))
        for count in scales:
            drawn = model.sample(8, cond=torch.full((8, 1), index), scales=count, seed=1)
            assert (drawn == wanted).float().mean() > 0.8, (index, count)


def test_what_was_trained_initializes_another_of_its_shape(tmp_path: Path) -> None:
    """A step at a learning rate of 0 leaves it as it was."""
    run = two_classes(DenoiserRun, tmp_path / "of denoiser")
    run = run.replace(loop=run.loop.replace(steps=1, warmup=0, ema=0.0))
    stage_run = two_classes(StageRun, tmp_path / "of stage", betas=(0.5, 1.0), t=1, kind="residual")
    for train, one in ((train_denoiser, run), (train_stages, stage_run.replace(loop=run.loop))):
        folder = tmp_path / train.__name__
        standing = one.replace(init_from=str(folder / "first"), loop=run.loop.replace(lr=0.0))
        trained, again = train(one, folder / "first"), train(standing, folder / "again")
        assert same_tensors(again.state_dict(), trained.state_dict())
    with pytest.raises(InputError, match="has no stage 2 to start from"):
        train_stages(standing.replace(t=2), tmp_path / "other")
    with pytest.raises(ValueError, match="color_hint_grid is 2; it needs a first stage with encoder 'patch'"):
        train_denoiser(run.replace(color_hint_grid=2), tmp_path / "refused")


def test_a_trained_text_encoder_is_used_and_stays_as_it_is(tmp_path: Path) -> None:
    ImageBART(FirstStage(SMALL)).save_pretrained(tmp_path / "first")
    shape, loop = SHAPE.replace(query_tokens=14), LoopConfig(steps=2, batch_size=2, warmup=0, mixed_precision="no")
    train_captions(CaptionsRun(loop=loop, shape=shape, text_length=60), tmp_path / "captions")
    encoder = load_text_encoder(tmp_path / "captions")[0].state_dict()
    run = DenoiserRun(data="avatars", first_stage=str(tmp_path / "first"), loop=loop, shape=shape, text_length=60)
    frozen = train_denoiser(run.replace(text_from=str(tmp_path / "captions")), tmp_path / "frozen", avatar_data)
    assert same_tensors(frozen.text.state_dict(), encoder)
    free = train_denoiser(run.replace(init_from=str(tmp_path / "frozen")), tmp_path / "free", avatar_data)
    weight = "transformer.token_embedding.weight"
    assert not torch.equal(encoder[weight], free.text.state_dict()[weight])


LOSSES = {
    "first stage": [2.09325, 1.86443, 1.58758, 1.27152],
    "stages": [3.14816, 2.97217, 2.71675, 2.15924],
    "denoiser": [3.81322, 3.46871, 3.02327, 2.68595],
}


@pytest.mark.parametrize("kind", LOSSES)
def test_the_first_steps_have_the_losses_that_were_recorded(tmp_path: Path, kind: str) -> None:
    """Up to how a machine rounds."""
    run, folder = tmp_path / "run", draw_folder(tmp_path / "data", "text")
    texts = {row["file_name"]: row["text"] for row in map(json.loads, (folder / "metadata.jsonl").open())}
    items = []
    for path in sorted(folder.glob("*.png")):
        square = ImageOps.fit(Image.open(path).convert("RGB"), (32, 32), Image.Resampling.LANCZOS)
        items.append({"image": torch.from_numpy(np.array(square)).permute(2, 0, 1), "text": texts[path.name]})
    data, model = (items, conditioner_of("text", list(texts.values()), 16)), tiny_first_stage(encoder="patch")
    torch.manual_seed(0)
    ImageBART(FirstStage(model)).save_pretrained(tmp_path / "first")
    loop = LoopConfig(steps=4, batch_size=4, lr=3e-3, optimizer="muon", warmup=2, ema=0.5, log_every=1)
    given = {"data": "", "loop": loop.replace(mixed_precision="no")}
    tokens = {**given, "first_stage": str(tmp_path / "first"), "shape": SHAPE, "text_length": 16}
    if kind == "first stage":
        loss = FirstStageLoss(adversarial=AdversarialLoss(start=0.5, crop=32, channels=8))
        train_first_stage(FirstStageRun(**given, model=model, loss=loss), run, items)
    elif kind == "stages":
        train_stages(StageRun(**tokens, betas=(0.5, 1.0), t=None, decoder_corruption=0.5), run, lambda *_: data)
    else:
        train_denoiser(DenoiserRun(**tokens, color_hint_grid=2), run, lambda *_: data)
    assert [record["loss"] for record in read_log(run) if "loss" in record] == pytest.approx(LOSSES[kind], rel=2e-3)
