"""The command line of a recipe: `python -m recipes.NAME train|assemble|evaluate|examples`."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

from imagebart.cli.main import run as run_commands
from imagebart.core.errors import InputError
from imagebart.core.settings import Settings
from imagebart.evaluation.metrics import Measure, report
from imagebart.imaging.masks import MASK_SUFFIX
from imagebart.model import ImageBART
from imagebart.models.imagebart import About
from imagebart.pipeline import Pipeline
from imagebart.training.config import load
from imagebart.weights.folder import load_networks
from recipes.evaluation import Case
from recipes.training import Trainings

Measures = Callable[[Pipeline, int, int, dict[str, Image.Image]], Iterable[Measure]]  # of samples, a seed; fills grids


class Parts(Settings):
    """The run folders that a model is made of."""

    first_stage: str
    denoiser: str
    about: About


def command_line(
    name: str, trainings: Trainings, measures: Measures, page_examples: Callable[[], Iterator[tuple[str, Case]]]
) -> Callable[..., int]:
    """The commands of a recipe: called with arguments, or those of the process, runs one; returns its exit code."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=f"The recipe of the model of {name}.")
    parts = ", ".join(trainings)

    @app.command()
    def train(
        part: Annotated[str, typer.Argument(help=parts)],
        run: Annotated[Path, typer.Option(help="Folder for log, samples and checkpoints; resumes.")],
        config: Annotated[Path, typer.Option(help=f"JSON file of settings, see recipes/{name}/configs.")],
    ) -> None:
        """Train a part of the model."""
        if part not in trainings:
            raise InputError(f"There is no part {part!r}; there are {parts}.")
        settings, train_part = trainings[part]
        train_part(load(settings, config), run)

    @app.command()
    def assemble(
        config: Annotated[Path, typer.Option(help="JSON file: run folders, and what the model is.")],
        out: Annotated[Path, typer.Option(help="The model's folder.")],
    ) -> None:
        """Write trained parts as one model."""
        parts = load(Parts, config)
        drawing = load_networks(Path(parts.denoiser), cls=ImageBART)
        first_stage = load_networks(Path(parts.first_stage), cls=ImageBART).first_stage
        model = ImageBART(first_stage, drawing.denoiser or [], drawing.conditioner, parts.about)
        model.save_pretrained(out, "float16")

    @app.command()
    def evaluate(
        model: Annotated[str, typer.Option(help="A model's folder.")] = f"checkpoints/{name}",
        samples: Annotated[int, typer.Option(help="Cases of each measure.", min=6)] = 300,
        seed: Annotated[int, typer.Option(help="Of the cases and the first sample.")] = 0,
        out: Annotated[Path | None, typer.Option(help="Where to write the numbers as JSON.")] = None,
        grids: Annotated[Path | None, typer.Option(help="Folder for images to look at, unchosen.")] = None,
    ) -> None:
        """Measure a model, with the page's settings: the figures of its card."""
        pictures: dict[str, Image.Image] = {}
        known = measures(Pipeline.from_pretrained(model), samples, seed, pictures)
        report(known, {"model": model, "samples": samples, "seed": seed}, out)
        if grids:
            grids.mkdir(parents=True, exist_ok=True)
            for title, picture in pictures.items():
                picture.save(grids / f"{title}.webp", quality=80)

    @app.command()
    def examples(out: Annotated[Path, typer.Option(help="Folder for them.")]) -> None:
        """Write the page's examples: NAME.png, NAME.mask.png and NAME.txt, the words; without words, a removal."""
        out.mkdir(parents=True, exist_ok=True)
        for title, case in page_examples():
            case.image.save(out / f"{title}.png", optimize=True)
            case.mask.save(out / f"{title}{MASK_SUFFIX}", optimize=True)
            if case.words:
                (out / f"{title}.txt").write_text(case.words + "\n", encoding="utf-8")

    return partial(run_commands, app, f"recipes.{name}")
