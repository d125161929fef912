"""`python -m imagebart evaluate ...`: tables, pictures and files of what a model of avatars can do."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagebart.command_options import add_model_option, add_sampling_options, given_settings

if TYPE_CHECKING:
    from imagebart.evaluation.avatars import Study
    from imagebart.evaluation.drawing import Artist
    from imagebart.evaluation.report import Measure


def add_commands(commands: Any) -> None:
    """Adds `evaluate` with its jobs to the command line's subparsers."""
    evaluate = commands.add_parser("evaluate", help="measure models of avatars")
    jobs = evaluate.add_subparsers(dest="job", required=True)

    avatars = jobs.add_parser("avatars", help="the table of a model: prompts, edits, distance and so on")
    add_model_option(avatars)
    _study_options(avatars)
    avatars.set_defaults(job_handler=_avatars)

    scales = jobs.add_parser("scales", help="models side by side, at drawing and at completing upper halves")
    scales.add_argument("--models", nargs="+", required=True, help="model folders, such as those of 1, 2 and 3 stages")
    scales.add_argument("--picture", type=Path, help="where to write samples side by side")
    _study_options(scales)
    scales.set_defaults(job_handler=_scales)

    pictures = jobs.add_parser("pictures", help="grids of 48 prompts and 24 edits, to look at")
    add_model_option(pictures)
    pictures.add_argument("--out", type=Path, required=True, help="folder for prompts.png and edits.png")
    _sampling_options(pictures)
    pictures.set_defaults(job_handler=_pictures)

    words = jobs.add_parser("words", help="whether a model's stages use captions: likelihood with, without, shuffled")
    add_model_option(words)
    words.add_argument("--samples", type=int, default=64, help="avatars (default 64)")
    words.set_defaults(job_handler=_words)
    evaluate.set_defaults(handler=lambda options: options.job_handler(options))


def _study_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--samples", type=int, default=200, help="pictures for each measure (default 200)")
    parser.add_argument("--seed", type=int, default=0, help="another seed asks other questions (default 0)")
    parser.add_argument("--out", type=Path, help="where to write the numbers as JSON")
    _sampling_options(parser)


def _sampling_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch", type=int, default=32, help="pictures drawn at once (default 32)")
    add_sampling_options(parser)


def _artist(model: str, options: argparse.Namespace) -> Artist:
    from imagebart.evaluation.drawing import Artist
    from imagebart.model import ImageBART

    if options.batch < 1:
        raise ValueError(f"a batch of {options.batch}, expected 1 or more")
    loaded = ImageBART.from_pretrained(model)
    return Artist(loaded, given_settings(options, loaded.about.sampling), options.batch)


def _study(model: str, options: argparse.Namespace) -> Study:
    from imagebart.evaluation.avatars import Study
    from imagebart.evaluation.reader import load_reader

    return Study(_artist(model, options), load_reader(), options.samples, options.seed)


def _avatars(options: argparse.Namespace) -> None:
    from imagebart.evaluation.avatars import evaluate
    from imagebart.evaluation.report import table, write_json

    study = _study(options.model, options)
    began = time.perf_counter()
    measures = _followed(evaluate, study, study.pictures, "pictures")
    print(table(measures))
    if options.out:
        write_json(options.out, {"model": options.model, **_about(study, began)}, measures)
        print(options.out, file=sys.stderr)


def _scales(options: argparse.Namespace) -> None:
    from imagebart.evaluation.grids import PROMPTS
    from imagebart.evaluation.report import side_by_side, write_json
    from imagebart.evaluation.scales import compare, sheet
    from imagebart.images import save_image

    studies = {model: _study(model, options) for model in options.models}
    began = time.perf_counter()
    columns = {model: _followed(compare, study, 2 * study.samples, model) for model, study in studies.items()}
    print(side_by_side(columns))
    if options.picture:
        save_image(sheet(studies, PROMPTS), options.picture, optimize=True)
    if options.out:
        content = {model: [asdict(m) for m in measures] for model, measures in columns.items()}
        about = _about(next(iter(studies.values())), began)
        write_json(options.out, {"models": content, **about}, [])


def _followed(work: Any, study: Study, pictures: int, name: str) -> list[Measure]:
    """Runs a study with a bar of the pictures drawn; says each sum as soon as it is known."""
    from tqdm import tqdm

    measures = []
    with tqdm(total=pictures, desc=name, unit="picture", mininterval=1) as bar:
        watched = replace(study, artist=replace(study.artist, drawn=bar.update))
        steps: Iterable[Measure] = work(watched)
        for step in steps:
            measures.append(step)
            if not step.group:
                bar.write(f"{step.name}: {step.value:.4g} ({step.low:.4g} to {step.high:.4g})", file=sys.stderr)
    return measures


def _about(study: Study, began: float) -> dict[str, Any]:
    """How the numbers were made."""
    return {
        "samples": study.samples,
        "seed": study.seed,
        "sampling": asdict(study.artist.settings),
        "stages": study.artist.model.schedule.stages,
        "seconds": round(time.perf_counter() - began, 1),
        "intervals": "95 %; shares: Wilson with the effective number of trials; means: normal; distances: jackknife",
    }


def _pictures(options: argparse.Namespace) -> None:
    from imagebart.evaluation.grids import edit_sheet, prompt_sheet
    from imagebart.images import save_image

    artist = _artist(options.model, options)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, draw in (("prompts.png", prompt_sheet), ("edits.png", edit_sheet)):
        save_image(draw(artist), options.out / name, optimize=True)
        print(options.out / name)


def _words(options: argparse.Namespace) -> None:
    from imagebart.evaluation.likelihood import word_gap
    from imagebart.model import ImageBART

    model = ImageBART.from_pretrained(options.model)
    for stage in model.stages:
        print(word_gap(stage, model.schedule, model.conditioner, model.first_stage, options.samples))
