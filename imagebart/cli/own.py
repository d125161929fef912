"""`python -m imagebart train model` and `evaluate folder`: from a folder of pictures to a model, and how good it is."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagebart.cli.options import add_sampling_options, add_scales_option, given_settings
from imagebart.errors import InputError

if TYPE_CHECKING:
    from imagebart.pictures.store import Store


def add_model_job(jobs: Any) -> None:
    """Adds `model` to the jobs of `train`."""
    job = jobs.add_parser("model", help="a model of your own pictures, from a folder to the page")
    job.add_argument("--data", help="folder of pictures (metadata.jsonl: captions; folders: classes), or a Hub name")
    job.add_argument("--out", type=Path, required=True, help="the model's folder; a run that was stopped goes on there")
    job.add_argument("--hours", type=float, help="how long to train, such as 8 for a night")
    job.add_argument("--config", type=Path, help="JSON file of these and more settings, see configs/")
    job.add_argument("--resolution", type=int, help="pixels a side: 32, 64, 128 or 256 (default: planned)")
    job.add_argument("--first-stage", help="folder of a trained first stage, or of a model, to take over")
    job.add_argument("--batch-size", type=int, help="pictures a step (default 16)")
    job.add_argument("--knows", help="what the pictures show, in plain words")
    job.add_argument("--licence", help="licence of the pictures, for the model's card")
    job.add_argument("--dry-run", action="store_true", help="look at the pictures, say the plan, and stop")
    job.set_defaults(job_handler=_model)


def _model(options: argparse.Namespace) -> None:
    from imagebart.config import from_dict
    from imagebart.training.own_model import dry_run, train_model
    from imagebart.training.plan import ModelRun

    known = {field.name for field in fields(ModelRun)}
    given = {name: value for name, value in vars(options).items() if name in known and value is not None}
    values = {**(_settings(options.config) if options.config else {}), **given}
    for name in ("data", "hours"):
        if name not in values:
            raise InputError(f"--{name} is missing; give it, or a --config that has it.")
    run = from_dict(ModelRun, values)
    if options.dry_run:
        dry_run(run, options.out)
        return
    try:
        train_model(run, options.out)
    except (MemoryError, RuntimeError) as error:
        if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
            raise
        raise InputError(
            f"The memory is full ({str(error)[:80]}); what was trained is kept. Begin anew with a smaller --batch-size "
            f"than {run.batch_size} or a smaller --resolution, in another --out."
        ) from error


def _settings(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"The settings in {path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"The settings in {path} are {type(values).__name__}, expected an object.")
    return values


def add_folder_job(jobs: Any) -> None:
    """Adds `folder` to the jobs of `evaluate`."""
    job = jobs.add_parser("folder", help="the table of a model of your own pictures, on those that were held back")
    job.add_argument("--model", required=True, help="the model's folder")
    job.add_argument("--data", help="folder of pictures, or a Hub name (default: those that it was trained on)")
    job.add_argument("--work", type=Path, help="folder for the classifier (default: evaluation, in the model)")
    job.add_argument("--samples", type=int, default=200, help="held-back pictures of each measure (default 200)")
    job.add_argument("--steps", type=int, default=600, help="steps that the classifier is trained (default 600)")
    job.add_argument("--features", help="a transformers or timm model on this machine (default: the classifier)")
    job.add_argument("--seed", type=int, default=0, help="another seed draws other pictures (default 0)")
    job.add_argument("--batch", type=int, default=32, help="pictures drawn at once (default 32)")
    job.add_argument("--out", type=Path, help="where to write the numbers as JSON")
    job.add_argument("--picture", type=Path, help="where to write a sheet of pictures")
    add_sampling_options(job)
    add_scales_option(job)
    job.set_defaults(job_handler=_folder)


def _folder(options: argparse.Namespace) -> None:
    from imagebart.evaluation.drawing import Artist
    from imagebart.evaluation.features import local_features, own_features
    from imagebart.evaluation.folder import FolderStudy, evaluate_folder, sheet
    from imagebart.evaluation.report import table, write_json
    from imagebart.imaging.files import save_image
    from imagebart.models.imagebart import ImageBART
    from imagebart.training.classifier import classifier_of

    for name, least in (("samples", 4), ("steps", 1), ("batch", 1)):
        if getattr(options, name) < least:
            raise InputError(f"--{name} is {getattr(options, name)}; it must be {least} or more.")
    model = ImageBART.from_pretrained(options.model)
    work = options.work or Path(options.model) / "evaluation"
    store = _store(options, work, model.first_stage.config.resolution)
    classifier = classifier_of(store, work / "classifier", options.steps)
    features = local_features(options.features) if options.features else own_features(classifier)
    artist = Artist(model, given_settings(options, model.about.sampling), options.batch)
    study = FolderStudy(artist, store, classifier, features, options.samples, options.seed)
    if len(study.held) < 4:
        raise InputError(f"{len(study.held)} pictures were held back to measure with; at least 4 are needed.")
    measures = []
    for one in evaluate_folder(study):
        measures.append(one)
        print(f"{one.name}: {one.value:.4g} ({one.low:.4g} to {one.high:.4g})", file=sys.stderr)
    print(table(measures))
    if options.out:
        about = {"model": options.model, "samples": len(study.held), "seed": options.seed}
        write_json(options.out, {**about, "features": options.features or "classifier"}, measures)
    if options.picture:
        save_image(sheet(study), options.picture, optimize=True)


def _store(options: argparse.Namespace, work: Path, resolution: int) -> Store:
    """The pictures to measure on: those of the training, or those of a folder, of which the same are held back."""
    from imagebart.pictures.look import look
    from imagebart.pictures.rows import read
    from imagebart.pictures.store import Store, read_index

    own = Path(options.model) / "run" / "pictures"
    if options.data is None:
        if read_index(own) is None:
            raise InputError(f"{options.model} has no pictures with it (run/pictures); give --data.")
        return Store(own)
    folder = work / "pictures"
    index = read_index(folder)
    if index is None or index.resolution != resolution:
        look(read(options.data), resolution, folder)
    return Store(folder)
