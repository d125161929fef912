"""The models in a folder, loaded when they are first asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from threading import Lock

from imagebart.errors import InputError
from imagebart.pipeline import Pipeline
from imagebart.ui.examples import EXAMPLES, Example, find_examples
from imagebart.weights.folder import CONFIG
from imagebart.weights.places import find

PUBLISHED = ("scale1.ckpt", "*/scale1.ckpt")  # the archives of 2021 hold a folder, or the files themselves


class Models:
    """The models of a folder by the names of their own folders. Threads may share it.

    most: how many are kept in memory; the one unused for longest goes first (a run that still uses it ends in
    peace). load: makes a pipeline of a model's folder.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        most: int = 2,
        load: Callable[[Path], Pipeline] = Pipeline.from_pretrained,
    ) -> None:
        if most < 1:
            raise ValueError(f"{most} models are to be kept, expected 1 or more")
        self._folder = Path(folder)
        self._most = most
        self._load = load
        self._loaded: OrderedDict[str, Pipeline] = OrderedDict()
        self._turn = Lock()

    @classmethod
    def beside(cls, source: str | PathLike[str], most: int = 1) -> Models:
        """The models in the folder that holds a model: `source` is its own folder, or a published model's name."""
        folder = Path(source)
        return cls((folder if folder.is_dir() else find(str(source))).resolve().parent, most)

    def names(self) -> list[str]:
        """The models that are there now, sorted. Folders without a model's files are none."""
        return sorted(path.name for path in self._folder.iterdir() if _is_model(path)) if self._folder.is_dir() else []

    def examples(self, name: str) -> list[Example]:
        """The pictures that a model brings to start from; none for a name that is not among `names`."""
        return find_examples(self._folder / name / EXAMPLES) if name in self.names() else []

    def get(self, name: str) -> Pipeline:
        """The model of this name, from memory or from its folder; one is loaded at a time.

        Raises InputError for a name that is not among `names`, WeightsError for files that cannot be used.
        """
        with self._turn:
            if name not in self._loaded:
                if name not in self.names():
                    there = f"choose one of {', '.join(self.names())}" if self.names() else "the folder holds none"
                    raise InputError(f"There is no model {name[:80]!r} in {self._folder.name}; {there}.")
                while len(self._loaded) >= self._most:  # before loading: both would have to fit otherwise
                    self._loaded.popitem(last=False)
                self._loaded[name] = self._load(self._folder / name)
            self._loaded.move_to_end(name)
            return self._loaded[name]


def _is_model(folder: Path) -> bool:
    return (folder / CONFIG).is_file() or any(next(folder.glob(pattern), None) for pattern in PUBLISHED)
