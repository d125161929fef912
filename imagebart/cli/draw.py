"""`imagebart generate`, `edit`, `vary` and `describe`: what the page does, in the page's words."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagebart.cli.options import DEFAULT_MODEL, EditSampling, Model, Sampling, command
from imagebart.errors import InputError, plain
from imagebart.training.progress import progress

if TYPE_CHECKING:  # --help needs neither torch nor pictures
    from PIL import Image

    from imagebart.imaging.metadata import Recipe
    from imagebart.pipeline import Pipeline, PipelineEvent


STRENGTH = 0.3
SEVERAL = "Given several times: a picture of each."
AUTO = "auto"  # the mask is where the prompt's words belong
MASKS = f"A picture, white where to redraw; 'upper half', 'centre', ...; or '{AUTO}': where the prompt's words belong."
# The animation of a run: its length in seconds, the longest side and number of its frames.
SECONDS = 4.0
LONGEST_FRAME = 1024
MOST_FRAMES = 120

app = typer.Typer()


@dataclass(frozen=True)
class Drawing:
    """What all commands that draw are told."""

    out: Annotated[Path, typer.Option(help="The picture; further variants get -2, -3, ...")]
    model: Model = DEFAULT_MODEL
    steps_out: Annotated[Path | None, typer.Option(help="The way to it as a moving picture, .webp or .gif.")] = None
    like: Annotated[Path | None, typer.Option(help="A PNG made before: takes from it what is not given here.")] = None
    seed: Annotated[int | None, typer.Option(help="The same gives the same picture; a new one if not given.")] = None
    variants: Annotated[int, typer.Option(help="How many pictures.")] = 1
    best_first: Annotated[
        bool, typer.Option("--best-first", help="Variants in order, best first, as the model judges.")
    ] = False
    best_of: Annotated[int | None, typer.Option(help="Draw so many and write the best alone.")] = None
    scorer: Annotated[
        str | None,
        typer.Option(help="What ranks: a classifier or CLIP, by folder or Hub name, in place of the model's own."),
    ] = None


@command(app)
def generate(
    draw: Drawing,
    sampling: Sampling,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help=f"What to draw, or the class of a class model; anything if not given. {SEVERAL}"),
    ] = None,
) -> None:
    """A picture from a prompt."""
    like = _prepare(draw)
    pipe = _pipeline(draw, like)
    run = pipe.generate(_asked(prompt, like), **_common(draw, sampling, like, pipe))
    _follow(run, draw)


@command(app)
def edit(
    image: Annotated[Path, typer.Option(help="The picture to edit.")],
    mask: Annotated[str, typer.Option(help=MASKS)],
    draw: Drawing,
    sampling: EditSampling,
    prompt: Annotated[list[str] | None, typer.Option(help=f"What should be there. {SEVERAL}")] = None,
    feather: Annotated[int | None, typer.Option(help="Pixels over which the change fades in; 0 if not given.")] = None,
    context: Annotated[
        float | None,
        typer.Option(help="How much around the mask the model sees, over its longer side; all if not given."),
    ] = None,
) -> None:
    """Redraw what a mask paints."""
    from imagebart.imaging import files as images

    like = _prepare(draw)
    picture = images.load_image(image)
    painted = None if mask == AUTO else _mask(mask, picture.size)
    seam = _first(feather, like and like.feather, 0)
    around = _first(context, like and like.context, math.inf)
    pipe = _pipeline(draw, like)
    asked, common = _asked(prompt, like), _common(draw, sampling, like, pipe)
    if painted is None:
        if isinstance(asked, list):
            raise InputError(f"--mask {AUTO} looks for the place of one prompt; {len(asked)} were given.")
        painted = pipe.suggest_mask(picture, asked)
        asked, common["settings"] = pipe.complete_prompt(picture, asked, common["settings"])
    run = pipe.edit(picture, painted, asked, feather=seam, context=around, **common)
    _follow(run, draw)


@command(app)
def vary(
    image: Annotated[Path, typer.Option(help="The picture to vary.")],
    draw: Drawing,
    sampling: Sampling,
    strength: Annotated[
        float | None, typer.Option(help=f"Share that is redrawn, over 0, at most 1; {STRENGTH} if not given.")
    ] = None,
    prompt: Annotated[list[str] | None, typer.Option(help=f"What it should show. {SEVERAL}")] = None,
) -> None:
    """Pictures like a picture."""
    like = _prepare(draw)
    share = _first(strength, like and like.strength, STRENGTH)
    pipe = _pipeline(draw, like)
    run = pipe.vary(image, share, _asked(prompt, like), **_common(draw, sampling, like, pipe))
    _follow(run, draw)


@command(app)
def describe(image: Annotated[Path, typer.Argument(help="The picture.")], model: Model = DEFAULT_MODEL) -> None:
    """What a picture shows, in the model's own words."""
    from imagebart.pipeline import Pipeline

    print(Pipeline.from_pretrained(model).describe(image))


