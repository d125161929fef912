"""`imagebart train ...`: the parts of a model, and putting them together."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from imagebart.cli.options import Data, command, output_folder
from imagebart.core.errors import InputError

app = typer.Typer(help="Train a model of your own images, or a part of one.")

Config = Annotated[Path, typer.Option(help="JSON file of settings, see recipes/.")]
FOLDER: dict[str, Any] = {"parser": output_folder, "metavar": "DIRECTORY"}
Run = Annotated[Path, typer.Option(help="Folder for log, samples and checkpoints; resumes.", **FOLDER)]


@command(app)
def first_stage(config: Config, run: Run) -> None:
    """The VQGAN: pixels to tokens and back."""
    from imagebart.training.config import FirstStageRun, load
    from imagebart.training.vqgan import train_first_stage

    train_first_stage(load(FirstStageRun, config), run)


@command(app)
def stage(config: Config, run: Run) -> None:
    """One reverse step, on a trained first stage; or all of them side by side, where `t` is null."""
    from imagebart.training.config import StageRun, load
    from imagebart.training.stage import train_stages

    train_stages(load(StageRun, config), run)


@command(app)
def denoiser(config: Config, run: Run) -> None:
    """One network for every noise level, on a trained first stage."""
    from imagebart.training.config import DenoiserRun, load
    from imagebart.training.denoiser import train_denoiser

    train_denoiser(load(DenoiserRun, config), run)


@command(app)
def model(
    out: Annotated[Path, typer.Option(help="The model's folder; a run that was stopped is resumed there.", **FOLDER)],
    data: Data = None,
    hours: Annotated[float | None, typer.Option(help="How long to train, such as 8 for a night.")] = None,
    config: Annotated[Path | None, typer.Option(help="JSON file of these and more settings, see recipes/.")] = None,
    resolution: Annotated[int | None, typer.Option(help="Pixels a side: 32, 64, 128 or 256; else chosen.")] = None,
    first_stage: Annotated[str | None, typer.Option(help="Folder of a trained first stage, or of a model.")] = None,
    init_from: Annotated[str | None, typer.Option(help="Folder of a model to go on from, with all it knows.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step; else 16.")] = None,
    knows: Annotated[str | None, typer.Option(help="What the images show, in plain words.")] = None,
    license: Annotated[str | None, typer.Option(help="License of the images, for the model's card.")] = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="Say what there is and what would be trained.")] = False,
) -> None:
    """A model of your own images: from a folder to the page."""
    from imagebart.training.config import ModelRun, load
    from imagebart.training.train_model import inspect_run, train_model

    given = {"data": data, "hours": hours, "resolution": resolution, "first_stage": first_stage}
    given |= {"init_from": init_from, "batch_size": batch_size, "knows": knows, "license": license}
    run = load(ModelRun, config, **{name: value for name, value in given.items() if value is not None})
    if dry:
        with TemporaryDirectory() as folder:
            return inspect_run(run, Path(folder))
    try:
        train_model(run, out)
    except (MemoryError, RuntimeError) as error:
        if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
            raise
        raise InputError(
            f"The memory is full ({str(error)[:80]}); what was trained is kept. Start again with a smaller "
            f"--batch-size than {run.batch_size} or a smaller --resolution, in another --out."
        ) from error
