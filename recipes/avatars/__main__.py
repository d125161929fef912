"""`python -m recipes.avatars train|evaluate ...`: training the parts of the model of avatars, and measuring it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagebart.cli.evaluate import Batch, artist_of
from imagebart.cli.main import run as run_commands
from imagebart.cli.options import DEFAULT_MODEL, Model, Sampling, ScaledSampling, command
from imagebart.cli.train import Config, Run
from imagebart.progress import progress
from recipes.avatars import READER

if TYPE_CHECKING:
    from imagebart.avatars.judge import AvatarScorer
    from imagebart.evaluation.metrics import Measure
    from recipes.avatars.evaluation import Study

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help="The recipe of the model of avatars.")
train = typer.Typer(help="Train a part of the model; `python -m imagebart train assemble` puts them together.")
evaluate = typer.Typer(help="Measure the model.")
app.add_typer(train, name="train")
app.add_typer(evaluate, name="evaluate")


@command(train)
def first_stage(config: Config, run: Run) -> None:
    """The VQGAN: pixels to tokens and back."""
    from imagebart.training.config import FirstStageRun, load
    from recipes.avatars.training import train_part

    train_part(load(FirstStageRun, config), run)


@command(train)
def captions(config: Config, run: Run) -> None:
    """The text encoder: what captions claim."""
    from imagebart.training.config import load
    from recipes.avatars.training import CaptionsRun, train_captions

    train_captions(load(CaptionsRun, config), run)


@command(train)
def denoiser(config: Config, run: Run) -> None:
    """One network for every noise rate, on a trained first stage."""
    from imagebart.training.config import DenoiserRun, load
    from recipes.avatars.training import train_part

    train_part(load(DenoiserRun, config), run)


@command(train)
def stage(config: Config, run: Run) -> None:
    """One reverse step; or all of them jointly, where `t` is null."""
    from imagebart.training.config import StageRun, load
    from recipes.avatars.training import train_part

    train_part(load(StageRun, config), run)


@command(train)
def reader(config: Config, run: Run) -> None:
    """A network that reads attributes off pictures: one measures, another ranks variants."""
    from imagebart.training.config import load
    from recipes.avatars.training import ReaderRun, train_reader

    train_reader(load(ReaderRun, config), run)


@dataclass(frozen=True)
class Asked:
    """How much is measured, and where to."""

    samples: Annotated[int, typer.Option(help="Pictures for each measure.")] = 200
    seed: Annotated[int, typer.Option(help="Another seed asks other questions.")] = 0
    out: Annotated[Path | None, typer.Option(help="Where to write the numbers as JSON.")] = None
    batch: Batch = 32


@command(evaluate)
def table(asked: Asked, sampling: Sampling, model: Model = DEFAULT_MODEL) -> None:
    """The table of a model: prompts, edits, distance and so on."""
    from recipes.avatars.evaluation import evaluate as measures

    study = _study(model, asked, sampling)
    _measure(measures, study, study.pictures, model, asked)


@command(evaluate)
def best_of(asked: Asked, sampling: Sampling, model: Model = DEFAULT_MODEL) -> None:
    """How often the best of 1, 2, 4 and 8 variants is as asked."""
    from recipes.avatars.judge_evaluation import best_of, pictures

    study = _study(model, asked, sampling)
    _measure(partial(best_of, scorer=_scorer(model, study)), study, pictures(study), model, asked)


@command(evaluate)
def where(asked: Asked, sampling: Sampling, model: Model = DEFAULT_MODEL) -> None:
    """Masks found by words, edits by them, and descriptions."""
    from recipes.avatars.judge_evaluation import where

    study = _study(model, asked, sampling)
    _measure(partial(where, scorer=_scorer(model, study)), study, study.samples, model, asked)


@command(evaluate)
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
    from imagebart.evaluation.metrics import side_by_side, write_json
    from imagebart.imaging.files import save_image
    from recipes.avatars.evaluation import Renders
    from recipes.avatars.grids import PROMPTS
    from recipes.avatars.scales import SCALES, compare, pictures, sheet, studies

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


@command(evaluate)
def pictures(
    out: Annotated[Path, typer.Option(help="Folder for the three grids.")],
    sampling: Sampling,
    model: Model = DEFAULT_MODEL,
    batch: Batch = 32,
) -> None:
    """Grids of 48 prompts, 24 edits and 24 completions, to look at."""
    from imagebart.imaging.files import save_image
    from recipes.avatars.grids import completion_sheet, edit_sheet, prompt_sheet

    artist = artist_of(model, sampling, batch)
    out.mkdir(parents=True, exist_ok=True)
    for name, draw in (("prompts", prompt_sheet), ("edits", edit_sheet), ("completions", completion_sheet)):
        path = out / f"{name}.png"
        save_image(draw(artist), path, optimize=True)
        print(path)


@command(evaluate)
def words(model: Model = DEFAULT_MODEL, samples: Annotated[int, typer.Option(help="How many avatars.")] = 64) -> None:
    """Whether a model uses captions: likelihood with, without, shuffled."""
    from imagebart.models.imagebart import ImageBART
    from recipes.avatars.word_gaps import word_gaps

    for gap in word_gaps(ImageBART.from_pretrained(model), samples):
        print(gap)


@command(evaluate)
def typed(
    text: Annotated[Path, typer.Option(help="Run folder of a text encoder and its heads.")],
    show: Annotated[bool, typer.Option("--show", help="Name the seen prompts that are read wrongly.")] = False,
) -> None:
    """What a text encoder reads in prompts as people type them."""
    from imagebart.avatars.claims import CaptionReader, load_heads
    from imagebart.training.parts import load_text_encoder
    from recipes.avatars.cases import hear, heard_line, plain_prompts, typed_prompts

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
    from recipes.avatars.evaluation import Study

    return Study(artist_of(model, sampling, asked.batch), load_reader(READER), asked.samples, asked.seed)


def _measure(work: Callable[[Study], Iterable[Measure]], study: Study, pictures: int, model: str, asked: Asked) -> None:
    """Prints the table of a study, and writes its numbers where that is wanted."""
    from imagebart.evaluation.metrics import table, write_json

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


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns its exit code: 2 with one sentence on standard error for bad input."""
    return run_commands(app, "recipes.avatars", arguments)


if __name__ == "__main__":
    sys.exit(main())
