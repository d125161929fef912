"""`imagebart evaluate ...`: tables, pictures and files of what a model of avatars can do."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagebart.cli.options import DEFAULT_MODEL, Model, Sampling, ScaledSampling, command
from imagebart.progress import progress

if TYPE_CHECKING:
    from imagebart.avatars.judge import AvatarScorer
    from imagebart.evaluation.drawing import Artist
    from imagebart.evaluation.report import Measure
    from imagebart.evaluation.study import Study
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagebart.evaluation.paper import PaperStudy


app = typer.Typer(help="Measure models of avatars.")

Batch = Annotated[int, typer.Option(help="Pictures drawn at once.")]


@dataclass(frozen=True)
class Asked:
    """How much is measured, and where to."""

    samples: Annotated[int, typer.Option(help="Pictures for each measure.")] = 200
    seed: Annotated[int, typer.Option(help="Another seed asks other questions.")] = 0
    out: Annotated[Path | None, typer.Option(help="Where to write the numbers as JSON.")] = None
    batch: Batch = 32


@command(app)
def avatars(asked: Asked, sampling: Sampling, model: Model = DEFAULT_MODEL) -> None:
    """The table of a model: prompts, edits, distance and so on."""
    from imagebart.evaluation.avatars import evaluate

    study = _study(model, asked, sampling)
    _measure(evaluate, study, study.pictures, model, asked)


@command(app)
def best_of(asked: Asked, sampling: Sampling, model: Model = DEFAULT_MODEL) -> None:
    """How often the best of 1, 2, 4 and 8 variants is as asked."""
    from imagebart.evaluation.best_of import best_of, pictures

    study = _study(model, asked, sampling)
    _measure(partial(best_of, scorer=_scorer(model, study)), study, pictures(study), model, asked)


@command(app)
def where(asked: Asked, sampling: Sampling, model: Model = DEFAULT_MODEL) -> None:
    """Masks found by words, edits by them, and descriptions."""
    from imagebart.evaluation.where import where

    study = _study(model, asked, sampling)
    _measure(partial(where, scorer=_scorer(model, study)), study, study.samples, model, asked)


@command(app)
def scales(
    asked: Asked,
    sampling: ScaledSampling,
    model: Model = DEFAULT_MODEL,
    more: Annotated[list[int] | None, typer.Argument(hidden=True)] = None,
    counts: Annotated[
        list[int] | None, typer.Option("--scales", help="T, as many as wanted; 1 2 3 4 8 if not given.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Folder of a model that draws left to right, to stand beside.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Where to write samples side by side.")] = None,
) -> None:
    """One model with several numbers of scales, at drawing, completing, editing."""
    from imagebart.evaluation.avatars import Renders
    from imagebart.evaluation.grids import PROMPTS
    from imagebart.evaluation.report import side_by_side, write_json
    from imagebart.evaluation.scales import SCALES, compare, pictures, sheet, studies
    from imagebart.imaging.files import save_image

    study = _study(model, asked, sampling)
    chosen = [*(counts or ()), *(more or ())]  # `--scales 1 2` is an option and what follows it
    beside = _study(baseline, asked, sampling) if baseline else None
    found = studies(study, chosen or SCALES, beside)
    began = time.perf_counter()
    work = partial(compare, renders=Renders.of(study))
    columns = {name: _followed(work, each, pictures(each), name) for name, each in found.items()}
    print(side_by_side(columns))
    if picture:
        save_image(sheet(found, PROMPTS), picture, optimize=True)
    if asked.out:
        content = {name: [asdict(m) for m in measures] for name, measures in columns.items()}
        write_json(asked.out, {"models": content, **_about(study, began)}, [])


@command(app)
def pictures(
    out: Annotated[Path, typer.Option(help="Folder for the three grids.")],
    sampling: Sampling,
    model: Model = DEFAULT_MODEL,
    batch: Batch = 32,
) -> None:
    """Grids of 48 prompts, 24 edits and 24 completions, to look at."""
    from imagebart.evaluation.grids import completion_sheet, edit_sheet, prompt_sheet
    from imagebart.imaging.files import save_image

    artist = artist_of(model, sampling, batch)
    out.mkdir(parents=True, exist_ok=True)
    for name, draw in (("prompts", prompt_sheet), ("edits", edit_sheet), ("completions", completion_sheet)):
        path = out / f"{name}.png"
        save_image(draw(artist), path, optimize=True)
        print(path)


@command(app)
def words(model: Model = DEFAULT_MODEL, samples: Annotated[int, typer.Option(help="How many avatars.")] = 64) -> None:
    """Whether a model uses captions: likelihood with, without, shuffled."""
    from imagebart.evaluation.likelihood import word_gaps
    from imagebart.models.imagebart import ImageBART

    for gap in word_gaps(ImageBART.from_pretrained(model), samples):
        print(gap)


@command(app)
def typed(
    text: Annotated[Path, typer.Option(help="Run folder of a text encoder and its heads.")],
    show: Annotated[bool, typer.Option("--show", help="Name the seen prompts that are read wrongly.")] = False,
) -> None:
    """What a text encoder reads in prompts as people type them."""
    from imagebart.avatars.claims import CaptionReader, load_heads
    from imagebart.evaluation.plain import plain_prompts
    from imagebart.evaluation.typed import hear, heard_line, typed_prompts
    from imagebart.training.parts import load_text_encoder

    encoder, conditioner = load_text_encoder(text)
    reader = CaptionReader(encoder)
    load_heads(reader, text)
    seen = hear(reader, conditioner, typed_prompts("seen"))
    print(heard_line("plain", hear(reader, conditioner, plain_prompts())))
    print(heard_line("seen", seen))
    print(heard_line("held", hear(reader, conditioner, typed_prompts("held"))))
    for one in seen if show else []:
        if one.right < len(one.case.claims) or one.unasked:
            print(f"{one.case.text}: {one.values}")


def artist_of(model: str | Path, sampling: Sampling, batch: int) -> Artist:
    """A model at its best settings, or at those asked for."""
    from imagebart.evaluation.drawing import Artist
    from imagebart.models.imagebart import ImageBART

    if batch < 1:
        raise ValueError(f"a batch of {batch}, expected 1 or more")
    loaded = ImageBART.from_pretrained(model)
    return Artist(loaded, sampling.over(loaded.about.sampling), batch)


def _scorer(model: str, study: Study) -> AvatarScorer:
    """The scorer in a model's folder."""
    from imagebart.avatars.judge import AvatarScorer
    from imagebart.ranking import bundled_scorer

    scorer = bundled_scorer(Path(model), study.artist.model)
    if not isinstance(scorer, AvatarScorer):
        raise ValueError(f"{model} has no scorer of avatars (judge.safetensors)")
    return scorer


