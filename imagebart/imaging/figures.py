"""Figures for training and evaluation: contact sheets of many images."""

from collections.abc import Sequence

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
            size = 11 * min(1, (wide - 6) / max(pen.textlength(caption, font_size=11), 1))
            pen.text(place, caption, fill="black", font_size=max(size, 5))
    return page
