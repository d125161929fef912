"""`python -m imagebart evaluate ...`: tables, pictures and files of what a model of avatars can do."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagebart.cli.options import add_model_option, add_sampling_options, add_scales_option, given_settings
from imagebart.cli.paper import add_paper_job

if TYPE_CHECKING:
    from imagebart.evaluation.drawing import Artist
    from imagebart.evaluation.report import Measure
    from imagebart.evaluation.study import Study


def add_commands(commands: Any) -> None:
    """Adds `evaluate` with its jobs to the command line's subparsers."""
    evaluate = commands.add_parser("evaluate", help="measure models of avatars")
    jobs = evaluate.add_subparsers(dest="job", required=True)

    avatars = jobs.add_parser("avatars", help="the table of a model: prompts, edits, distance and so on")
    add_model_option(avatars)
    _study_options(avatars)
    add_scales_option(avatars)
    avatars.set_defaults(job_handler=_avatars)

    best_of = jobs.add_parser("best-of", help="how often the best of 1, 2, 4 and 8 variants is as asked")
    add_model_option(best_of)
    _study_options(best_of)
    add_scales_option(best_of)
    best_of.set_defaults(job_handler=_best_of)

    scales = jobs.add_parser("scales", help="one model with several numbers of scales, at drawing, completing, editing")
    add_model_option(scales)
    scales.add_argument("--baseline", help="folder of a model that draws left to right, to stand beside")
    scales.add_argument(
        "--scales", type=int, nargs="+", default=[1, 2, 3, 4, 8], dest="counts", help="T (default 1 2 3 4 8)"
    )
    scales.add_argument("--picture", type=Path, help="where to write samples side by side")
    _study_options(scales)
    scales.set_defaults(job_handler=_scales)

    pictures = jobs.add_parser("pictures", help="grids of 48 prompts, 24 edits and 24 completions, to look at")
    add_model_option(pictures)
    pictures.add_argument("--out", type=Path, required=True, help="folder for the three grids")
    _sampling_options(pictures)
    add_scales_option(pictures)
    pictures.set_defaults(job_handler=_pictures)

    words = jobs.add_parser("words", help="whether a model uses captions: likelihood with, without, shuffled")
    add_model_option(words)
    words.add_argument("--samples", type=int, default=64, help="avatars (default 64)")
    words.set_defaults(job_handler=_words)

    typed = jobs.add_parser("typed", help="what a text encoder reads in prompts as people type them")
    typed.add_argument("--text", type=Path, required=True, help="run folder of a text encoder and its heads")
    typed.add_argument("--show", action="store_true", help="name the seen prompts that are read wrongly")
    typed.set_defaults(job_handler=_typed)
    add_paper_job(jobs)
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
    from imagebart.models.imagebart import ImageBART

    if options.batch < 1:
        raise ValueError(f"a batch of {options.batch}, expected 1 or more")
    loaded = ImageBART.from_pretrained(model)
    return Artist(loaded, given_settings(options, loaded.about.sampling), options.batch)


def _study(model: str, options: argparse.Namespace) -> Study:
    from imagebart.avatars.reader import load_reader
    from imagebart.evaluation.study import Study

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


def _best_of(options: argparse.Namespace) -> None:
    from imagebart.avatars.judge import AvatarJudge
    from imagebart.evaluation.best_of import best_of, pictures
    from imagebart.evaluation.report import table, write_json
    from imagebart.judge import load_judge

    study = _study(options.model, options)
    judge = load_judge(Path(options.model), study.artist.model)
    if not isinstance(judge, AvatarJudge):
        raise ValueError(f"{options.model} has no judge of avatars (judge.safetensors) that could rank variants")
    began = time.perf_counter()
    measures = _followed(partial(best_of, judge=judge), study, pictures(study), "pictures")
    print(table(measures))
    if options.out:
        write_json(options.out, {"model": options.model, **_about(study, began)}, measures)


def _scales(options: argparse.Namespace) -> None:
    from imagebart.evaluation.avatars import Renders
    from imagebart.evaluation.grids import PROMPTS
    from imagebart.evaluation.report import side_by_side, write_json
    from imagebart.evaluation.scales import compare, pictures, sheet, studies
    from imagebart.imaging.files import save_image

    study = _study(options.model, options)
    found = studies(study, options.counts, _study(options.baseline, options) if options.baseline else None)
    began = time.perf_counter()
    work = partial(compare, renders=Renders.of(study))
    columns = {name: _followed(work, each, pictures(each), name) for name, each in found.items()}
    print(side_by_side(columns))
    if options.picture:
        save_image(sheet(found, PROMPTS), options.picture, optimize=True)
    if options.out:
        content = {name: [asdict(m) for m in measures] for name, measures in columns.items()}
        write_json(options.out, {"models": content, **_about(study, began)}, [])


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
        "scales": study.artist.model.scales_of(study.artist.settings.scales),
        "seconds": round(time.perf_counter() - began, 1),
        "intervals": "95 %; shares: Wilson with the effective number of trials; means: normal; distances: jackknife",
    }


def _pictures(options: argparse.Namespace) -> None:
    from imagebart.evaluation.grids import completion_sheet, edit_sheet, prompt_sheet
    from imagebart.imaging.files import save_image

    artist = _artist(options.model, options)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, draw in (("prompts", prompt_sheet), ("edits", edit_sheet), ("completions", completion_sheet)):
        path = options.out / f"{name}.png"
        save_image(draw(artist), path, optimize=True)
        print(path)


def _words(options: argparse.Namespace) -> None:
    from imagebart.evaluation.likelihood import word_gaps
    from imagebart.models.imagebart import ImageBART

    model = ImageBART.from_pretrained(options.model)
    for gap in word_gaps(model, options.samples):
        print(gap)


def _typed(options: argparse.Namespace) -> None:
    from imagebart.avatars.claims import CaptionReader, load_heads
    from imagebart.evaluation.plain import plain_prompts
    from imagebart.evaluation.typed import hear, heard_line, typed_prompts
    from imagebart.training.parts import read_text_encoder

    encoder, conditioner = read_text_encoder(options.text)
    reader = CaptionReader(encoder)
    load_heads(reader, options.text)
    seen = hear(reader, conditioner, typed_prompts("seen"))
    print(heard_line("plain", hear(reader, conditioner, plain_prompts())))
    print(heard_line("seen", seen))
    print(heard_line("held", hear(reader, conditioner, typed_prompts("held"))))
    for one in seen if options.show else []:
        if one.right < len(one.case.claims) or one.unasked:
            print(f"{one.case.text}: {one.values}")
