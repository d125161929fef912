"""`python -m imagebart evaluate paper`: the paper's measures of one of its models, with its figures beside ours."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from imagebart.cli.options import add_sampling_options, given_settings


def add_paper_job(jobs: Any) -> None:
    """Adds the job to those of `evaluate`."""
    paper = jobs.add_parser("paper", help="FID, IS, precision, recall and so on, beside the paper's figures")
    paper.add_argument("--model", required=True, help="a published model's name, or a folder")
    paper.add_argument("--data", type=Path, required=True, help="folder of real pictures")
    paper.add_argument(
        "--features", required=True, help="what looks at pictures: Inception's .pth file, or a classifier's folder"
    )
    paper.add_argument("--out", type=Path, required=True, help="folder for samples, which are kept, and the table")
    paper.add_argument("--samples", type=int, default=1000, help="pictures to draw (default 1000; the paper: 50,000)")
    paper.add_argument("--pictures", type=int, default=1000, help="real ones, at most (default 1000)")
    paper.add_argument("--prompts", type=Path, help="file with a prompt or class a line (default: all classes)")
    paper.add_argument("--best-of", type=int, default=1, help="keep the best of so many (default: all are kept)")
    paper.add_argument("--judge", help="what ranks, or scores a text model: a folder or Hub name")
    paper.add_argument("--seed", type=int, default=0, help="of the first sample (default 0)")
    paper.add_argument("--batch", type=int, default=8, help="pictures drawn at once (default 8)")
    add_sampling_options(paper)
    paper.set_defaults(job_handler=_paper)


def _paper(options: argparse.Namespace) -> None:
    from imagebart.evaluation.drawing import Artist
    from imagebart.evaluation.looking import load_look
    from imagebart.evaluation.paper import PaperStudy, evaluate_paper, neighbours, pictures_in, rows_table
    from imagebart.imaging.files import save_image
    from imagebart.models.imagebart import ImageBART
    from imagebart.rankers import load_ranker
    from imagebart.writing import write_text

    for name in ("samples", "pictures", "best_of", "batch"):
        if getattr(options, name) < 1:
            raise ValueError(f"{name.replace('_', '-')} is {getattr(options, name)}, expected 1 or more")
    if options.best_of > 1 and options.judge is None:
        raise ValueError(f"the best of {options.best_of} takes a --judge to rank them")
    data, look = pictures_in(options.data, options.pictures), load_look(options.features)
    model = ImageBART.from_pretrained(options.model)
    study = PaperStudy(
        Artist(model, given_settings(options, model.about.sampling), options.batch),
        data,
        look,
        options.out,
        options.samples,
        _prompts(options.prompts, model),
        options.best_of,
        load_ranker(options.judge, model) if options.judge else None,
        options.seed,
    )
    rows = []
    for row in evaluate_paper(study):
        rows.append(row)
        print(f"{row.name}: {row.value:.4g}", file=sys.stderr)
    write_text(options.out / "table.md", rows_table(rows) + "\n")
    save_image(neighbours(study), options.out / "neighbours.png")
    print(rows_table(rows))


def _prompts(path: Path | None, model: Any) -> tuple[str, ...]:
    """What to draw: a file's lines, or all classes of a class model."""
    if path is not None:
        return tuple(line for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    if model.conditioner.kind == "text":
        raise ValueError("a text model takes --prompts, a file with one a line")
    return tuple(getattr(model.conditioner, "names", ()))
