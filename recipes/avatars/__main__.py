"""`python -m recipes.avatars train|evaluate ...`: training the parts of the model of avatars, and measuring it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagebart.cli.evaluate import Batch, load_image_sampler
from imagebart.cli.main import run as run_commands
from imagebart.cli.options import DEFAULT_MODEL, Model, Sampling, ScaledSampling, command
from imagebart.cli.train import Config, Run
from imagebart.training.progress import progress
from recipes.avatars import READER

if TYPE_CHECKING:
    from imagebart.evaluation.metrics import Measure
    from imagebart.worlds.attribute_classifier import AvatarScorer
    from recipes.avatars.evaluation import Study

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help="The recipe of the model of avatars.")
evaluate = typer.Typer(help="Measure the model.")
app.add_typer(evaluate, name="evaluate")


class PartName(str, Enum):
    """What can be trained; `python -m imagebart train assemble` puts the parts together."""

    first_stage = "first-stage"  # the VQGAN: pixels to tokens and back
    captions = "captions"  # the text encoder: what captions claim
    denoiser = "denoiser"  # one network for every noise level, on a trained first stage
    stage = "stage"  # one reverse step, or all of them jointly, where `t` is null
    reader = "reader"  # reads attributes off images: one measures, another ranks variants


@command(app)
def train(part: Annotated[PartName, typer.Argument(help="What to train.")], config: Config, run: Run) -> None:
    """Train a part of the model."""
    from imagebart.training.config import load
    from recipes.avatars.training import RUNS, train_part

    train_part(load(RUNS[part.value], config), run)


@dataclass(frozen=True)
class Asked:
    """How much is measured, and where to."""

    samples: Annotated[int, typer.Option(help="Images of each measure.")] = 200
    seed: Annotated[int, typer.Option(help="Of the cases and the first sample.")] = 0
    out: Annotated[Path | None, typer.Option(help="Where to write the numbers as JSON.")] = None
    batch: Batch = 32


@command(evaluate)
def table(asked: Asked, sampling: Sampling, model: Model = DEFAULT_MODEL) -> None:
    """The table of a model: prompts, edits, distance and so on."""
    from recipes.avatars.evaluation import evaluate as measures

    study = _study(model, asked, sampling)
    _measure(measures, study, study.images, model, asked)


@command(evaluate)
def painted(
    model: Model = DEFAULT_MODEL,
    samples: Annotated[int, typer.Option(help="Strokes.", min=6)] = 300,
    seed: Annotated[int, typer.Option(help="Of the cases and the first sample.")] = 0,
    exact: Annotated[bool, typer.Option("--exact", help="Only what is painted may change.")] = False,
    out: Annotated[Path | None, typer.Option(help="Where to write the numbers as JSON.")] = None,
    grid: Annotated[Path | None, typer.Option(help="Where to write forty edits, unchosen.")] = None,
) -> None:
    """Edits of masks as people paint them."""
    from imagebart.evaluation.metrics import table, write_json
    from imagebart.imaging.files import save_image
    from imagebart.pipeline import Pipeline
    from imagebart.worlds.attribute_classifier import load_classifier
    from recipes.avatars.painted import measures

    grids: dict[str, Any] = {}
    found = list(measures(Pipeline.from_pretrained(model), load_classifier(READER), samples, seed, exact, grids))
    print(table(found))
    if grid:
        save_image(grids["strokes"], grid, optimize=True)
    if out:
        write_json(out, {"model": model, "samples": samples, "seed": seed, "exact": exact}, found)


@command(evaluate)
def best_of(asked: Asked, sampling: Sampling, model: Model = DEFAULT_MODEL) -> None:
    """How often the best of 1, 2, 4 and 8 variants is as asked."""
    from recipes.avatars.scorer_evaluation import best_of, images_of_best_of

    study = _study(model, asked, sampling)
    _measure(partial(best_of, scorer=_scorer(model, study)), study, images_of_best_of(study), model, asked)


@command(evaluate)
def masks(asked: Asked, sampling: Sampling, model: Model = DEFAULT_MODEL) -> None:
    """Masks suggested by prompts, edits of them, and descriptions."""
    from recipes.avatars.scorer_evaluation import evaluate_masks

    study = _study(model, asked, sampling)
    _measure(partial(evaluate_masks, scorer=_scorer(model, study)), study, study.samples, model, asked)


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
        str | None, typer.Option(help="Folder of a model that samples from left to right, to compare.")
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="Where to write samples side by side.")] = None,
) -> None:
    """One model with several numbers of scales: prompts, completions, edits."""
    from imagebart.evaluation.metrics import side_by_side, write_json
    from imagebart.imaging.files import save_image
    from recipes.avatars.evaluation import IMAGES_EACH, SCALES, Renders, compare, comparison
    from recipes.avatars.grids import comparison_sheet

    study = _study(model, asked, sampling)
    chosen = [*(counts or ()), *(more or ())]  # `--scales 1 2` is an option and what follows it
    studies = comparison(study, chosen or SCALES, _study(baseline, asked, sampling) if baseline else None)
    began = time.perf_counter()
    work = partial(compare, renders=Renders.of(study))
    columns = {name: _run(work, one, IMAGES_EACH * one.samples, name) for name, one in studies.items()}
    print(side_by_side(columns))
    if sheet:
        save_image(comparison_sheet(studies), sheet, optimize=True)
    if asked.out:
        content = {name: [asdict(m) for m in measures] for name, measures in columns.items()}
        write_json(asked.out, {"models": content, **_about(study, began)}, [])


@command(evaluate)
def blemishes(
    asked: Asked,
    sampling: Sampling,
    model: Model = DEFAULT_MODEL,
    against: Annotated[
        list[str] | None,
        typer.Option(help="Other settings to compare at equal cases and seeds, as often as wanted: scales=4,top_p=0.5"),
    ] = None,
    test_steps: Annotated[int, typer.Option(min=0, help="Steps of the two-sample test; 0: without it.")] = 200,
    sheet: Annotated[Path | None, typer.Option(help="Where to write the images with the largest blemishes.")] = None,
) -> None:
    """Blemishes, and flat areas that are off their color."""
    from imagebart.evaluation.metrics import side_by_side, table, write_json
    from imagebart.imaging.files import save_image
    from recipes.avatars import blemishes as measures

    study = _study(model, asked, sampling)
    studies = {"as given": study} | {text: measures.with_settings(study, text) for text in against or ()}
    began = time.perf_counter()
    faults: dict[str, dict[str, measures.Faults]] = {name: {} for name in (*studies, "reconstructions")}
    work = partial(measures.evaluate_faults, kinds=measures.reconstruction_faults, found=faults["reconstructions"])
    floor = _run(work, study, study.samples, "reconstructions")
    columns = {}
    for name, one in studies.items():
        work = partial(measures.evaluate_faults, kinds=measures.faults_by_kind, found=faults[name], steps=test_steps)
        columns[name] = _run(work, one, measures.IMAGES_EACH * one.samples, name)
    differences = [
        m for name in against or () for m in measures.fault_differences(faults[name], faults["as given"], name)
    ]
    print(table(floor), side_by_side(columns), table(differences), sep="\n\n")
    if sheet:
        floors = faults.pop("reconstructions")
        shown = {f"{name}: {kind}": own for name, kinds in faults.items() for kind, own in kinds.items()}
        save_image(measures.fault_sheet(floors | shown), sheet, optimize=True)
    if asked.out:
        content = {name: [asdict(m) for m in column] for name, column in columns.items()}
        write_json(asked.out, {"model": model, "settings": content, **_about(study, began)}, [*floor, *differences])


@command(evaluate)
def grids(
    out: Annotated[Path, typer.Option(help="Folder for the three grids.")],
    sampling: Sampling,
    model: Model = DEFAULT_MODEL,
    batch: Batch = 32,
) -> None:
    """Grids of 48 prompts, 24 edits and 24 completions, to look at."""
    from imagebart.imaging.figures import save_sheets
    from recipes.avatars.grids import completion_sheet, edit_sheet, prompt_sheet

    sampler = load_image_sampler(model, sampling, batch)
    kinds = {"prompts": prompt_sheet, "edits": edit_sheet, "completions": completion_sheet}
    save_sheets(out, ((name, draw(sampler)) for name, draw in kinds.items()))


@command(app)
def examples(
    out: Annotated[Path, typer.Option(help="Folder for them.")],
    size: Annotated[int, typer.Option(help="Pixels a side.")] = 256,
) -> None:
    """Write the page's examples: avatars, a mask for each, and a prompt."""
    from recipes.avatars.grids import write_examples

    write_examples(out, size)


