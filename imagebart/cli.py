"""The command line: one job a command, each with --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imagebart.evaluation.commands import add_commands

if TYPE_CHECKING:
    from imagebart.events import PipelineEvent
    from imagebart.pipeline import Pipeline
    from imagebart.settings import SamplingSettings

DEFAULT_MODEL = "checkpoints/avatars"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code: 2 with one sentence on standard error for bad input."""
    options = _parser().parse_args(arguments)
    try:
        options.handler(options)
    except (ValueError, OSError) as error:
        print(f"imagebart {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m imagebart", description="Masked, prompted edits by ImageBART.")
    commands = parser.add_subparsers(dest="command", required=True)

    generate = commands.add_parser("generate", help="a picture from a prompt")
    generate.add_argument("--prompt", required=True, help="what to draw, or the class of a class model")
    _drawing_options(generate)
    generate.set_defaults(handler=_generate)

    edit = commands.add_parser("edit", help="redraw what a mask paints")
    edit.add_argument("--image", type=Path, required=True, help="the picture to edit")
    edit.add_argument("--mask", required=True, help="a picture, white where to redraw; or 'upper half', 'centre', ...")
    edit.add_argument("--prompt", help="what should be there")
    edit.add_argument("--feather", type=int, default=0, help="pixels over which the change fades in (default 0)")
    _drawing_options(edit)
    edit.set_defaults(handler=_edit)

    vary = commands.add_parser("vary", help="pictures like a picture")
    vary.add_argument("--image", type=Path, required=True, help="the picture to vary")
    vary.add_argument("--strength", type=float, default=0.3, help="share that is redrawn, 0 to 1 (default 0.3)")
    vary.add_argument("--prompt", help="what it should show")
    _drawing_options(vary)
    vary.set_defaults(handler=_vary)

    bench = commands.add_parser("bench", help="time decoding on this machine")
    bench.add_argument("--model", default=DEFAULT_MODEL, help=f"model folder (default {DEFAULT_MODEL})")
    bench.set_defaults(handler=_bench)

    add_commands(commands)  # evaluate

    train = commands.add_parser("train", help="train a first stage or a stage, or put a model together")
    jobs = train.add_subparsers(dest="job", required=True)
    for name, text, run in (
        ("first-stage", "the VQGAN: pixels to tokens and back", _train_first_stage),
        ("stage", "one reverse step, on a trained first stage", _train_stage),
        ("reader", "the network that reads attributes off avatars, for evaluate", _train_reader),
    ):
        job = jobs.add_parser(name, help=text)
        job.add_argument("--config", type=Path, required=True, help="JSON file of settings, see configs/")
        job.add_argument("--run", type=Path, required=True, help="folder for log, samples and checkpoints; resumes")
        job.set_defaults(job_handler=run)
    build = jobs.add_parser("assemble", help="write trained parts as one model folder")
    build.add_argument("--config", type=Path, required=True, help="JSON file: parts and what people are told")
    build.add_argument("--out", type=Path, required=True, help="the model's folder")
    build.set_defaults(job_handler=_assemble)
    split = jobs.add_parser("take-apart", help="split a model folder into parts, to train on from them")
    split.add_argument("--model", default=DEFAULT_MODEL, help=f"model folder (default {DEFAULT_MODEL})")
    split.add_argument("--out", type=Path, required=True, help="gets the folders first-stage, stage1, stage2, ...")
    split.set_defaults(job_handler=_take_apart)
    train.set_defaults(handler=lambda options: options.job_handler(options))
    return parser


def _drawing_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=DEFAULT_MODEL, help=f"model folder (default {DEFAULT_MODEL})")
    parser.add_argument("--out", type=Path, required=True, help="the picture; further variants get -2, -3, ...")
    parser.add_argument("--seed", type=int, help="the same seed gives the same picture (default: a new one)")
    parser.add_argument("--variants", type=int, default=1, help="how many pictures (default 1)")
    parser.add_argument("--temperature", type=float, help="under 1 safer, over 1 wilder")
    parser.add_argument("--top-k", type=int, help="only the k likeliest tokens")
    parser.add_argument("--top-p", type=float, help="only the likeliest tokens of this total probability")
    parser.add_argument("--guidance", type=float, help="over 1: closer to the prompt")
    parser.add_argument("--passes", type=int, help="forward-backward repeats of each stage")


