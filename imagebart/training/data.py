"""Images to train on, with captions or classes: data sets are opened, inspected and stored as squares.

`open_dataset` reads folders in imagefolder layout, Parquet files and the Hub by the `datasets` library, which decodes
no image. `inspect_dataset` decodes each once, names those that cannot be used, and writes the others to an
`ImageStore`, all of one size in one file. A model is trained on `AugmentedViews`: crops, half of them mirrored.
"""

from __future__ import annotations

import atexit
import json
import shutil
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from pydantic import model_validator
from torch import Tensor
from torch.utils.data import Dataset

from imagebart.atomic_io import write_error
from imagebart.errors import InputError, reason_of
from imagebart.imaging.figures import sheet
from imagebart.imaging.files import SUFFIXES, flatten, load_image, normalize, to_images
from imagebart.settings import Settings
from imagebart.text.tokenizer import pieces
from imagebart.training.state import damaged, read_json, write_json

CAPTION_COLUMNS = ("text", "caption", "prompt")  # the first that is there
SPLITS = {"train", "test", "validation"}
MIN_IMAGES = 16  # that a model can be trained on at all
HELD_OUT_SHARE, MIN_HELD_OUT, MAX_HELD_OUT = 0.05, 4, 500  # held-out images
MAX_NAMED, MAX_COUNTED = 5, 12  # in a report: images that cannot be used, and words or classes
PIXELS, INDEX = "pixels.bin", "pictures.json"
MAX_VIEWS = 8  # of each image
STORED_SCALE = 9 / 8  # side of a stored image over that of one that is trained on: room for crops


@dataclass(frozen=True)
class Example:
    """An image that is not decoded yet."""

    name: str  # as people find it in their folder
    source: Path | bytes
    text: str  # its caption, or its class; "" for neither
    is_test: bool  # from a split of the data set that is called test
    credit: dict[str, str]  # author, source, licence, where they are given


@dataclass(frozen=True)
class ImageSource:
    """A data set as the library opened it."""

    splits: dict[str, Any]  # data sets of the library, by name
    kind: str  # "text", "class" or "none"
    column: str | None  # of captions or classes
    root: Path | None  # where names of files begin
    unusable: dict[str, str] = field(default_factory=dict)  # names of files that were left out, and why

    def __iter__(self) -> Iterator[Example]:
        for split, part in self.splits.items():
            column = _image_column(part)
            for number, values in enumerate(part):
                yield self._example(split, number, values, values[column] or {})

    def sizes(self, count: int = 200) -> list[tuple[int, int]]:
        """Width and height of the first images whose headers can be read."""
        sizes = []
        for example in islice(self, count):
            source = BytesIO(example.source) if isinstance(example.source, bytes) else example.source
            with suppress(Exception), Image.open(source) as file:
                sizes.append(file.size)
        return sizes or [(1, 1)]

    def _example(self, split: str, number: int, values: dict[str, Any], image: dict[str, Any]) -> Example:
        path, content = image.get("path"), image.get("bytes")
        text = values.get(self.column) if self.column else None
        if self.kind == "class" and isinstance(text, int):
            text = self.splits[split].features[self.column].int2str(text)
        credit = {key: str(values[key]) for key in ("author", "source", "licence", "license") if values.get(key)}
        name = f"{split} {number}"
        if path:
            inside = self.root is not None and Path(path).is_relative_to(self.root)
            name = str(Path(path).relative_to(self.root) if inside and self.root else Path(path).name)
        source = content if content is not None else Path(path or "")
        return Example(name, source, str(text or "").strip(), split == "test", credit)


