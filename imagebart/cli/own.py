"""`python -m imagebart train model`: from a folder of pictures to a model of them."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from imagebart.errors import InputError


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
