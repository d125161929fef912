"""The benchmark as a table and as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from PIL import Image, ImageDraw

from imagebart.bench.machine import bytes_per_second, cpu_name
from imagebart.bench.measure import Row
from imagebart.bench.profile import PURPOSES, Share

HEADINGS = (
    "stage, batch, masked", "method", "seconds", "times naive", "passes", "accepted run", "of it once",
    "pass / limit", "as naive", "peak GB",
)  # fmt: skip
COLOURS = ("#6d28d9", "#0f766e", "#b45309", "#be123c")
SIZE, MARGIN = (900, 560), 70


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
    lines: dict[str, dict[int, float]] = {}
    for row in rows:
        if row.batch == 1 and row.method == "+ drafts":
            lines.setdefault(row.subject, {})[row.tokens] = row.seconds
    picture = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(picture)
    width, height = SIZE[0] - 2 * MARGIN, SIZE[1] - 2 * MARGIN
    most = max((tokens for line in lines.values() for tokens in line), default=1)
    longest = max((seconds for line in lines.values() for seconds in line.values()), default=1.0)

    def place(tokens: float, seconds: float) -> tuple[float, float]:
        return MARGIN + width * tokens / most, MARGIN + height * (1 - seconds / longest)

    draw.line([place(0, longest), place(0, 0), place(most, 0)], fill="#64748b", width=2)
    for part in range(5):
        tokens, seconds = most * part / 4, longest * part / 4
        x, y = place(tokens, seconds)
        draw.line([place(0, seconds), place(most, seconds)], fill="#e2e8f0")
        draw.text((x, MARGIN + height + 10), f"{tokens:.0f}", fill="#0f172a", anchor="ma", font_size=15)
        draw.text((MARGIN - 10, y), f"{seconds:.2f}", fill="#0f172a", anchor="rm", font_size=15)
    draw.text((MARGIN + width / 2, SIZE[1] - 14), "masked tokens", fill="#0f172a", anchor="ms", font_size=16)
    draw.text((MARGIN, 14), "seconds, batch 1", fill="#0f172a", anchor="lt", font_size=16)
    for index, (name, line) in enumerate(lines.items()):
        colour = COLOURS[index % len(COLOURS)]
        points = [place(tokens, seconds) for tokens, seconds in sorted(line.items())]
        draw.line(points, fill=colour, width=3)
        for x, y in points:
            draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=colour)
        draw.text((MARGIN + 16, MARGIN + 8 + 22 * index), name, fill=colour, font_size=16)
    return picture
