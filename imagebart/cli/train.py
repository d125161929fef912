"""`imagebart train ...`: the parts of a model, and putting them together."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imagebart.cli.evaluate import artist_of
from imagebart.cli.options import DEFAULT_MODEL, Model, Sampling, command
from imagebart.errors import InputError

if TYPE_CHECKING:
    from imagebart.training.data import ImageStore


app = typer.Typer(help="Train a first stage or a stage, or put a model together.")

Config = Annotated[Path, typer.Option(help="JSON file of settings, see configs/.")]
Run = Annotated[Path, typer.Option(help="Folder for log, samples and checkpoints; resumes.")]


@command(app)
def first_stage(config: Config, run: Run) -> None:
    """The VQGAN: pixels to tokens and back."""
    from imagebart.training.config import FirstStageRun, load
    from imagebart.training.vqgan import train_first_stage

    train_first_stage(load(FirstStageRun, config), run)


@command(app)
def captions(config: Config, run: Run) -> None:
    """The text encoder: what avatars' captions claim."""
    from imagebart.training.config import CaptionsRun, load
    from imagebart.training.text import train_captions

    train_captions(load(CaptionsRun, config), run)


@command(app)
def stage(config: Config, run: Run) -> None:
    """One reverse step, on a trained first stage; or all of them jointly, where `t` is null."""
    from imagebart.training.config import StageRun, load
    from imagebart.training.stage import train_stage, train_stages

    settings = load(StageRun, config)
    if settings.t is None:
        train_stages(settings, run)
    else:
        train_stage(settings, run)


@command(app)
def denoiser(config: Config, run: Run) -> None:
    """One network for every noise rate, on a trained first stage."""
    from imagebart.training.config import DenoiserRun, load
    from imagebart.training.denoiser import train_denoiser

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
    from imagebart.training.parts import assemble

    parts = load(ModelParts, config)
    text = Path(parts.text) if parts.text is not None else None
    networks = Path(parts.denoiser) if parts.denoiser is not None else [Path(stage) for stage in parts.stages]
    assemble(Path(parts.first_stage), networks, parts.about, text).save_pretrained(out, parts.dtype)
    print(out)


@command(app)
def log(run: Annotated[Path, typer.Option(help="Folder of a run.")]) -> None:
    """How a run's losses fell with the hours, as a table."""
    from imagebart.training.validation import loss_table

    for line in loss_table(run):
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


# `imagebart train model` and `evaluate folder`: from a folder of pictures to a model of them, and how good it is.


Data = Annotated[
    str | None, typer.Option(help="Folder of pictures (metadata.jsonl: captions; folders: classes), or a Hub name.")
]
LEAST = 4  # pictures that anything is measured on


@command(app)
def model(
    out: Annotated[Path, typer.Option(help="The model's folder; a run that was stopped goes on there.")],
    data: Data = None,
    hours: Annotated[float | None, typer.Option(help="How long to train, such as 8 for a night.")] = None,
    config: Annotated[Path | None, typer.Option(help="JSON file of these and more settings, see configs/.")] = None,
    resolution: Annotated[int | None, typer.Option(help="Pixels a side: 32, 64, 128 or 256; else planned.")] = None,
    first_stage: Annotated[str | None, typer.Option(help="Folder of a trained first stage, or of a model.")] = None,
    begin_from: Annotated[str | None, typer.Option(help="Folder of a model to go on from, with all it knows.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures a step; else 16.")] = None,
    knows: Annotated[str | None, typer.Option(help="What the pictures show, in plain words.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the pictures, for the model's card.")] = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="Look at the pictures, say the plan, and stop.")] = False,
) -> None:
    """A model of your own pictures: from a folder to the page."""
    from imagebart.config import from_dict
    from imagebart.training.config import load_values
    from imagebart.training.plan import ModelRun
    from imagebart.training.train_model import dry_run, train_model

    asked = {"data": data, "hours": hours, "resolution": resolution, "first_stage": first_stage}
    asked |= {"begin_from": begin_from, "batch_size": batch_size, "knows": knows, "licence": licence}
    values = {} if config is None else load_values(config)
    values |= {name: value for name, value in asked.items() if value is not None}
    for name in ("data", "hours"):
        if name not in values:
            raise InputError(f"--{name} is missing; give it, or a --config that has it.")
    run = from_dict(ModelRun, values)
    if dry:
        dry_run(run, out)
        return
    try:
        train_model(run, out)
    except (MemoryError, RuntimeError) as error:
        if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
            raise
        raise InputError(
            f"The memory is full ({str(error)[:80]}); what was trained is kept. Begin anew with a smaller --batch-size "
            f"than {run.batch_size} or a smaller --resolution, in another --out."
        ) from error


