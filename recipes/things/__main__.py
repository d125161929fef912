"""`python -m recipes.things train|examples|evaluate ...`: training the parts of the model of things, measuring it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagebart.cli.evaluate import load_image_sampler
from imagebart.cli.main import run as run_commands
from imagebart.cli.options import Sampling, command
from imagebart.cli.train import Config, Run

if TYPE_CHECKING:
    from recipes.things.evaluation import Study

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help="The recipe of the model of things.")
train = typer.Typer(help="Train a part of the model.")
evaluate = typer.Typer(help="Measure the model.")
app.add_typer(train, name="train")
app.add_typer(evaluate, name="evaluate")

BATCH = 8  # images drawn together
Model = Annotated[str, typer.Option(help="A model's folder.")]
Seed = Annotated[int, typer.Option(help="Of the cases and the samples.")]
MODEL = "checkpoints/things"


@command(train)
def tokens(run: Run) -> None:
    """The codes by k-means, the encoder of patches, and the decoder's memory, in one go."""
    from recipes.things.tokens import train_tokens

    train_tokens(run)


@command(train)
def captions(config: Config, run: Run) -> None:
    """The text encoder: what captions say."""
    from imagebart.training.config import load
    from recipes.things.training import CaptionsRun, train_captions

    train_captions(load(CaptionsRun, config), run)


@command(train)
def decoder(config: Config, run: Run) -> None:
    """The decoder's convolutions, on trained tokens."""
    from imagebart.training.config import FirstStageRun, load
    from imagebart.training.vqgan import train_first_stage
    from recipes.things.scenes import Scenes, of_every_size

    train_first_stage(load(FirstStageRun, config), run, Scenes(of_every_size))


@command(train)
def denoiser(config: Config, run: Run) -> None:
    """One network for every noise level, on trained tokens and a trained text encoder."""
    from imagebart.training.config import DenoiserRun, load
    from imagebart.training.denoiser import train_denoiser
    from recipes.things.scenes import MARGIN
    from recipes.things.training import THINGS

    train_denoiser(load(DenoiserRun, config).replace(context_margin=MARGIN), run, THINGS)


@command(train)
def reader(run: Run) -> None:
    """Which things squares of images show: it measures, and ships as the scorer."""
    from recipes.things.reader import train_reader

    train_reader(run)


@command(app)
def examples(out: Annotated[Path, typer.Option(help="Folder for the page's examples.")]) -> None:
    """Write the page's examples: scenes, a mask for each, and a prompt."""
    from recipes.things.examples import write_examples

    write_examples(out)


@command(evaluate)
def table(
    sampling: Sampling,
    model: Model = MODEL,
    samples: Annotated[int, typer.Option(help="Images of each measure.", min=20)] = 400,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Where to write the numbers as JSON.")] = None,
    only: Annotated[str, typer.Option(help="One kind of measure; pairs is of a model without them.")] = "",
) -> None:
    """The table of a model."""
    from imagebart.evaluation.metrics import Measure, write_json
    from imagebart.evaluation.metrics import table as as_table
    from recipes.things import evaluation as of

    began = time.perf_counter()
    kinds: dict[str, Callable[[Study], Iterable[Measure]]] = {
        "readings": of.readings,
        "edits": of.edits,
        "removals": of.removals,
        "prompts": of.prompts,
        "places": of.places_by_words,
        "pairs": of.held_out_pairs,  # which the shipped model was trained on
    }
    if only and only not in kinds:
        raise ValueError(f"--only is {only!r}, expected one of {', '.join(kinds)}")
    study = _study(model, sampling, samples, seed)
    measures: list[Measure] = []
    for kind in [only] if only else [kind for kind in kinds if kind != "pairs"]:
        for one in kinds[kind](study):
            measures.append(one)
            if not one.group:
                print(f"{one.name}: {one.value:.4g} ({one.low:.4g} to {one.high:.4g})", file=sys.stderr, flush=True)
    print(as_table(measures))
    if out:
        about = {"model": model, "samples": samples, "seed": seed, "sampling": study.sampler.settings.model_dump()}
        write_json(out, {**about, "seconds": round(time.perf_counter() - began, 1)}, measures)


@command(evaluate)
def painted(
    model: Model = MODEL,
    samples: Annotated[int, typer.Option(help="Edits of each kind.", min=6)] = 300,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Where to write the numbers as JSON.")] = None,
    grids: Annotated[Path | None, typer.Option(help="Folder for forty edits of each kind, unchosen.")] = None,
) -> None:
    """Edits of masks as people paint them."""
    from imagebart.evaluation.metrics import table, write_json
    from imagebart.imaging.figures import save_sheets
    from imagebart.pipeline import Pipeline
    from recipes.things.painted import measures

    sheets: dict[str, Any] = {}
    found = list(measures(Pipeline.from_pretrained(model), samples, seed, sheets))
    print(table(found))
    if grids:
        save_sheets(grids, sheets.items())
    if out:
        write_json(out, {"model": model, "samples": samples, "seed": seed}, found)


@command(evaluate)
def grids(
    out: Annotated[Path, typer.Option(help="Folder for the images.")],
    sampling: Sampling,
    model: Model = MODEL,
    seed: Seed = 0,
) -> None:
    """Forty edits, forty removals, forty prompts, and every noun in the same scene. Nothing is chosen."""
    from imagebart.imaging.figures import save_sheets
    from recipes.things import evaluation as of

    study = _study(model, sampling, 40, seed)
    kinds = {"edits": of.edit_grid, "removals": of.removal_grid, "prompts": of.prompt_grid, "nouns": of.noun_sheet}
    save_sheets(out, ((name, draw(study)) for name, draw in kinds.items()))


def _study(model: str, sampling: Sampling, samples: int, seed: int) -> Study:
    from imagebart.ranking import bundled_scorer
    from imagebart.worlds.things import ThingScorer
    from recipes.things.evaluation import Study

    sampler = load_image_sampler(model, sampling, BATCH)
    scorer = bundled_scorer(Path(model), sampler.model)
    if not isinstance(scorer, ThingScorer):
        raise ValueError(f"{model} has no scorer of things (judge.safetensors)")
    return Study(sampler, scorer, samples, seed)


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns its exit code: 2 with one sentence on standard error for bad input."""
    return run_commands(app, "recipes.things", arguments)


if __name__ == "__main__":
    sys.exit(main())
