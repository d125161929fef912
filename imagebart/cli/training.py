"""`imagebart train ...`: the parts of a model, and putting them together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imagebart.cli.options import DEFAULT_MODEL, Model, command

app = typer.Typer(help="Train a first stage or a stage, or put a model together.")

Config = Annotated[Path, typer.Option(help="JSON file of settings, see configs/.")]
Run = Annotated[Path, typer.Option(help="Folder for log, samples and checkpoints; resumes.")]


@command(app)
def first_stage(config: Config, run: Run) -> None:
    """The VQGAN: pixels to tokens and back."""
    from imagebart.training.config import FirstStageRun, load
    from imagebart.training.first_stage import train_first_stage

    train_first_stage(load(FirstStageRun, config), run)


@command(app)
def captions(config: Config, run: Run) -> None:
    """The text encoder: what avatars' captions claim."""
    from imagebart.training.captions import train_captions
    from imagebart.training.config import CaptionsRun, load

    train_captions(load(CaptionsRun, config), run)


@command(app)
def stage(config: Config, run: Run) -> None:
    """One reverse step, on a trained first stage; or all of them jointly, where `t` is null."""
    from imagebart.training.config import StageRun, load
    from imagebart.training.joint import train_stages
    from imagebart.training.stages import train_stage

    settings = load(StageRun, config)
    if settings.t is None:
        train_stages(settings, run)
    else:
        train_stage(settings, run)


@command(app)
def denoiser(config: Config, run: Run) -> None:
    """One network for every noise rate, on a trained first stage."""
    from imagebart.training.config import DenoiserRun, load
    from imagebart.training.denoising import train_denoiser

    train_denoiser(load(DenoiserRun, config), run)


@command(app)
def reader(config: Config, run: Run) -> None:
    """The network that reads attributes off avatars, for evaluate."""
    from imagebart.training.config import load
    from imagebart.training.reader import ReaderRun, train_reader

    train_reader(load(ReaderRun, config), run)


@command(app)
def assemble(
    config: Annotated[Path, typer.Option(help="JSON file: parts and what people are told.")],
    out: Annotated[Path, typer.Option(help="The model's folder.")],
) -> None:
    """Write trained parts as one model folder."""
    from imagebart.training.config import ModelParts, load
    from imagebart.training.parts import assemble, assemble_stages

    parts = load(ModelParts, config)
    text = Path(parts.text) if parts.text is not None else None
    if parts.denoiser is not None:
        model = assemble(Path(parts.first_stage), Path(parts.denoiser), parts.about, text)
    else:
        model = assemble_stages(Path(parts.first_stage), [Path(s) for s in parts.stages], parts.about, text)
    model.save_pretrained(out, parts.dtype)
    print(out)


@command(app)
def log(run: Annotated[Path, typer.Option(help="Folder of a run.")]) -> None:
    """How a run's losses fell with the hours, as a table."""
    from imagebart.training.follow import curve

    for line in curve(run):
        print(line)


@command(app)
def take_apart(
    out: Annotated[Path, typer.Option(help="Gets the folders first-stage, captions, stage1, ...")],
    model: Model = DEFAULT_MODEL,
) -> None:
    """Split a model folder into parts, to train on from them."""
    from imagebart.models.imagebart import ImageBART
    from imagebart.training.parts import take_apart

    for folder in take_apart(ImageBART.from_pretrained(model), out):
        print(folder)