def open_dataset(data: str) -> ImageSource:
    """Opens a folder, or streams a data set of the Hub by its name.

    Raises InputError for no images, captions that are no JSON, or a name that leads nowhere.
    """
    import datasets  # takes seconds, and nothing but this needs it

    folder, root = Path(data), None
    unusable: dict[str, str] = {}
    options: dict[str, Any] = {"path": data, "streaming": True}
    if folder.is_dir():
        root, unusable = _with_utf8_names(folder.resolve())
        parquet = any(root.rglob("*.parquet"))
        more = {"path": "parquet"} if parquet else {"path": "imagefolder", "keep_in_memory": True, "streaming": False}
        options |= {"data_dir": str(root), **more}
    elif folder.exists() or data.startswith((".", "/", "~")) or data.count("/") > 1:
        raise InputError(f"{data} is no folder; give one with images in it, or the name of a data set on the Hub.")
    datasets.disable_progress_bars()
    try:
        with tempfile.TemporaryDirectory() as cache:
            splits = datasets.load_dataset(**options, **({"cache_dir": cache} if root else {}))
            columns = {split: _image_column(part) for split, part in splits.items()}
            encoded = datasets.Image(decode=False)
            splits = {s: part.cast_column(columns[s], encoded) if columns[s] else part for s, part in splits.items()}
    except FileNotFoundError as error:  # EmptyDatasetError, too
        wrong = "holds no images" if root else "is neither a folder here nor a data set on the Hub"
        raise InputError(f"{data} {wrong}; give a folder with PNG, JPEG or WebP files.") from error
    except Exception as error:  # whatever the files hold
        raise InputError(
            f"What {data} says of its images cannot be read ({reason_of(error.__cause__ or error)}); "
            'in metadata.jsonl each line is an object such as {"file_name": "a.png", "text": "a red rose"}.'
        ) from error
    for split in (split for split, column in columns.items() if not column):
        raise InputError(f"{data} has no images in its part {split!r}; expected a column of them, called image.")
    kind, text_column = _text_column(next(iter(splits.values())).features or {})
    return ImageSource(splits, kind, text_column, root, unusable)


def _with_utf8_names(root: Path) -> tuple[Path, dict[str, str]]:
    """The folder, or links to those of its files whose names are UTF-8, which the library needs; and the others."""
    others = {path for path in root.rglob("*") if path.is_file() and not _is_utf8(path.relative_to(root))}
    if not others and _is_utf8(root):
        return root, {}
    links = Path(tempfile.mkdtemp(prefix="imagebart-"))
    atexit.register(shutil.rmtree, links, ignore_errors=True)
    for path in root.rglob("*"):
        link = links / path.relative_to(root)
        if path.is_file() and path not in others:
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    names = (bytes(path.relative_to(root)).decode("utf-8", "backslashreplace") for path in sorted(others))
    return links, dict.fromkeys(names, "has a name that is not UTF-8.")


def _is_utf8(path: Path) -> bool:
    try:
        return bool(str(path).encode("utf-8"))
    except UnicodeEncodeError:
        return False


def _image_column(part: Any) -> str:
    """The name of the first column of images; "" where there is none."""
    features = part.features or {}
    return next((name for name, feature in features.items() if type(feature).__name__ == "Image"), "")


def _text_column(features: dict[str, Any]) -> tuple[str, str | None]:
    """The kind, "text", "class" or "none", and the column that holds captions or classes."""
    for column in CAPTION_COLUMNS:
        if column in features:
            return "text", column
    for column, feature in features.items():
        if type(feature).__name__ == "ClassLabel" and len(feature.names) > 1 and not set(feature.names) <= SPLITS:
            return "class", column
    return "none", None


@dataclass
class DatasetReport:
    """What `inspect_dataset` found."""

    kind: str  # "text", "class" or "none"
    sizes: list[tuple[int, int]] = field(default_factory=list)  # width and height of the images that are used
    unusable: dict[str, str] = field(default_factory=dict)  # names, and why
    duplicates: dict[str, str] = field(default_factory=dict)  # names, and what they are the same as
    words: Counter[str] = field(default_factory=Counter)
    texts: Counter[str] = field(default_factory=Counter)
    held_out: int = 0

    @property
    def count(self) -> int:
        return len(self.sizes)

    def lines(self) -> Iterator[str]:
        """The report in words."""
        short = sorted(min(size) for size in self.sizes)
        held = f", {self.held_out} of them held out" if self.held_out else ""
        yield f"{self.count:,} images{held}"
        if short:
            middle = statistics.median(short)
            yield f"short sides of {short[0]:,} to {short[-1]:,} pixels, {middle:,.0f} in the middle"
        yield from _named("left out", self.unusable, " ")
        yield from _named("there twice, used once", self.duplicates, ": the same as ")
        if self.kind == "text":
            silent = self.texts.get("", 0)
            without = f"; {silent:,} images without a caption" if silent else ""
            yield f"captions of {len(self.words):,} different words{without}"
            yield "most frequent: " + _most_common(self.words)
        elif self.kind == "class":
            yield f"{len(self.texts):,} classes: " + _most_common(self.texts)
        else:
            yield "neither captions nor classes: images are completed and regenerated without words"


def _named(what: str, found: dict[str, str], joint: str) -> Iterator[str]:
    if found:
        yield f"{len(found):,} {what}:"
        for name, reason in islice(found.items(), MAX_NAMED):
            yield f"  {name}{joint}{reason}"
        if len(found) > MAX_NAMED:
            yield f"  and {len(found) - MAX_NAMED:,} more"


