"""`python -m recipes.paper train|evaluate photographs|avatars`: the paper's claim in small, in runs/paper."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer

from imagebart.cli.main import run
from imagebart.training.config import load
from recipes.paper.evaluation import evaluate_all
from recipes.paper.training import Experiment, train_all

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)
Config = Annotated[Path, typer.Argument(help="JSON file of the experiment.")]
Folder = Annotated[Path, typer.Argument(help="Folder for its tokens, arms and figures; resumes.")]


@app.command()
def train(config: Config, folder: Folder) -> None:
    """Train all arms, on one core."""
    torch.set_num_threads(1)
    train_all(load(Experiment, config), folder)


@app.command()
def evaluate(
    config: Config,
    folder: Folder,
    seed: Annotated[int, typer.Option(help="Of masks and samples.")] = 470_047,
    first: Annotated[int, typer.Option(help="The first held-out image to measure with.", min=0)] = 96,
    count: Annotated[int, typer.Option(help="So many held-out images.", min=6)] = 256,
) -> None:
    """Measure the arms that are trained: figures.md and figures.png."""
    torch.set_num_threads(1)
    evaluate_all(load(Experiment, config), folder, seed, first, count)


main = partial(run, app, "recipes.paper")

if __name__ == "__main__":
    sys.exit(main())
