"""Figures for training and evaluation: contact sheets of many images, and charts of lines, drawn with Pillow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw

LABEL, CAPTION = 160, 14  # pixels: width of a row's name, height of a line of captions


def sheet(
    rows: Sequence[Sequence[Image.Image]],
    side: int,
    *,
    names: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    margin: int = 2,
) -> Image.Image:
    """Rows of images on white, each `side` pixels a side with a margin all around.

    names: of the rows, at the left. captions: of each row, below; one may be for several images.
    """
    cell, label, line = side + 2 * margin, LABEL if names else 0, CAPTION if captions else 0
    columns = max(len(row) for row in rows)
    page = Image.new("RGB", (label + columns * cell, len(rows) * (cell + line)), "white")
    pen = ImageDraw.Draw(page)
    for y, row in enumerate(rows):
        top = y * (cell + line)
        for x, image in enumerate(row):
            shown = image if image.width == side else image.resize((side, side), Image.Resampling.LANCZOS)
            page.paste(shown, (label + x * cell + margin, top + margin))
        if names:
            pen.text((4, top + side // 2), names[y], fill="black")
        for i, caption in enumerate(captions[y] if captions else ()):
            wide = len(row) // len(captions[y]) * cell
            place = (label + i * wide + 4, top + cell - 1)
            pen.text(place, caption, fill="black", font_size=_font_size(pen, caption, wide - 6))
    return page


def _font_size(pen: ImageDraw.ImageDraw, text: str, width: int) -> float:
    """The largest size up to 11 at which a text fits a width."""
    size = 11.0
    while size > 5 and pen.textlength(text, font_size=size) > width:
        size -= 0.5
    return size


COLOURS = ("#6d28d9", "#0f766e", "#b45309", "#be123c")
INK, GRID = "#0f172a", "#e2e8f0"
SIZE, MARGIN, PARTS = (900, 560), 70, 4


def chart(
    lines: Mapping[str, Sequence[tuple[float, float]]], across: str, up: str, bottom: float | None = 0.0
) -> Image.Image:
    """A line of points (x from 0 on, y) for each name; across, up: the axes' labels; bottom: of y; None: the least."""
    points = [point for line in lines.values() for point in line] or [(1.0, 1.0)]
    low = min(y for _, y in points) if bottom is None else bottom
    most, high = max(x for x, _ in points) or 1.0, max(y for _, y in points)
    span = (high - low) or 1.0
    width, height = SIZE[0] - 2 * MARGIN, SIZE[1] - 2 * MARGIN
    image = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(image)

    def place(x: float, y: float) -> tuple[float, float]:
        return MARGIN + width * x / most, MARGIN + height * (1 - (y - low) / span)

    for part in range(PARTS + 1):
        x, y = most * part / PARTS, low + span * part / PARTS
        draw.line([place(0, y), place(most, y)], fill=GRID)
        draw.text((place(x, low)[0], MARGIN + height + 10), f"{x:.3g}", fill=INK, anchor="ma", font_size=15)
        draw.text((MARGIN - 10, place(0, y)[1]), f"{y:.3g}", fill=INK, anchor="rm", font_size=15)
    draw.text((MARGIN + width / 2, SIZE[1] - 14), across, fill=INK, anchor="ms", font_size=16)
    draw.text((MARGIN, 14), up, fill=INK, anchor="lt", font_size=16)
    for index, (name, line) in enumerate(lines.items()):
        colour = COLOURS[index % len(COLOURS)]
        places = [place(*point) for point in line]
        draw.line(places, fill=colour, width=3)
        for x, y in places:
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour)
        draw.text((MARGIN + 16, MARGIN + 8 + 22 * index), name, fill=colour, font_size=16)
    return image
