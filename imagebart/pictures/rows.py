"""Pictures and what is said of them, one by one, from a folder in imagefolder layout, Parquet files or the Hub.

The `datasets` library reads them all. What it gives is checked by nobody: whether a picture is there and can be read
is found out when it is opened (see `imagebart.pictures.look`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from imagebart.errors import InputError

CAPTIONS = ("text", "caption", "prompt")  # columns that may hold captions, the first that is there
SPLITS = {"train", "test", "validation"}


@dataclass(frozen=True)
class Row:
    """A picture that nobody has opened yet."""

    name: str  # as people find it in their folder
    source: Path | bytes
    text: str  # its caption, or its class; "" for neither
    held: bool  # from a part of the data set that is called test
    credit: dict[str, str]  # author, source, licence, where they are said


@dataclass(frozen=True)
class Source:
    """A data set, before its pictures are opened."""

    parts: dict[str, Any]  # data sets of the library, by split
    kind: str  # "text", "class" or "none"
    column: str | None  # the column of captions or classes
    root: Path | None  # where names of files begin

    def __iter__(self) -> Iterator[Row]:
        for split, part in self.parts.items():
            for number, values in enumerate(part):
                yield self._row(split, number, values)

    def sizes(self, most: int = 200) -> list[tuple[int, int]]:
        """Width and height of the first pictures whose headers can be read."""
        found = []
        for row in islice(self, most):
            source = BytesIO(row.source) if isinstance(row.source, bytes) else row.source
            with suppress(Exception), Image.open(source) as file:
                found.append(file.size)
        return found or [(1, 1)]

    def _row(self, split: str, number: int, values: dict[str, Any]) -> Row:
        image = values[_image_column(self.parts[split])]
        path, content = (image or {}).get("path"), (image or {}).get("bytes")
        text = values.get(self.column) if self.column else None
        if self.kind == "class" and isinstance(text, int):
            text = self.parts[split].features[self.column].int2str(text)
        credit = {key: str(values[key]) for key in ("author", "source", "licence", "license") if values.get(key)}
        name = f"{split} {number}"
        if path:
            inside = self.root is not None and Path(path).is_relative_to(self.root)
            name = str(Path(path).relative_to(self.root) if inside and self.root else Path(path).name)
        picture = content if content is not None else Path(path or "")
        return Row(name, picture, str(text or "").strip(), split == "test", credit)


def read(data: str) -> Source:
    """Opens a folder, or streams a data set of the Hub by its name.

    Raises InputError, in a sentence, for no pictures, captions that are no JSON, or a name that leads nowhere.
    """
    folder = Path(data)
    if folder.is_dir():
        root = folder.resolve()
        if any(root.rglob("*.parquet")):
            options: dict[str, Any] = {"path": "parquet", "data_dir": str(root), "streaming": True}
        else:
            options = {"path": "imagefolder", "data_dir": str(root), "keep_in_memory": True}
    elif folder.exists() or data.startswith((".", "/", "~")) or data.count("/") > 1:
        raise InputError(f"{data} is no folder; give one with pictures in it, or the name of a data set on the Hub.")
    else:
        root, options = None, {"path": data, "streaming": True}
    parts = _opened(data, options)
    without = [split for split, part in parts.items() if not _image_column(part)]
    if without:
        raise InputError(f"{data} has no pictures in its part {without[0]!r}; expected a column of them, called image.")
    kind, column = _said(parts)
    return Source(parts, kind, column, root)


def _opened(data: str, options: dict[str, Any]) -> dict[str, Any]:
    """The splits of a data set, with pictures as files or bytes that nobody has decoded."""
    import datasets  # takes seconds, and nothing but this needs it

    datasets.disable_progress_bars()
    local = options["path"] != data
    try:
        with tempfile.TemporaryDirectory() as cache:
            parts = datasets.load_dataset(**options, **({"cache_dir": cache} if local else {}))
            named = [(split, part, _image_column(part)) for split, part in parts.items()]
            return {s: part.cast_column(n, datasets.Image(decode=False)) if n else part for s, part, n in named}
    except FileNotFoundError as error:  # EmptyDatasetError, too
        wrong = "holds no pictures" if local else "is neither a folder here nor a data set on the Hub"
        raise InputError(f"{data} {wrong}; give a folder with PNG, JPEG or WebP files.") from error
    except Exception as error:  # whatever the files hold
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise InputError(
            f"What {data} says of its pictures cannot be read ({reason}); in metadata.jsonl each line is an object "
            'such as {"file_name": "a.png", "text": "a red rose"}.'
        ) from error


def _image_column(part: Any) -> str:
    """The name of the first column of pictures; "" where there is none."""
    features = part.features or {}
    return next((name for name, feature in features.items() if type(feature).__name__ == "Image"), "")


def _said(parts: dict[str, Any]) -> tuple[str, str | None]:
    """Whether pictures have captions, classes or neither, and the column that says so."""
    features = next(iter(parts.values())).features or {}
    for column in CAPTIONS:
        if column in features:
            return "text", column
    for column, feature in features.items():
        if type(feature).__name__ == "ClassLabel" and len(feature.names) > 1 and not set(feature.names) <= SPLITS:
            return "class", column
    return "none", None
