"""Images to train on, with captions or classes: data sets are opened, inspected and stored as squares.

`open_dataset` reads folders in imagefolder layout, Parquet files and the Hub by the `datasets` library, which decodes
no image. `inspect_dataset` decodes each once, names those that cannot be used, and writes the others to an
`ImageStore`, all of one size in one file. A model is trained on `AugmentedViews`: crops, half of them mirrored.
"""

import re
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from imagebart.core.atomic_io import write_text
from imagebart.core.errors import InputError, reason_of
from imagebart.core.settings import Settings
from imagebart.imaging.figures import sheet
from imagebart.imaging.files import flatten, load_image, normalize, to_images
from imagebart.training.config import load

CAPTION_COLUMNS = ("text", "caption", "prompt")  # the first that is there
SPLITS = {"train", "test", "validation"}
MIN_IMAGES = 16  # that a model can be trained on at all
HELD_OUT_SHARE, MIN_HELD_OUT, MAX_HELD_OUT = 0.05, 4, 500  # held-out images
MAX_NAMED, MAX_COUNTED = 5, 12  # in a report: images that are left out; words or classes
PIXELS, INDEX = "pixels.bin", "images.json"
MAX_VIEWS = 8  # of each image
STORED_SCALE = 9 / 8  # side of a stored image over that of one that is trained on: room for crops


@dataclass(frozen=True)
class Example:
    """An image that is not decoded yet."""

    name: str  # as people find it in their folder
    source: Path | bytes
    text: str  # its caption, or its class; "" for neither
    is_test: bool  # from a split of the data set that is called test


@dataclass(frozen=True)
class ImageSource:
    """A data set as the library opened it."""

    splits: dict[str, Any]  # data sets of the library, by name
    kind: str  # of its texts: "text", "class" or "none"
    column: str | None  # of captions or classes
    root: Path | None  # where names of files begin

    def __iter__(self) -> Iterator[Example]:
        for split, part in self.splits.items():
            image_column = _image_column(part)
            for number, row in enumerate(part):
                image = row[image_column] or {}
                path, content = image.get("path") or "", image.get("bytes")
                text = row[self.column] if self.column else ""
                if self.kind == "class" and isinstance(text, int):
                    text = part.features[self.column].int2str(text)
                name = path.removeprefix(f"{self.root}/") or f"{split} {number}"
                source = Path(path) if content is None else content
                yield Example(name, source, str(text or "").strip(), split == "test")

    def sizes(self, count: int = 200) -> list[tuple[int, int]]:
        """Width and height of the first images whose headers can be read."""
        sizes = []
        for example in islice(self, count):
            source = BytesIO(example.source) if isinstance(example.source, bytes) else example.source
            with suppress(Exception), Image.open(source) as file:
                sizes.append(file.size)
        return sizes or [(1, 1)]


def open_dataset(data: str) -> ImageSource:
    """Opens a folder, or streams a data set of the Hub by its name."""
    import datasets  # takes seconds, and nothing but this needs it

    root = Path(data).resolve() if Path(data).is_dir() else None
    options: dict[str, Any] = {"path": data, "streaming": True}
    if root is not None:
        options = {"path": "imagefolder", "data_dir": str(root), "keep_in_memory": True}
        if any(root.rglob("*.parquet")):
            options = {"path": "parquet", "data_dir": str(root), "streaming": True}
    elif Path(data).exists() or data.startswith((".", "/", "~")) or data.count("/") > 1:
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
    if "" in columns.values():
        raise InputError(f"{data} has a part without images; expected a column of them, called image.")
    kind, text_column = _text_column(next(iter(splits.values())).features or {})
    return ImageSource(splits, kind, text_column, root)


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


class StoreIndex(Settings):
    """What is known of the images of a store, in their order."""

    resolution: int  # pixels a side that are trained on
    kind: str  # of their texts: "text", "class" or "none"
    names: tuple[str, ...]
    texts: tuple[str, ...]
    held_out: tuple[bool, ...]  # never trained on

    def numbers(self, held_out: bool) -> list[int]:
        return [number for number, held in enumerate(self.held_out) if held == held_out]