@command(evaluate)
def typed(
    text: Annotated[Path, typer.Option(help="Run folder of a text encoder and its heads.")],
    show: Annotated[bool, typer.Option("--show", help="Print the seen prompts that are read wrongly.")] = False,
) -> None:
    """What a text encoder reads in prompts as people type them."""
    from imagebart.training.token_task import load_text_encoder
    from imagebart.worlds.attribute_classifier import CaptionReader, load_heads
    from recipes.avatars.cases import plain_prompts, read_with, summary, typed_prompts

    encoder, conditioner = load_text_encoder(text)
    reader = CaptionReader(encoder)
    load_heads(reader, text)
    prompts = {"plain": plain_prompts(), "seen": typed_prompts("seen"), "held": typed_prompts("held")}
    readings = {name: read_with(reader, conditioner, cases) for name, cases in prompts.items()}
    for name, found in readings.items():
        print(summary(name, found))
    for one in readings["seen"] if show else []:
        if one.right < len(one.case.claims) or one.unasked:
            print(f"{one.case.text}: {one.values}")


def _scorer(model: str, study: Study) -> AvatarScorer:
    """The scorer in a model's folder."""
    from imagebart.ranking import bundled_scorer
    from imagebart.worlds.attribute_classifier import AvatarScorer

    scorer = bundled_scorer(Path(model), study.sampler.model)
    if not isinstance(scorer, AvatarScorer):
        raise ValueError(f"{model} has no scorer of avatars (judge.safetensors)")
    return scorer


