"""`python -m imagebart train ...`: the parts of a model, and putting them together."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from imagebart.cli.options import add_model_option
from imagebart.cli.own import add_model_job


def add_commands(commands: Any) -> None:
    """Adds `train` with its jobs to the command line's subparsers."""
    train = commands.add_parser("train", help="train a first stage or a stage, or put a model together")
    jobs = train.add_subparsers(dest="job", required=True)
    for name, text, run in (
        ("first-stage", "the VQGAN: pixels to tokens and back", _train_first_stage),
        ("captions", "the text encoder: what avatars' captions claim", _train_captions),
        ("stage", "one reverse step, on a trained first stage", _train_stage),
        ("denoiser", "one network for every noise rate, on a trained first stage", _train_denoiser),
        ("reader", "the network that reads attributes off avatars, for evaluate", _train_reader),
    ):
        job = jobs.add_parser(name, help=text)
        job.add_argument("--config", type=Path, required=True, help="JSON file of settings, see configs/")
        job.add_argument("--run", type=Path, required=True, help="folder for log, samples and checkpoints; resumes")
        job.set_defaults(job_handler=run)
    add_model_job(jobs)
    build = jobs.add_parser("assemble", help="write trained parts as one model folder")
    build.add_argument("--config", type=Path, required=True, help="JSON file: parts and what people are told")
    build.add_argument("--out", type=Path, required=True, help="the model's folder")
    build.set_defaults(job_handler=_assemble)
    log = jobs.add_parser("log", help="how a run's losses fell with the hours, as a table")
    log.add_argument("--run", type=Path, required=True, help="folder of a run")
    log.set_defaults(job_handler=_log)
    split = jobs.add_parser("take-apart", help="split a model folder into parts, to train on from them")
    add_model_option(split)
    split.add_argument("--out", type=Path, required=True, help="gets the folders first-stage, captions, stage1, ...")
    split.set_defaults(job_handler=_take_apart)
    train.set_defaults(handler=lambda options: options.job_handler(options))


def _train_first_stage(options: argparse.Namespace) -> None:
    from imagebart.training.config import FirstStageRun, load
    from imagebart.training.first_stage import train_first_stage

    train_first_stage(load(FirstStageRun, options.config), options.run)


def _train_captions(options: argparse.Namespace) -> None:
    from imagebart.training.captions import train_captions
    from imagebart.training.config import CaptionsRun, load

    train_captions(load(CaptionsRun, options.config), options.run)


def _train_stage(options: argparse.Namespace) -> None:
    from imagebart.training.config import StageRun, load
    from imagebart.training.stages import train_stage

    train_stage(load(StageRun, options.config), options.run)


def _train_denoiser(options: argparse.Namespace) -> None:
    from imagebart.training.config import DenoiserRun, load
    from imagebart.training.denoising import train_denoiser

    train_denoiser(load(DenoiserRun, options.config), options.run)


def _train_reader(options: argparse.Namespace) -> None:
    from imagebart.training.config import load
    from imagebart.training.reader import ReaderRun, train_reader

    train_reader(load(ReaderRun, options.config), options.run)


def _assemble(options: argparse.Namespace) -> None:
    from imagebart.training.config import ModelParts, load
    from imagebart.training.parts import assemble, assemble_stages

    parts = load(ModelParts, options.config)
    text = Path(parts.text) if parts.text is not None else None
    if parts.denoiser is not None:
        model = assemble(Path(parts.first_stage), Path(parts.denoiser), parts.about, text)
    else:
        model = assemble_stages(Path(parts.first_stage), [Path(s) for s in parts.stages], parts.about, text)
    model.save_pretrained(options.out, parts.dtype)
    print(options.out)


def _log(options: argparse.Namespace) -> None:
    from imagebart.training.curve import curve

    for line in curve(options.run):
        print(line)


def _take_apart(options: argparse.Namespace) -> None:
    from imagebart.models.imagebart import ImageBART
    from imagebart.training.parts import take_apart

    for folder in take_apart(ImageBART.from_pretrained(options.model), options.out):
        print(folder)