def _study(model: str, asked: Asked, sampling: Sampling) -> Study:
    from imagebart.avatars.reader import load_reader
    from imagebart.evaluation.study import Study

    return Study(artist_of(model, sampling, asked.batch), load_reader(), asked.samples, asked.seed)


def _measure(work: Callable[[Study], Iterable[Measure]], study: Study, pictures: int, model: str, asked: Asked) -> None:
    """Prints the table of a study, and writes its numbers where that is wanted."""
    from imagebart.evaluation.report import table, write_json

    began = time.perf_counter()
    measures = _followed(work, study, pictures, "pictures")
    print(table(measures))
    if asked.out:
        write_json(asked.out, {"model": model, **_about(study, began)}, measures)
        print(asked.out, file=sys.stderr)


def _followed(work: Callable[[Study], Iterable[Measure]], study: Study, pictures: int, name: str) -> list[Measure]:
    """Runs a study with a bar of the pictures drawn; says each sum as soon as it is known."""
    measures = []
    with progress("pictures") as bar:
        task = bar.add_task(name, total=pictures)
        watched = replace(study, artist=replace(study.artist, drawn=partial(bar.advance, task)))
        for step in work(watched):
            measures.append(step)
            if not step.group:
                said = f"{step.name}: {step.value:.4g} ({step.low:.4g} to {step.high:.4g})"
                bar.console.print(said, markup=False, highlight=False, soft_wrap=True)
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


