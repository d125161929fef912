"""`python -m imagebart bench`"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from imagebart.bench.measure import BATCHES, SHARES, Row, images_per_second, measure
from imagebart.bench.models import Subject, published_size, shipped, write_stand_in
from imagebart.bench.profile import shares
from imagebart.bench.report import heading, pass_report, plot, report, scales
from imagebart.bench.whole import keep, measure_whole, whole_table
from imagebart.imaging.files import save_image
from imagebart.models.imagebart import ImageBART
from imagebart.weights.published.registry import find, model_of

PROMPT = "a woman with long red hair and sunglasses"


def run(model: str, only: str | None, quick: bool, picture: Path | None) -> None:
    """Prints a table as it is measured; quick: masks of 100 and 25 %, one variant; picture: a PNG to write."""
    print(heading(), flush=True)
    groups: list[list[Subject]] = []
    if only != "published":
        shown = ImageBART.from_pretrained(model)
        groups.append(shipped(shown, PROMPT))
    if only != "shipped":
        groups.append(published_size())
    rows: list[Row] = []
    subjects = [subject for group in groups for subject in group]
    measured = measure(subjects, (1.0, 0.25) if quick else SHARES, (1,) if quick else BATCHES)
    for line in report(_kept(measured, rows)):
        print(line, flush=True)
    if only != "published" and shown.denoiser is not None:
        print(f"{shown.about.name}: {scales(images_per_second(shown, groups[0][0].condition.cond))}", flush=True)
    for line in pass_report(share for group in groups for share in shares(group, "rounded")):
        print(line, flush=True)
    if picture is not None:
        save_image(plot(rows), picture)
        print(picture)


def _kept(measured: Iterator[Row], rows: list[Row]) -> Iterator[Row]:
    for row in measured:
        rows.append(row)
        yield row


def published(name: str, figures: Path, stand_in: Path | None) -> None:
    """Prints the table of all published models measured so far, this one among them."""
    model, folder = model_of(name), find(name)
    if not folder.is_dir() and stand_in is not None:
        folder = stand_in / name
        if not folder.is_dir():
            write_stand_in(model, folder)
    for line in whole_table(keep(measure_whole(folder), figures)):
        print(line)