def _study(model: str, asked: Asked, sampling: Sampling) -> Study:
    from imagebart.worlds.attribute_classifier import load_classifier
    from recipes.avatars.evaluation import Study

    return Study(load_image_sampler(model, sampling, asked.batch), load_classifier(READER), asked.samples, asked.seed)


def _measure(work: Callable[[Study], Iterable[Measure]], study: Study, images: int, model: str, asked: Asked) -> None:
    """Prints the table of a study, and writes its numbers where that is wanted."""
    from imagebart.evaluation.metrics import table, write_json

    began = time.perf_counter()
    measures = _run(work, study, images, "images")
    print(table(measures))
    if asked.out:
        write_json(asked.out, {"model": model, **_about(study, began)}, measures)
        print(asked.out, file=sys.stderr)


def _run(work: Callable[[Study], Iterable[Measure]], study: Study, images: int, name: str) -> list[Measure]:
    """Runs a study with a progress bar of its images; prints each total as soon as it is known."""
    measures = []
    with progress("images") as bar:
        task = bar.add_task(name, total=images)
        watched = replace(study, sampler=replace(study.sampler, progress=partial(bar.advance, task)))
        for one in work(watched):
            measures.append(one)
            if not one.group:
                line = f"{one.name}: {one.value:.4g} ({one.low:.4g} to {one.high:.4g})"
                bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
    return measures


def _about(study: Study, began: float) -> dict[str, Any]:
    """How the numbers were made."""
    return {
        "samples": study.samples,
        "seed": study.seed,
        "sampling": study.sampler.settings.model_dump(),
        "scales": study.sampler.model.scales_of(study.sampler.settings.scales),
        "seconds": round(time.perf_counter() - began, 1),
        "intervals": "95 %; shares: Wilson with the effective number of trials; means: normal; distances: jackknife",
    }


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns its exit code: 2 with one sentence on standard error for bad input."""
    return run_commands(app, "recipes.avatars", arguments)


if __name__ == "__main__":
    sys.exit(main())