# `imagebart evaluate paper`: the paper's measures of one of its models, with its figures beside ours.


PATIENCE = timedelta(days=7)  # of processes that have drawn their share, with those that have not


@dataclass(frozen=True)
class PaperOptions:
    """What is measured, and where to."""

    model: Annotated[str, typer.Option(help="A published model's name, or a folder.")]
    data: Annotated[Path, typer.Option(help="Folder of real pictures.")]
    features: Annotated[str, typer.Option(help="What looks at them: Inception's .pth file, or a classifier's folder.")]
    out: Annotated[Path, typer.Option(help="Folder for samples, which are kept, and the table.")]
    samples: Annotated[int, typer.Option(help="Pictures to draw; the paper has 50,000.", min=1)] = 1000
    pictures: Annotated[int, typer.Option(help="Real ones, at most.", min=1)] = 1000
    prompts: Annotated[Path | None, typer.Option(help="File with a prompt or class a line; else all classes.")] = None
    best_of: Annotated[int, typer.Option(help="Keep the best of so many.", min=1)] = 1
    scorer: Annotated[str | None, typer.Option(help="What ranks, or scores a text model: a folder or Hub name.")] = None
    seed: Annotated[int, typer.Option(help="Of the first sample.")] = 0
    batch: Annotated[int, typer.Option(help="Pictures drawn at once.", min=1)] = 8


@command(app)
def paper(asked: PaperOptions, sampling: Sampling) -> None:
    """FID, Inception score, precision, recall, speed and so on, beside the paper's figures.

    Started by `accelerate launch`, several processes share out what is drawn.
    """
    from accelerate import PartialState

    from imagebart.atomic_io import write_text
    from imagebart.evaluation.paper import draw, evaluate_paper, images_per_second, neighbours, rows_table
    from imagebart.imaging.files import save_image

    processes = PartialState(timeout=PATIENCE)
    device = str(processes.device) if processes.device.type == "cuda" else "cpu"
    study = _paper_study(asked, sampling, device)
    study = replace(study, process=processes.process_index, processes=processes.num_processes)
    draw(study)
    processes.wait_for_everyone()
    if not processes.is_main_process:
        return
    rows = []
    for row in evaluate_paper(study):
        rows.append(row)
        print(f"{row.name}: {row.value:.4g}", file=sys.stderr)
    write_text(asked.out / "table.md", rows_table(rows) + "\n")
    save_image(neighbours(study), asked.out / "neighbours.png")
    print(rows_table(rows))
    rates = images_per_second(study)
    print("images a second: " + ", ".join(f"T = {t}: {rate:.2f}" for t, rate in rates.items()))


def _paper_study(asked: PaperOptions, sampling: Sampling, device: str) -> PaperStudy:
    from imagebart.evaluation.drawing import Artist
    from imagebart.evaluation.paper import PaperStudy, asked_for, load_look, pictures_in
    from imagebart.models.imagebart import ImageBART
    from imagebart.ranking import load_scorer

    if asked.best_of > 1 and asked.scorer is None:
        raise ValueError(f"the best of {asked.best_of} takes a --scorer to rank them")
    data, look = pictures_in(asked.data, asked.pictures), load_look(asked.features)
    model = ImageBART.from_pretrained(asked.model, device)
    return PaperStudy(
        Artist(model, sampling.over(model.about.sampling), asked.batch),
        data,
        look,
        asked.out,
        asked.samples,
        asked_for(asked.prompts, model),
        asked.best_of,
        load_scorer(asked.scorer, model) if asked.scorer else None,
        asked.seed,
    )
