"""`imagebart evaluate paper`: the paper's measures of one of its models, with its figures beside ours."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imagebart.cli.options import Sampling, command

if TYPE_CHECKING:
    from imagebart.evaluation.paper import PaperStudy

PATIENCE = timedelta(days=7)  # of processes that have drawn their share, with those that have not

app = typer.Typer()


@dataclass(frozen=True)
class Asked:
    """What is measured, and where to."""

    model: Annotated[str, typer.Option(help="A published model's name, or a folder.")]
    data: Annotated[Path, typer.Option(help="Folder of real pictures.")]
    features: Annotated[str, typer.Option(help="What looks at them: Inception's .pth file, or a classifier's folder.")]
    out: Annotated[Path, typer.Option(help="Folder for samples, which are kept, and the table.")]
    samples: Annotated[int, typer.Option(help="Pictures to draw; the paper has 50,000.", min=1)] = 1000
    pictures: Annotated[int, typer.Option(help="Real ones, at most.", min=1)] = 1000
    prompts: Annotated[Path | None, typer.Option(help="File with a prompt or class a line; else all classes.")] = None
    best_of: Annotated[int, typer.Option(help="Keep the best of so many.", min=1)] = 1
    judge: Annotated[str | None, typer.Option(help="What ranks, or scores a text model: a folder or Hub name.")] = None
    seed: Annotated[int, typer.Option(help="Of the first sample.")] = 0
    batch: Annotated[int, typer.Option(help="Pictures drawn at once.", min=1)] = 8


@command(app)
def paper(asked: Asked, sampling: Sampling) -> None:
    """FID, Inception score, precision, recall, speed and so on, beside the paper's figures.

    Started by `accelerate launch`, several processes share out what is drawn.
    """
    from accelerate import PartialState

    from imagebart.evaluation.paper import draw, evaluate_paper, neighbours, rows_table
    from imagebart.imaging.files import save_image
    from imagebart.writing import write_text

    processes = PartialState(timeout=PATIENCE)
    device = str(processes.device) if processes.device.type == "cuda" else "cpu"
    study = replace(_study(asked, sampling, device), process=processes.process_index, processes=processes.num_processes)
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
    print(_speed(study))


def _speed(study: PaperStudy) -> str:
    """Images a second, in a line."""
    from imagebart.bench.measure import images_per_second
    from imagebart.bench.report import scales

    conditioner = study.artist.model.conditioner
    cond = conditioner.encode([study.prompt(0)]).tokens if conditioner.length else None
    return scales(images_per_second(study.artist.model, cond, study.artist.batch))


def _study(asked: Asked, sampling: Sampling, device: str) -> PaperStudy:
    from imagebart.evaluation.drawing import Artist
    from imagebart.evaluation.looking import load_look
    from imagebart.evaluation.paper import PaperStudy, asked_for, pictures_in
    from imagebart.models.imagebart import ImageBART
    from imagebart.rankers import load_ranker

    if asked.best_of > 1 and asked.judge is None:
        raise ValueError(f"the best of {asked.best_of} takes a --judge to rank them")
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
        load_ranker(asked.judge, model) if asked.judge else None,
        asked.seed,
    )