def inspect_dataset(source: ImageSource, resolution: int, folder: Path) -> list[str]:
    """Writes the middle squares of all images to a folder, as an `ImageStore`; returns lines for people."""
    folder.mkdir(parents=True, exist_ok=True)
    used, side = list[Example](), int(resolution * STORED_SCALE)
    short_sides: list[int] = []
    left_out: dict[str, str] = {}
    names: dict[bytes, str] = {}  # by the digest of their pixels
    with (folder / PIXELS).open("wb") as file:
        for example in tqdm(source, unit="image"):
            try:
                image = flatten(load_image(example.source, "image"))
            except (InputError, OSError) as error:
                left_out[example.name] = reason_of(error)
                continue
            square = ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS).tobytes()
            twin = names.setdefault(blake2b(square).digest(), example.name)
            if twin != example.name:
                left_out[example.name] = f"The same as {twin}."
                continue
            file.write(square)
            used.append(example)
            short_sides.append(min(image.size))
    if len(used) < MIN_IMAGES:
        message = f"There are {len(used)} images that can be used; at least {MIN_IMAGES} are needed."
        for name, reason in islice(left_out.items(), 1):
            message += f" {len(left_out)} were left out, such as {name}: {reason}"
        raise InputError(message)
    index = StoreIndex(
        resolution=resolution,
        kind=source.kind,
        names=tuple(example.name for example in used),
        texts=tuple(example.text for example in used),
        held_out=tuple(split_held_out(used)),
    )
    # Last: a folder with an index is a whole store.
    write_text(folder / INDEX, index.model_dump_json(indent=1))
    return list(_report(index, short_sides, left_out))


def _report(index: StoreIndex, short_sides: list[int], left_out: dict[str, str]) -> Iterator[str]:
    yield f"{len(index.names):,} images, {sum(index.held_out):,} of them held out"
    middle = statistics.median(short_sides)
    yield f"short sides of {min(short_sides):,} to {max(short_sides):,} pixels, {middle:,.0f} in the middle"
    if left_out:
        yield f"{len(left_out):,} left out:"
        yield from (f"  {name}: {reason}" for name, reason in islice(left_out.items(), MAX_NAMED))
    words = Counter(index.texts)
    if index.kind == "text":
        words = Counter(word for text in index.texts for word in re.findall(r"\w+", text.lower()))
    if index.kind == "none":
        yield "neither captions nor classes: images are completed and regenerated without words"
    else:
        what = "different words in captions" if index.kind == "text" else "classes"
        frequent = ", ".join(f"{word} ({count:,})" for word, count in words.most_common(MAX_COUNTED))
        yield f"{len(words):,} {what}, most frequent: {frequent}"


def split_held_out(examples: Sequence[Example]) -> list[bool]:
    """Which images are never trained on: those of a split called test, else one in twenty, by their names."""
    tests = [example.is_test for example in examples]
    if any(tests) and not all(tests):
        return tests
    count = min(max(MIN_HELD_OUT, round(HELD_OUT_SHARE * len(examples))), MAX_HELD_OUT)
    order = sorted(range(len(examples)), key=lambda i: blake2b(examples[i].name.encode()).digest())
    chosen = set(order[:count])
    return [i in chosen for i in range(len(examples))]


class ImageStore:
    """The images that `inspect_dataset` has written to a folder. Raises InputError where they are not there, or cut."""

    def __init__(self, folder: Path) -> None:
        self.index = load(StoreIndex, folder / INDEX)
        side, count = int(self.index.resolution * STORED_SCALE), len(self.index.names)
        try:
            self.pixels = np.memmap(folder / PIXELS, np.uint8, "r", shape=(count, side, side, 3))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{folder} is damaged ({reason_of(error)}); delete it to read the images again."
            ) from error

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
        return [self.store.index.texts[number] for number in self.numbers]

    def __len__(self) -> int:
        return len(self.numbers) * self.views

    def __getitem__(self, index: int) -> dict[str, Any]:
        view, place = divmod(index, len(self.numbers))
        number = self.numbers[place]
        return {"image": self.store.view(number, view), "text": self.store.index.texts[number]}


def stored_dataset(data: str, size: int, folder: Path) -> AugmentedViews:
    """The images of a folder or of a data set of the Hub, stored in `folder` unless that is done, or of a store."""
    if (Path(data) / INDEX).exists():
        folder = Path(data)
    with PartialState().main_process_first():
        if not (folder / INDEX).exists():
            print(*inspect_dataset(open_dataset(data), size, folder), sep="\n", file=sys.stderr)
    store = ImageStore(folder)
    if store.index.resolution != size:
        raise InputError(f"{folder} holds images of {store.index.resolution} pixels a side, expected {size}.")
    return AugmentedViews(store, store.index.numbers(held_out=False), MAX_VIEWS)


def grid(images: Tensor, columns: int) -> Image.Image:
    """Images [B, 3, S, S] in [-1, 1], row by row on white."""
    rows = [to_images(row) for row in images.split(columns)]
    return sheet(rows, images.shape[-1], margin=1)
