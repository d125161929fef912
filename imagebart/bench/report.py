"""The benchmark as a table and as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from PIL import Image

from imagebart.bench.machine import bytes_per_second, cpu_name
from imagebart.bench.measure import Row
from imagebart.bench.profile import PURPOSES, Share
from imagebart.imaging.figures import chart

HEADINGS = (
    "stage, batch, masked", "method", "seconds", "times naive", "passes", "accepted run", "of it once",
    "pass / limit", "as naive", "peak GB",
)  # fmt: skip


def heading() -> str:
    """What it is measured on."""
    rate = bytes_per_second(400_000_000) / 1e9
    return (
        f"{cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}; reads {rate:.1f} GB/s from memory"
    )


def report(rows: Iterable[Row]) -> Iterable[str]:
    """The lines of a table, as the rows come.

    accepted run: tokens of a variant drawn in a pass. of it once: seconds for what is computed once a stage, such as
    the encoder. pass / limit: the rest per pass, over the time to read the decoder's weights. as naive: drawn tokens
    that the naive way draws too.
    """
    yield _line(HEADINGS)
    yield _line(["---"] * len(HEADINGS))
    for row in rows:
        yield _line(
            (
                f"{row.subject}, {row.batch}, {row.share:.0%}",
                row.method,
                f"{row.seconds:.3f}",
                f"{row.naive / row.seconds:.1f}",
                row.passes,
                f"{(row.tokens if '+' in row.method else row.passes) / row.passes:.1f}",
                f"{row.start:.3f}",
                "" if row.method == "naive" else f"{row.over_limit:.1f}",
                f"{row.same:.1%}",
                f"{row.memory:.2f}",
            )
        )


def pass_report(shares: Iterable[Share]) -> Iterable[str]:
    """The lines of a table of where passes' milliseconds go; rest: Python, and PyTorch's way to its kernels."""
    yield _line(("a pass of", "rows", "threads", "ms", *PURPOSES, "rest"))
    yield _line(["---"] * (5 + len(PURPOSES)))
    for share in shares:
        rest = max(share.seconds - sum(share.parts.values()), 0.0)
        times = [f"{1e3 * seconds:.2f}" for seconds in (share.seconds, *share.parts.values(), rest)]
        yield _line((share.subject, share.rows, share.threads, *times))


def scales(rates: Mapping[int, float]) -> str:
    """Images a second against T, in a line."""
    return "images a second: " + ", ".join(f"T = {t}: {rate:.2f}" for t, rate in rates.items())


def _line(cells: Iterable[object]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def plot(rows: Sequence[Row]) -> Image.Image:
    """Seconds against masked tokens, batch 1, a line for each stage, with drafts and the weights as they are."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row.batch == 1 and row.method == "+ drafts":
            lines.setdefault(row.subject, []).append((row.tokens, row.seconds))
    return chart({name: sorted(line) for name, line in lines.items()}, "masked tokens", "seconds, batch 1")
