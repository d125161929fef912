"""The models that can be chosen, their examples, and what the page shows of the one that is chosen.

A model's examples are images to start from, each with a mask over what to change and a prompt for what should be there:
`NAME.png`, and beside it, where there are any, `NAME.mask.png` (white: regenerate) and `NAME.txt` (the prompt).
"""

import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from PIL import Image

from imagebart.core.errors import InputError
from imagebart.imaging.files import flatten, load_image
from imagebart.imaging.masks import MASK_SUFFIX, load_mask
from imagebart.pipeline import Pipeline
from imagebart.ui import messages
from imagebart.ui.files import describe, downscaled, pack_for_view, publish_permanently
from imagebart.weights.folder import CONFIG, EXAMPLES
from imagebart.weights.registry import MODELS, PublishedModel, model_folder

PUBLISHED = ("scale1.ckpt", "*/scale1.ckpt")  # the archives of 2021 hold a folder, or the files themselves
THUMBNAIL_SIDE = 128  # pixels
# Masks are shown in this color, this opaque: the image stays visible below. The same in view.js.
MASK_COLOR = (255, 61, 113)
MASK_OPACITY = 0.6

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """An image to start from, RGB, with its mask and prompt, and a caption that screen readers read out."""

    name: str  # its file's name without the ending
    caption: str
    image: Image.Image
    mask: Image.Image | None = None
    prompt: str = ""

    def thumbnail(self) -> Image.Image:
        if self.mask is None:
            return self.image
        opacity = self.mask.point([round(value * MASK_OPACITY) for value in range(256)])
        return Image.composite(Image.new("RGB", self.image.size, MASK_COLOR), self.image, opacity)

    def publish(self) -> dict[str, Any]:
        """The example as the sketchpad takes it. Its files have the same names each time."""
        name = f"{self.name}-{hashlib.sha256(self.image.tobytes()).hexdigest()[:12]}.png"
        path = publish_permanently(name, self.image)
        return {
            "image": describe(path, self.image, publish_permanently(f"view-{name}", downscaled(self.image))),
            "caption": self.caption,
            "prompt": self.prompt,
            "mask": "" if self.mask is None else pack_for_view(self.mask),
            "small": publish_permanently(f"small-{name}", downscaled(self.thumbnail(), THUMBNAIL_SIDE)),
        }


def find_examples(folder: Path) -> list[Example]:
    """All examples of a folder that can be read, by name. `01-red-curls.png` is captioned "Red curls"."""
    examples = []
    for path in sorted(folder.glob("*.png")):
        if path.name.endswith(MASK_SUFFIX):
            continue
        mask, text = path.with_name(path.stem + MASK_SUFFIX), path.with_suffix(".txt")
        try:
            image = flatten(load_image(path, "example"))
            painted = load_mask(mask, image.size) if mask.is_file() else None
            prompt = text.read_text(encoding="utf-8").strip() if text.is_file() else ""
        except (OSError, ValueError) as error:
            log.warning("the example %s is left out: %s", path, error)
            continue
        words = re.sub(r"^\d+\W*", "", path.stem.replace("-", " ").replace("_", " ")).strip()
        caption = (words or path.stem).capitalize() + (f": {prompt}" if prompt else "")
        examples.append(Example(path.stem, caption, image, painted, prompt))
    return examples