def _pipeline(options: argparse.Namespace) -> Pipeline:
    from imagebart.pipeline import Pipeline

    return Pipeline.from_pretrained(options.model)


def _settings(options: argparse.Namespace, defaults: SamplingSettings) -> SamplingSettings:
    """The model's own settings, but for those given."""
    from dataclasses import replace

    names = ("temperature", "top_k", "top_p", "guidance", "passes")
    return replace(defaults, **{n: getattr(options, n) for n in names if getattr(options, n) is not None})


def _generate(options: argparse.Namespace) -> None:
    pipe = _pipeline(options)
    settings = _settings(options, pipe.defaults)
    run = pipe.generate(options.prompt, seed=options.seed, settings=settings, variants=options.variants)
    _follow(run, options.out)


def _edit(options: argparse.Namespace) -> None:
    from imagebart import images, masks

    image = images.load_image(options.image)
    mask = (
        masks.preset(options.mask, image.size)
        if options.mask in masks.PRESETS
        else masks.load_mask(Path(options.mask), image.size)
    )
    pipe = _pipeline(options)
    run = pipe.edit(
        image,
        mask,
        options.prompt,
        seed=options.seed,
        settings=_settings(options, pipe.defaults),
        feather=options.feather,
        variants=options.variants,
    )
    _follow(run, options.out)


def _vary(options: argparse.Namespace) -> None:
    pipe = _pipeline(options)
    run = pipe.vary(
        options.image,
        options.strength,
        options.prompt,
        seed=options.seed,
        settings=_settings(options, pipe.defaults),
        variants=options.variants,
    )
    _follow(run, options.out)


def _follow(run: Iterable[PipelineEvent], out: Path) -> None:
    """Says what is happening on standard error; writes the pictures."""
    event = None
    for event in run:
        if event.kind == "start":
            for note in event.notes:
                print(note, file=sys.stderr)
        line = f"stage {event.stage} of {event.stages}, pass {event.pass_index + 1} of {event.passes}, "
        print(f"\r{line}{event.position} of {event.total} tokens ", end="", file=sys.stderr)
    assert event is not None
    print(f"\nseed {event.seed}, {event.elapsed:.1f} s", file=sys.stderr)
    for number, image in enumerate(event.images, 1):
        path = out if number == 1 else out.with_stem(f"{out.stem}-{number}")
        image.save(path)
        print(path)


def _bench(options: argparse.Namespace) -> None:
    from imagebart.bench import measure, report

    print(report(measure(_pipeline(options).model)))


def _train_first_stage(options: argparse.Namespace) -> None:
    from imagebart.training.config import FirstStageRun, load
    from imagebart.training.first_stage import train_first_stage

    train_first_stage(load(FirstStageRun, options.config), options.run)


def _train_stage(options: argparse.Namespace) -> None:
    from imagebart.training.config import StageRun, load
    from imagebart.training.stages import train_stage

    train_stage(load(StageRun, options.config), options.run)


def _train_reader(options: argparse.Namespace) -> None:
    from imagebart.evaluation.reader_training import ReaderRun, train_reader
    from imagebart.training.config import load

    train_reader(load(ReaderRun, options.config), options.run)


def _assemble(options: argparse.Namespace) -> None:
    from imagebart.training.config import ModelParts, load
    from imagebart.training.parts import assemble

    parts = load(ModelParts, options.config)
    model = assemble(Path(parts.first_stage), [Path(stage) for stage in parts.stages], parts.about)
    model.save_pretrained(options.out, parts.dtype)
    print(options.out)


def _take_apart(options: argparse.Namespace) -> None:
    from imagebart.model import ImageBART
    from imagebart.training.parts import take_apart

    for folder in take_apart(ImageBART.from_pretrained(options.model), options.out):
        print(folder)