def _most_common(found: Counter[str]) -> str:
    return ", ".join(f"{text} ({count:,})" for text, count in found.most_common(MAX_COUNTED))


def inspect_dataset(
    source: ImageSource,
    resolution: int,
    folder: Path | None = None,
    progress: Callable[[int], object] = lambda count: None,
) -> DatasetReport:
    """Decodes every image. With a folder, writes them there as an `ImageStore`. progress: called with 1 for each.

    Raises InputError where too few images can be used, OSError where the disk is full.
    """
    report = DatasetReport(source.kind, unusable=dict(source.unusable))
    used: list[Example] = []
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with (folder / PIXELS).open("wb") if folder is not None else nullcontext() as file:
        for example, square, size in _usable(source, report, stored_side(resolution), progress):
            used.append(example)
            report.sizes.append(size)
            report.texts[example.text] += 1
            if file is not None and folder is not None:
                try:
                    file.write(square.tobytes())
                except OSError as error:
                    raise write_error(error, folder / PIXELS, len(square.tobytes()) * (len(used) + 1)) from error
    if report.count < MIN_IMAGES:
        message = f"There are {report.count} images that can be used; at least {MIN_IMAGES} are needed, "
        message += "better some hundreds."
        for name, reason in islice(report.unusable.items(), 1):
            message += f" {len(report.unusable)} were left out, such as {name}: {reason}"
        raise InputError(message)
    if report.kind == "text":
        for text, times in report.texts.items():
            for piece in pieces(text):
                report.words[piece.word] += times * bool(piece.word)
        report.words += Counter()  # without the empty word
    held_out = split_held_out(used)
    report.held_out = sum(held_out)
    if folder is not None:
        names, texts = tuple(example.name for example in used), tuple(example.text for example in used)
        credits = tuple(example.credit for example in used)
        index = StoreIndex(
            resolution=resolution, kind=report.kind, names=names, texts=texts, held_out=tuple(held_out), credits=credits
        )
        write_json(folder / INDEX, index)  # last: a folder with an index is a whole store
    return report


def _usable(
    source: Iterable[Example], report: DatasetReport, side: int, progress: Callable[[int], object]
) -> Iterator[tuple[Example, Image.Image, tuple[int, int]]]:
    """The images that can be used, each once: the square in their middle, and their size."""
    seen: dict[bytes, str] = {}
    for example in source:
        progress(1)
        if isinstance(example.source, Path) and not example.source.exists():
            report.unusable[example.name] = "is named by the captions, but there is no such file."
            continue
        try:
            image = flatten(load_image(example.source, "image"))
        except InputError as error:
            report.unusable[example.name] = str(error)
            continue
        except OSError as error:
            report.unusable[example.name] = f"cannot be opened ({error.strerror})"
            continue
        square = _centre_square(image, side)
        digest = blake2b(square.tobytes(), digest_size=16).digest()
        if digest in seen:
            report.duplicates[example.name] = seen[digest]
            continue
        seen[digest] = example.name
        yield example, square, image.size


def _centre_square(image: Image.Image, side: int) -> Image.Image:
    return ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)


def split_held_out(examples: Sequence[Example]) -> list[bool]:
    """Which images are never trained on: those of a split called test, else one in twenty, by their names."""
    tests = [example.is_test for example in examples]
    if any(tests) and not all(tests):
        return tests
    count = min(max(MIN_HELD_OUT, round(HELD_OUT_SHARE * len(examples))), MAX_HELD_OUT)
    order = sorted(range(len(examples)), key=lambda i: blake2b(examples[i].name.encode()).digest())
    chosen = set(order[:count])
    return [i in chosen for i in range(len(examples))]


def stored_side(resolution: int) -> int:
    """Pixels a side of a stored image, for models of a resolution."""
    return int(resolution * STORED_SCALE)


class StoreIndex(Settings):
    """What is known of the images of a store, in their order."""

    resolution: int  # pixels a side that are trained on
    kind: str  # of their texts: "text", "class" or "none"
    names: tuple[str, ...]
    texts: tuple[str, ...]
    held_out: tuple[bool, ...]  # never trained on
    credits: tuple[dict[str, str], ...]

    @model_validator(mode="after")
    def _check(self) -> StoreIndex:
        if len({len(self.names), len(self.texts), len(self.held_out), len(self.credits)}) != 1:
            raise ValueError("names, texts, held_out and credits have different lengths")
        return self

    def numbers(self, held_out: bool) -> list[int]:
        """The images that are held out, or the others."""
        return [i for i, one in enumerate(self.held_out) if one == held_out]