def _mask(name: str, size: tuple[int, int]) -> Image.Image:
    """A ready mask by its name, or that of a file."""
    from imagebart.imaging import masks

    return masks.preset(name, size) if name in masks.PRESETS else masks.load_mask(Path(name), size)


def _prepare(draw: Drawing) -> Recipe | None:
    """Refuses what could not be written in the end; reads the picture to be like."""
    from PIL import Image

    from imagebart.imaging.files import animation_format
    from imagebart.imaging.metadata import read_recipe

    if draw.steps_out is not None:
        animation_format(draw.steps_out)
        if draw.steps_out.resolve() == draw.out.resolve():
            raise InputError(f"--out and --steps-out are both {draw.steps_out.name}; name two files.")
    if Image.registered_extensions().get(draw.out.suffix.lower()) not in Image.SAVE:
        raise InputError(f"A picture cannot be written to {draw.out.name!r}; end the name in .png.")
    for path in (draw.out, draw.steps_out):
        if path is not None and not path.parent.is_dir():
            raise InputError(f"There is no folder {path.parent} to write {path.name} to.")
    if draw.like is None:
        return None
    like = read_recipe(draw.like)
    if like is None:
        raise InputError(f"{draw.like} is no PNG that says how it was made; choose one that this program wrote.")
    return like


def _pipeline(draw: Drawing, like: Recipe | None) -> Pipeline:
    from imagebart.pipeline import Pipeline

    pipe = Pipeline.from_pretrained(draw.model)
    if draw.scorer is not None:
        from imagebart.ranking import load_scorer

        pipe.scorer = load_scorer(draw.scorer, pipe.model)
    if draw.like is not None and like is not None and like.model != pipe.name:
        said = f"{draw.like.name} was made by the model {like.model}; this one is {pipe.name}."
        print(plain(said), file=sys.stderr)
    return pipe


def _common(draw: Drawing, sampling: Sampling, like: Recipe | None, pipe: Pipeline) -> dict[str, Any]:
    settings = sampling.over(pipe.defaults if like is None else like.settings)
    seed = _first(draw.seed, like and like.own_seed)
    variants, ranked = _first(draw.best_of, draw.variants), draw.best_first or draw.best_of is not None
    return {"seed": seed, "settings": settings, "variants": variants, "best_first": ranked}


def _asked(given: list[str] | None, like: Recipe | None) -> str | list[str] | None:
    """The prompt, several, or that of the picture to be like."""
    return given if given and len(given) > 1 else _first(given[0] if given else None, like and like.prompt)


def _first(*values: Any) -> Any:
    """The first that is not None."""
    return next((value for value in values if value is not None), None)


def _follow(run: Iterable[PipelineEvent], draw: Drawing) -> None:
    """Says what is happening on standard error; writes the pictures, and says where on standard output."""
    from imagebart.imaging.files import save_animation, save_image
    from imagebart.imaging.metadata import write_png

    event, noted = None, set[str]()
    film = Film()
    with progress("tokens") as bar:
        task = bar.add_task("", total=None)
        for event in run:
            for note in event.notes:
                if note not in noted:
                    print(plain(note), file=sys.stderr)
            noted.update(event.notes)
            if draw.steps_out is not None:
                film.add(event)
            said = f"stage {event.stage} of {event.stages}, pass {event.resample_index + 1} of {event.resamples}"
            if event.corrector_step:
                said = f"corrector step {event.corrector_step}"
            bar.update(task, description=said, completed=event.position, total=event.total)
    assert event is not None
    print(f"seed {event.seed}, {event.elapsed:.1f} s", file=sys.stderr)
    for number, image in enumerate(event.images[: 1 if draw.best_of is not None else None]):
        path = draw.out if number == 0 else draw.out.with_stem(f"{draw.out.stem}-{number + 1}")
        if path.suffix.lower() == ".png":
            write_png(image, path, event.recipes[number])
        else:
            save_image(image, path)
        print(path)
    if draw.steps_out is not None:
        save_animation(film.frames, draw.steps_out, SECONDS)
        print(draw.steps_out)


class Film:
    """The first variant at all moments of a run; when they get too many, every other preview goes."""

    def __init__(self, most: int = MOST_FRAMES) -> None:
        self._most = most
        self._moments: list[tuple[bool, Image.Image]] = []  # whether it is a preview

    @property
    def frames(self) -> list[Image.Image]:
        """In order, the result last."""
        return [image for _, image in self._moments]

    def add(self, event: PipelineEvent) -> None:
        """Takes the event's picture, reduced to LONGEST_FRAME a side."""
        from PIL import ImageOps

        image = event.image
        if max(image.size) > LONGEST_FRAME:
            image = ImageOps.contain(image, (LONGEST_FRAME, LONGEST_FRAME))
        self._moments.append((event.kind == "preview", image))
        if len(self._moments) > self._most:
            self._moments = [(p, image) for i, (p, image) in enumerate(self._moments) if not p or i % 2]