@dataclass
class Models:
    """The models of a page: the one that it opens with, those of a folder, and the published ones.

    One other than the first is kept in memory, from when it is first used until another one is. Threads may share it.
    """

    first: Pipeline
    first_examples: Sequence[Example] = ()
    folder: Path | None = None  # of models, by the names of their own folders
    downloads: bool = False  # whether published models that are not on this machine can be chosen, too
    load: Callable[[Path], Pipeline] = Pipeline.from_pretrained
    questions: Pipeline | None = None  # the first model on the CPU, where `first` is on a GPU that is lent to runs only
    _other: tuple[str, Pipeline] | None = field(default=None, init=False)
    _lock: Any = field(default_factory=Lock, init=False)

    def folders(self) -> dict[str, Path]:
        """Where the models are, but for the first, sorted by name."""
        inside = self.folder.iterdir() if self.folder and self.folder.is_dir() else ()
        places = {name: model_folder(name) for name in MODELS} | {path.name: path for path in inside}
        places.pop(self.first.name, None)
        return {name: places[name] for name in sorted(places) if is_model(places[name])}

    def missing(self) -> dict[str, PublishedModel]:
        """The published models that are not here and can be fetched, by name."""
        here = (self.first.name, *self.folders())
        return {name: model for name, model in MODELS.items() if self.downloads and name not in here}

    def choices(self) -> list[tuple[str, str]]:
        """What can be chosen, the first model first: a line about each model, and its name."""
        missing = [
            (f"{title(name)} ({model.download_gb:g} GB to download)", name) for name, model in self.missing().items()
        ]
        return [(title(name), name) for name in (self.first.name, *self.folders())] + missing

    def fetch(self, name: str) -> None:
        """Downloads a published model. Raises InputError where that cannot be done."""
        from imagebart.weights.download import ensure_model  # only for those who want such a model

        with _said_shortly(name):
            ensure_model(name)

    def get(self, name: str | None) -> Pipeline:
        """The model of a name; None is the first. Raises InputError for one that cannot be used."""
        if name is None or name == self.first.name:
            return self.first
        with self._lock:
            if self._other is None or self._other[0] != name:
                folders = self.folders()
                if name not in folders:
                    there = ", ".join([self.first.name, *folders])
                    raise InputError(f"There is no model {name[:80]!r} here; choose one of {there}.")
                self._other = None  # before loading: both would have to fit otherwise
                with _said_shortly(name):
                    self._other = (name, self.load(folders[name]))
            return self._other[1]

    def for_questions(self, name: str | None) -> Pipeline:
        """The same for what is asked between runs."""
        pipeline = self.get(name)
        return self.questions or pipeline if pipeline is self.first else pipeline

    def examples(self, name: str) -> list[dict[str, Any]]:
        """A model's examples as the sketchpad takes them; those of the first model where it has none of its own."""
        folder = self.folders().get(name)
        examples = (find_examples(folder / EXAMPLES) if folder else []) or self.first_examples
        return [example.publish() for example in examples]


def title(name: str) -> str:
    """A model's name for people: "Avatars", and of a published model what it draws."""
    model = MODELS.get(name)
    words = name.replace("_", " ").replace("-", " ") if model is None else f"{model.domain}, {model.stages} steps"
    return words[:1].upper() + words[1:]


@contextmanager
def _said_shortly(name: str) -> Iterator[None]:
    """What is wrong with a model stands in the log, as it names folders of the server; the page says that it is."""
    try:
        yield
    except (OSError, ValueError) as error:
        log.warning("the model %s cannot be used: %s", name, error)
        raise InputError(f"The model {name} cannot be used; the server's log says why.") from error


def is_model(folder: Path) -> bool:
    """Whether a folder holds a model, as it is saved here or as it was published."""
    return (folder / CONFIG).is_file() or any(next(folder.glob(pattern), None) for pattern in PUBLISHED)


def model_properties(pipeline: Pipeline) -> dict[str, dict[str, Any]]:
    kind, vocabulary = pipeline.conditioning, pipeline.vocabulary
    example = "".join(f" Such as: {words[0]}" for words in [*pipeline.suggestions.values()][:1])
    words = messages.words_html(pipeline.suggestions, vocabulary) if vocabulary else messages.NO_VOCABULARY[kind]
    return {
        "surprise": {"visible": kind != "none"},
        "vary": {"visible": not pipeline.draws_layers},
        "best_first": {"visible": pipeline.scorer is not None},
        "vocabulary": {"value": words},
        "card": {"value": messages.about_model(pipeline)},
        "words": {"visible": kind == "text", "placeholder": f"What should be there?{example}"},
        "choice": {"choices": pipeline.classes, "value": pipeline.classes[:1], "visible": kind == "class"},
        "guidance": {"visible": kind != "none"},
        "scales": {"visible": pipeline.any_scales},
    }