def read_index(folder: Path) -> StoreIndex | None:
    """What is known of a store's images; None where it is not finished."""
    path = folder / INDEX
    return read_json(StoreIndex, path, "delete it to inspect the images again") if path.exists() else None


class ImageStore:
    """The images of a folder that `inspect_dataset` has written."""

    def __init__(self, folder: Path) -> None:
        index = read_index(folder)
        if index is None:
            raise ValueError(f"{folder} holds no images that are ready to train on ({INDEX} is missing)")
        self.index = index
        side, count, path = stored_side(index.resolution), len(index.names), folder / PIXELS
        try:
            if path.stat().st_size != count * side * side * 3:
                raise ValueError(f"expected {count} images of {side} pixels a side")
            self.pixels = np.memmap(path, np.uint8, "r", shape=(count, side, side, 3))
        except (OSError, ValueError) as error:
            raise damaged(path, error, f"delete {folder / INDEX} to inspect the images again") from error

    def view(self, number: int, view: int) -> Tensor:
        """A crop, uint8 [3, resolution, resolution], the same each time: view 0 is the middle, 1 that mirrored, ..."""
        size = self.index.resolution
        room = self.pixels.shape[1] - size
        top = left = room // 2
        if view > 1:
            top, left = np.random.default_rng((number, view)).integers(0, room + 1, 2)
        square = np.asarray(self.pixels[number, top : top + size, left : left + size])
        if view % 2:
            square = square[:, ::-1]
        return torch.from_numpy(np.ascontiguousarray(square)).permute(2, 0, 1)

    def images(self, numbers: Sequence[int]) -> Tensor:
        """The middles of images, float [B, 3, resolution, resolution] in [-1, 1]."""
        return normalize(torch.stack([self.view(number, 0) for number in numbers]))


class AugmentedViews(Dataset[dict[str, Any]]):
    """Some images of a store, in `views` views each: image, uint8 [3, resolution, resolution], and text."""

    def __init__(self, store: ImageStore, numbers: Sequence[int], views: int) -> None:
        self.store, self.numbers, self.views = store, list(numbers), views

    @property
    def texts(self) -> list[str]:
        """The captions or classes of the images."""
        return [self.store.index.texts[number] for number in self.numbers]

    def __len__(self) -> int:
        return len(self.numbers) * self.views

    def __getitem__(self, index: int) -> dict[str, Any]:
        view, place = divmod(index, len(self.numbers))
        number = self.numbers[place]
        return {"image": self.store.view(number, view), "text": self.store.index.texts[number]}


class ImageFolder(Dataset[dict[str, Any]]):
    """Images of a folder in Hugging Face's imagefolder layout, decoded at each access.

    `metadata.jsonl` beside the images may give a `text` for each `file_name`; without it, images in named subfolders
    have the folder's name as `text` (a class). Items: `image`, uint8 [3, size, size] (the centre square), and `text`
    ("" where there is none).
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.size = size
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder; expected a folder of images")
        self.paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
        if not self.paths:
            raise ValueError(f"{folder} holds no images; known kinds are {', '.join(sorted(SUFFIXES))}")
        captions = {}
        for file in folder.rglob("metadata.jsonl"):
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                try:
                    record = json.loads(line) if line.strip() else {"file_name": ""}
                    captions[file.parent / record["file_name"]] = str(record.get("text", ""))
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                    named = f"{file}, line {number}: {line[:60]!r}"
                    raise ValueError(f"{named} is not an object with `file_name` and `text`") from error
        self.texts = [captions.get(p, "" if p.parent == folder else p.parent.name) for p in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        with Image.open(self.paths[index]) as file:
            square = _centre_square(ImageOps.exif_transpose(file).convert("RGB"), self.size)
        return {"image": torch.from_numpy(np.array(square)).permute(2, 0, 1), "text": self.texts[index]}


def dataset_for(data: str, size: int) -> Dataset[dict[str, Any]]:
    """The data set in a folder of images, or in a store of them; raises ValueError for a store of another size."""
    index = read_index(Path(data))
    if index is None:
        return ImageFolder(Path(data), size)
    if index.resolution != size:
        raise ValueError(f"{data} holds images of {index.resolution} pixels a side, expected {size}")
    return AugmentedViews(ImageStore(Path(data)), index.numbers(False), MAX_VIEWS)


def grid(images: Tensor, columns: int) -> Image.Image:
    """Images [B, 3, H, W] in [-1, 1], row by row with a white line between."""
    cells = to_images(images)
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    page = sheet(rows, cells[0].width, margin=1)
    return page.crop((1, 1, page.width - 1, page.height - 1))