def folder(
    model: Annotated[Path, typer.Option(help="The model's folder.")],
    sampling: Sampling,
    data: Data = None,
    work: Annotated[Path | None, typer.Option(help="Folder for the classifier; else the model's evaluation/.")] = None,
    samples: Annotated[int, typer.Option(min=LEAST, help="Held-back pictures of each measure.")] = 200,
    beside: Annotated[
        Path | None, typer.Option(help="Folder of another first stage, or of a model: pairs for a blind test.")
    ] = None,
    baseline: Annotated[Path | None, typer.Option(help="Folder of a model that draws left to right.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps that the classifier is trained.")] = 3000,
    telling: Annotated[int, typer.Option(min=1, help="Steps that what tells real from made is trained.")] = 200,
    features: Annotated[str | None, typer.Option(help="A transformers or timm model that is on this machine.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed draws other pictures.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Pictures drawn at once.")] = 32,
    out: Annotated[Path | None, typer.Option(help="Where to write the numbers as JSON.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Where to write a sheet of pictures.")] = None,
) -> None:
    """The table of a model of your own pictures, on those that were held back."""
    from imagebart.atomic_io import write_text
    from imagebart.evaluation.classifier import train_or_load_classifier
    from imagebart.evaluation.folder import FolderStudy, evaluate_folder, folder_sheet
    from imagebart.evaluation.metrics import in_batches, local_features
    from imagebart.evaluation.report import table, write_json
    from imagebart.imaging.files import save_image
    from imagebart.training.parts import load_first_stage

    artist = artist_of(model, sampling, batch)
    place = work or model / "evaluation"
    store = _store(model, data, place, artist.size)
    classifier = train_or_load_classifier(store, place / "classifier", steps)
    told = local_features(features) if features else partial(in_batches, classifier.features)
    other = load_first_stage(beside) if beside else None
    left = artist_of(baseline, sampling, batch) if baseline else None
    study = FolderStudy(artist, store, classifier, told, samples, seed, other, left, telling)
    measures = []
    for one in evaluate_folder(study):
        measures.append(one)
        print(f"{one.name}: {one.value:.4g} ({one.low:.4g} to {one.high:.4g})", file=sys.stderr)
    print(table(measures))
    if out:
        about = {"model": str(model), "samples": len(study.held), "seed": seed, "features": features or "classifier"}
        write_json(out, about, measures)
    if picture:
        save_image(folder_sheet(study), picture, optimize=True)
    if study.pairs is not None:
        save_image(study.pairs.sheet(), place / "pairs.png", optimize=True)
        write_text(place / "pairs.json", json.dumps({"the model's own": study.pairs.key()}, indent=1))
        print(f"{place / 'pairs.png'}: pairs for a blind test; which is which, {place / 'pairs.json'}", file=sys.stderr)


def _store(model: Path, data: str | None, work: Path, resolution: int) -> ImageStore:
    """The pictures to measure on: those of the training, or those of a folder, of which the same are held back."""
    from imagebart.training.data import ImageStore, read, read_index
    from imagebart.training.plan import inspect_dataset

    own = model / "run" / "pictures"
    if data is None:
        if read_index(own) is None:
            raise InputError(f"{model} has no pictures with it (run/pictures); give --data.")
        return ImageStore(own)
    index = read_index(work / "pictures")
    if index is None or index.resolution != resolution:
        inspect_dataset(read(data), resolution, work / "pictures")
    return ImageStore(work / "pictures")
