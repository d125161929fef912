"""Pictures and what is said of them, one by one, from a folder in imagefolder layout, Parquet files or the Hub.

The `datasets` library reads them all. What it gives is checked by nobody: whether a picture is there and can be read
is found out when it is opened (see `imagebart.training.plan`).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from imagebart.atomic_io import write_text
from imagebart.config import from_dict
from imagebart.errors import InputError
from imagebart.imaging.figures import sheet
from imagebart.imaging.files import to_images

CAPTIONS = ("text", "caption", "prompt")  # columns that may hold captions, the first that is there
SPLITS = {"train", "test", "validation"}


@dataclass(frozen=True)
class Example:
    """A picture that nobody has opened yet."""

    name: str  # as people find it in their folder
    source: Path | bytes
    text: str  # its caption, or its class; "" for neither
    held: bool  # from a part of the data set that is called test
    credit: dict[str, str]  # author, source, licence, where they are said


@dataclass(frozen=True)
class ImageSource:
    """A data set, before its pictures are opened."""

    parts: dict[str, Any]  # data sets of the library, by split
    kind: str  # "text", "class" or "none"
    column: str | None  # the column of captions or classes
    root: Path | None  # where names of files begin

    def __iter__(self) -> Iterator[Example]:
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

    def _row(self, split: str, number: int, values: dict[str, Any]) -> Example:
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
        return Example(name, picture, str(text or "").strip(), split == "test", credit)


def read(data: str) -> ImageSource:
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
    return ImageSource(parts, kind, column, root)


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


# Pictures of a data set as they are trained on: decoded once, squares of one size in one file, with what is said.


PIXELS, INDEX = "pixels.bin", "pictures.json"
MAX_VIEWS = 8  # of each picture
MARGIN = 9 / 8  # side of what is kept over that of what is trained on: room for crops


@dataclass(frozen=True)
class StoreIndex:
    """What is known of the pictures of a store, in their order."""

    resolution: int  # pixels a side that are trained on
    kind: str  # of what is said: "text", "class" or "none"
    names: tuple[str, ...]
    texts: tuple[str, ...]
    held: tuple[bool, ...]  # held back: never trained on
    credits: tuple[dict[str, str], ...]

    @property
    def side(self) -> int:
        """Pixels a side that are kept."""
        return stored_side(self.resolution)

    def numbers(self, held: bool) -> list[int]:
        """The pictures that are held back, or the others."""
        return [i for i, one in enumerate(self.held) if one == held]


def stored_side(resolution: int) -> int:
    return int(resolution * MARGIN)


def write_index(folder: Path, pictures: StoreIndex) -> None:
    """Written last: a folder with an index is a whole store."""
    write_text(folder / INDEX, json.dumps(asdict(pictures)))


def read_index(folder: Path) -> StoreIndex | None:
    """What is known of a store's pictures; None where it is not finished."""
    path = folder / INDEX
    return from_dict(StoreIndex, json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


class ImageStore:
    """The pictures of a folder that `look` has written."""

    def __init__(self, folder: Path) -> None:
        pictures = read_index(folder)
        if pictures is None:
            raise ValueError(f"{folder} holds no pictures that are ready to train on ({INDEX} is missing)")
        self.pictures = pictures
        side, count = pictures.side, len(pictures.names)
        self.pixels = np.memmap(folder / PIXELS, np.uint8, "r", shape=(count, side, side, 3))

    def view(self, number: int, view: int) -> Tensor:
        """A picture's crop, uint8 [3, resolution, resolution]: view 0 is the middle, 1 that mirrored, then others.

        Every second view is mirrored; crops are the same whenever they are asked for.
        """
        size, room = self.pictures.resolution, self.pictures.side - self.pictures.resolution
        top = left = room // 2
        if view > 1:
            top, left = np.random.default_rng((number, view)).integers(0, room + 1, 2)
        square = np.asarray(self.pixels[number, top : top + size, left : left + size])
        if view % 2:
            square = square[:, ::-1]
        return torch.from_numpy(np.ascontiguousarray(square)).permute(2, 0, 1)

    def images(self, numbers: Sequence[int]) -> Tensor:
        """The middles of pictures, float [B, 3, resolution, resolution] in [-1, 1]."""
        return torch.stack([self.view(number, 0) for number in numbers]).float() / 127.5 - 1


class AugmentedViews(Dataset[dict[str, Any]]):
    """Some pictures of a store, in so many views each: image, uint8 [3, resolution, resolution], and text."""

    def __init__(self, store: ImageStore, numbers: Sequence[int], views: int) -> None:
        self.store, self.numbers, self.views = store, list(numbers), views

    @property
    def texts(self) -> list[str]:
        """What is said of the pictures."""
        return [self.store.pictures.texts[number] for number in self.numbers]

    def __len__(self) -> int:
        return len(self.numbers) * self.views

    def __getitem__(self, index: int) -> dict[str, Any]:
        view, place = divmod(index, len(self.numbers))
        number = self.numbers[place]
        return {"image": self.store.view(number, view), "text": self.store.pictures.texts[number]}


# Data sets to train on: avatars drawn without end, or a folder of images.


SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


class ImageFolder(Dataset[dict[str, Any]]):
    """Images of a folder in Hugging Face's imagefolder layout.

    `metadata.jsonl` beside the images may give a `text` for each `file_name`; without it, images in named
    subfolders have the folder's name as `text` (a class). Items: `image`, uint8 [3, size, size] (the centre
    square), and `text` ("" where there is none).
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.size = size
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder; expected a folder of images")
        self.paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
        if not self.paths:
            raise ValueError(f"{folder} holds no images; known kinds are {', '.join(sorted(SUFFIXES))}")
        captions = _captions(folder)
        self.texts = [captions.get(p, "" if p.parent == folder else p.parent.name) for p in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        with Image.open(self.paths[index]) as file:
            image = ImageOps.exif_transpose(file).convert("RGB")
        image = ImageOps.fit(image, (self.size, self.size), Image.Resampling.LANCZOS)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return {"image": pixels, "text": self.texts[index]}


def _captions(folder: Path) -> dict[Path, str]:
    captions = {}
    for file in folder.rglob("metadata.jsonl"):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                captions[file.parent / record["file_name"]] = str(record.get("text", ""))
            except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{file}, line {number}: {line[:60]!r} is not an object with `file_name` and `text`"
                ) from error
    return captions


def dataset_for(data: str, size: int) -> Dataset[dict[str, Any]]:
    """The data set that a configuration names: the path of a folder of images, or of a store of them.

    Raises ValueError for a store of pictures of another size.
    """
    pictures = read_index(Path(data))
    if pictures is None:
        return ImageFolder(Path(data), size)
    if pictures.resolution != size:
        raise ValueError(f"{data} holds pictures of {pictures.resolution} pixels a side, expected {size}")
    return AugmentedViews(ImageStore(Path(data)), pictures.numbers(False), MAX_VIEWS)


def grid(images: Tensor, columns: int) -> Image.Image:
    """Images [B, 3, H, W] in [-1, 1], row by row in one picture with a white line between."""
    pictures = to_images(images)
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    page = sheet(rows, pictures[0].width, margin=1)
    return page.crop((1, 1, page.width - 1, page.height - 1))
