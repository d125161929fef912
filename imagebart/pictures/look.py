"""A first look at a data set: what there is, what cannot be read, what is there twice. Every picture is opened once."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from PIL import Image, ImageOps

from imagebart.conditioning.tokenizer import pieces
from imagebart.errors import InputError
from imagebart.imaging.files import flatten, load_image
from imagebart.pictures.rows import Row, Source
from imagebart.pictures.store import PIXELS, Pictures, kept_side, write_index
from imagebart.writing import not_written

LEAST = 16  # pictures that a model can be trained of at all
NAMED = 5  # pictures that cannot be read, and so on, that are named; all are in the run's folder
SHOWN = 12  # words, or classes
SHARE, LEAST_HELD, MOST = 0.05, 4, 500  # pictures that are held back to measure with


@dataclass
class Look:
    """What was found."""

    kind: str  # what is said of pictures: "text", "class" or "none"
    sizes: list[tuple[int, int]] = field(default_factory=list)  # width and height of those that are used
    left_out: dict[str, str] = field(default_factory=dict)  # names, and why
    twice: dict[str, str] = field(default_factory=dict)  # names, and what they are the same as
    words: Counter[str] = field(default_factory=Counter)
    texts: Counter[str] = field(default_factory=Counter)
    held: int = 0

    @property
    def count(self) -> int:
        return len(self.sizes)

    def lines(self) -> Iterator[str]:
        """The look in words."""
        short = sorted(min(size) for size in self.sizes)
        held = f", {self.held} of them held back to measure with" if self.held else ""
        yield f"{self.count:,} pictures{held}"
        if short:
            middle = statistics.median(short)
            yield f"short sides of {short[0]:,} to {short[-1]:,} pixels, {middle:,.0f} in the middle"
        yield from self._named("left out", self.left_out, " ")
        yield from self._named("there twice, used once", self.twice, ": the same as ")
        if self.kind == "text":
            silent = self.texts.get("", 0)
            without = f"; {silent:,} pictures without a caption" if silent else ""
            yield f"captions of {len(self.words):,} different words{without}"
            yield "most frequent: " + _counted(self.words)
        elif self.kind == "class":
            yield f"{len(self.texts):,} classes: " + _counted(self.texts)
        else:
            yield "neither captions nor classes: pictures are completed and redrawn without words"

    def _named(self, what: str, found: dict[str, str], joint: str) -> Iterator[str]:
        if found:
            yield f"{len(found):,} {what}:"
            for name, reason in list(found.items())[:NAMED]:
                yield f"  {name}{joint}{reason}"
            if len(found) > NAMED:
                yield f"  and {len(found) - NAMED:,} more"


def _counted(found: Counter[str]) -> str:
    return ", ".join(f"{text} ({count:,})" for text, count in found.most_common(SHOWN))


def look(
    source: Source, resolution: int, folder: Path | None = None, opened: Callable[[int], object] = lambda count: None
) -> Look:
    """Opens every picture. With a folder it keeps them there, ready to train on (see `store`).

    opened: told of each picture. Raises InputError where too few pictures are left, OSError where the disk is full.
    """
    found = Look(source.kind)
    kept: list[Row] = []
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with (folder / PIXELS).open("wb") if folder is not None else nullcontext() as file:
        for row, square, size in _usable(source, found, kept_side(resolution), opened):
            kept.append(row)
            found.sizes.append(size)
            found.texts[row.text] += 1
            if file is not None and folder is not None:
                try:
                    file.write(square.tobytes())
                except OSError as error:
                    raise not_written(error, folder / PIXELS, len(square.tobytes()) * (len(kept) + 1)) from error
    if found.count < LEAST:
        raise InputError(_too_few(found))
    for text, times in found.texts.items() if found.kind == "text" else ():
        for piece in pieces(text):
            found.words[piece.word] += times * bool(piece.word)
    found.words += Counter()  # without the empty word
    held = held_back(kept)
    found.held = sum(held)
    if folder is not None:
        credits = tuple(row.credit for row in kept)
        names, texts = tuple(row.name for row in kept), tuple(row.text for row in kept)
        write_index(folder, Pictures(resolution, found.kind, names, texts, tuple(held), credits))
    return found


def held_back(rows: list[Row]) -> list[bool]:
    """Which pictures are never trained on: those of a part called test, else one in twenty, by their names."""
    if any(row.held for row in rows) and not all(row.held for row in rows):
        return [row.held for row in rows]
    count = min(max(LEAST_HELD, round(SHARE * len(rows))), MOST)
    order = sorted(range(len(rows)), key=lambda i: blake2b(rows[i].name.encode()).digest())
    chosen = set(order[:count])
    return [i in chosen for i in range(len(rows))]


def _usable(
    rows: Iterable[Row], found: Look, side: int, opened: Callable[[int], object]
) -> Iterator[tuple[Row, Image.Image, tuple[int, int]]]:
    """The pictures that can be used, each once: the square in their middle, and their size."""
    seen: dict[bytes, str] = {}
    for row in rows:
        opened(1)
        if isinstance(row.source, Path) and not row.source.exists():
            found.left_out[row.name] = "is named by the captions, but there is no such file."
            continue
        try:
            image = flatten(load_image(row.source, "picture"))
        except InputError as error:
            found.left_out[row.name] = str(error)
            continue
        except OSError as error:
            found.left_out[row.name] = f"cannot be opened ({error.strerror})"
            continue
        square = ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)
        digest = blake2b(square.tobytes(), digest_size=16).digest()
        if digest in seen:
            found.twice[row.name] = seen[digest]
            continue
        seen[digest] = row.name
        yield row, square, image.size


def _too_few(found: Look) -> str:
    said = f"There are {found.count} pictures that can be used; at least {LEAST} are needed, better some hundreds."
    if found.left_out:
        name, reason = next(iter(found.left_out.items()))
        said += f" {len(found.left_out)} were left out, such as {name}: {reason}"
    return said
