"""`imagebart generate`, `edit`, `vary` and `describe`: what the page does, in the page's words."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagebart.cli.options import DEFAULT_MODEL, Model, Sampling, command, output_folder
from imagebart.errors import InputError, format_value, plain
from imagebart.settings import DEFAULT_STRENGTH
from imagebart.training.progress import progress

if TYPE_CHECKING:  # --help needs neither torch nor images
    from PIL import Image

    from imagebart.imaging.metadata import Recipe
    from imagebart.pipeline import Pipeline, PipelineEvent


SEVERAL = "Given several times: an image of each."
AUTO = "auto"  # the mask is suggested for the prompt
MASKS = (
    "An image, white where to regenerate, grey where to forget only a part of what is there; 'upper half', 'centre', "
    f"...; or '{AUTO}': the place that the prompt is about. It is fitted to the model and the prompt."
)
# The animation of a run: its length in seconds, the longest side and number of its frames.
SECONDS = 4.0
LONGEST_FRAME = 1024
MOST_FRAMES = 120

app = typer.Typer()


@dataclass(frozen=True)
class Output:
    """The options of every command that samples images."""

    out: Annotated[Path, typer.Option(help="The image; further variants get -2, -3, ... Of a folder: a folder.")]
    model: Model = DEFAULT_MODEL
    steps_out: Annotated[Path | None, typer.Option(help="The run as an animation, .webp.")] = None
    like: Annotated[Path | None, typer.Option(help="A PNG made before: gives what is not given here.")] = None
    seed: Annotated[int | None, typer.Option(help="The same gives the same image; a new one if not given.")] = None
    variants: Annotated[int, typer.Option(help="How many images.")] = 1
    best_first: Annotated[
        bool, typer.Option("--best-first", help="Variants in order, best first, by the model's scorer.")
    ] = False
    best_of: Annotated[int | None, typer.Option(help="Sample so many and write the best alone.")] = None
    scorer: Annotated[
        str | None,
        typer.Option(help="What ranks: a classifier or CLIP, by folder or Hub name, in place of the model's own."),
    ] = None


@command(app)
def generate(
    output: Output,
    sampling: Sampling,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help=f"What to generate, or the class of a class model; anything if not given. {SEVERAL}"),
    ] = None,
) -> None:
    """An image from a prompt."""
    like = _prepare(output)
    pipe = _pipeline(output, like)
    _follow(pipe.generate(_prompts(prompt, like), **_common(output, sampling, like, pipe)), output)


@command(app)
def edit(
    image: Annotated[Path, typer.Option(help="The image to edit, or a folder of images.")],
    mask: Annotated[str, typer.Option(help=MASKS)],
    output: Output,
    sampling: Sampling,
    prompt: Annotated[list[str] | None, typer.Option(help=f"What should be there. {SEVERAL}")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Change nothing but what the mask marks.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Remove what the mask marks, without a prompt.")] = False,
    feather: Annotated[int | None, typer.Option(help="Pixels over which the change fades in; 0 if not given.")] = None,
    context: Annotated[
        float | None,
        typer.Option(help="How much around the mask the model sees, over its longer side; all if not given."),
    ] = None,
) -> None:
    """Regenerate what a mask marks; of a folder of images, in each, several at a time.

    Of a folder: --out is one, too. --mask may be a folder with NAME.mask.png, or an image of the same name, for each.
    Without --prompt, each has its own from metadata.jsonl or .csv there (file_name, text), or from NAME.txt beside it.
    What is done is left alone: a run goes on where another stopped, and several share the work.
    """
    from imagebart.imaging import files as images
    from imagebart.imaging import masks

    if image.is_dir():
        _edit_folder(image, mask, output, sampling, prompt, exact, remove, feather, context)
        return
    like = _prepare(output)
    source = images.load_image(image)
    given = None
    if mask != AUTO:
        given = masks.preset(mask, source.size) if mask in masks.PRESETS else masks.load_mask(Path(mask), source.size)
    pipe = _pipeline(output, like)
    prompts, common = _prompts(prompt, like), _common(output, sampling, like, pipe)
    common |= _mask_options(mask, like, exact, remove, feather, context)
    _follow(pipe.edit(source, given, prompts, **common), output)


@command(app)
def vary(
    image: Annotated[Path, typer.Option(help="The image to vary.")],
    output: Output,
    sampling: Sampling,
    strength: Annotated[
        float | None,
        typer.Option(help=f"Share that is regenerated, over 0, at most 1; {DEFAULT_STRENGTH} if not given."),
    ] = None,
    prompt: Annotated[list[str] | None, typer.Option(help=f"What it should show. {SEVERAL}")] = None,
) -> None:
    """Images like an image."""
    like = _prepare(output)
    share = _first(strength, like and like.strength, DEFAULT_STRENGTH)
    pipe = _pipeline(output, like)
    _follow(pipe.vary(image, share, _prompts(prompt, like), **_common(output, sampling, like, pipe)), output)


@command(app)
def describe(image: Annotated[Path, typer.Argument(help="The image.")], model: Model = DEFAULT_MODEL) -> None:
    """What an image shows, in the model's own words."""
    from imagebart.pipeline import Pipeline

    print(Pipeline.from_pretrained(model).describe(image))


def _edit_folder(
    image: Path,
    mask: str,
    output: Output,
    sampling: Sampling,
    prompt: list[str] | None,
    exact: bool,
    remove: bool,
    feather: int | None,
    context: float | None,
) -> None:
    from imagebart.cli.batch import edit_folder, find_jobs

    if output.out.suffix.lower() in (".png", ".jpg", ".webp") or output.out.is_file():
        raise InputError(f"--image is a folder, and so --out must be one; {output.out.name} names an image.")
    alone = {
        "--steps-out": output.steps_out, "--variants": output.variants != 1, "--best-of": output.best_of,
        "--best-first": output.best_first, "--scorer": output.scorer, "--mask auto": mask == AUTO,
        "several --prompt": prompt and len(prompt) > 1,
    }  # fmt: skip
    for option in (option for option, value in alone.items() if value):
        raise InputError(f"{option} is for one image; --image is a folder, of which each image is edited once.")
    like = _read_like(output)
    words = _first(prompt[0] if prompt else None, like and like.prompt)
    jobs = find_jobs(image, output_folder(str(output.out)), mask, words)
    pipe = _pipeline(output, like)
    common = _common(output, sampling, like, pipe)
    options = _mask_options(mask, like, exact, remove, feather, context)
    edit_folder(pipe, jobs, common["seed"], settings=common["settings"], **options)


def _mask_options(
    mask: str, like: Recipe | None, exact: bool, remove: bool, feather: int | None, context: float | None
) -> dict[str, Any]:
    """How an edit takes its mask, as `Pipeline.edit` has it; nobody painted a ready one."""
    from imagebart.imaging.masks import PRESETS

    return {
        "exact": exact or (like is not None and like.exact),
        "movable": mask in PRESETS,
        "remove": remove or (like is not None and like.remove),
        "feather": _first(feather, like and like.feather, 0),
        "context": _first(context, like and like.context, math.inf),
    }


def _prepare(output: Output) -> Recipe | None:
    """Refuses what could not be written in the end; reads the recipe of --like."""
    from PIL import Image

    out, steps_out = output.out, output.steps_out
    if steps_out is not None:
        if steps_out.suffix.lower() != ".webp":
            raise InputError(f"An animation cannot be written to {steps_out.name!r}; end the name in .webp.")
        if steps_out.resolve() == out.resolve():
            raise InputError(f"--out and --steps-out are both {steps_out.name}; name two files.")
    if Image.registered_extensions().get(out.suffix.lower()) not in Image.SAVE:
        raise InputError(f"An image cannot be written to {format_value(out.name)}; end the name in .png.")
    for path in (out, steps_out):
        if path is not None and not path.parent.is_dir():
            raise InputError(f"There is no folder {path.parent} to write {path.name} to.")
    return _read_like(output)


def _read_like(output: Output) -> Recipe | None:
    from imagebart.imaging.metadata import read_recipe

    if output.like is None:
        return None
    like = read_recipe(output.like)
    if like is None:
        raise InputError(f"{output.like} is no PNG that says how it was made; choose one that this program wrote.")
    return like


def _pipeline(output: Output, like: Recipe | None) -> Pipeline:
    from imagebart.pipeline import Pipeline

    pipe = Pipeline.from_pretrained(output.model)
    if output.scorer is not None:
        from imagebart.ranking import load_scorer

        pipe.scorer = load_scorer(output.scorer, pipe.model)
    if output.like is not None and like is not None and like.model != pipe.name:
        said = f"{output.like.name} was made by the model {like.model}; this one is {pipe.name}."
        print(plain(said), file=sys.stderr)
    return pipe


def _common(output: Output, sampling: Sampling, like: Recipe | None, pipe: Pipeline) -> dict[str, Any]:
    settings = sampling.over(pipe.defaults if like is None else like.settings)
    seed = _first(output.seed, like and like.own_seed)
    variants, ranked = _first(output.best_of, output.variants), output.best_first or output.best_of is not None
    return {"seed": seed, "settings": settings, "variants": variants, "best_first": ranked}


def _prompts(given: list[str] | None, like: Recipe | None) -> str | list[str] | None:
    """The prompt, several, or that of the image to be like."""
    return given if given and len(given) > 1 else _first(given[0] if given else None, like and like.prompt)


def _first(*values: Any) -> Any:
    """The first that is not None."""
    return next((value for value in values if value is not None), None)


def _follow(run: Iterable[PipelineEvent], output: Output) -> None:
    """Shows the progress on standard error; writes the images, and prints their paths on standard output."""
    from imagebart.imaging.files import save_animation, save_image
    from imagebart.imaging.metadata import write_png

    event, noted = None, set[str]()
    animation = Animation()
    with progress("tokens") as bar:
        task = bar.add_task("", total=None)
        for event in run:
            for note in event.notes:
                if note not in noted:
                    print(plain(note), file=sys.stderr)
            noted.update(event.notes)
            if output.steps_out is not None:
                animation.add(event)
            said = f"stage {event.stage} of {event.stages}, pass {event.resample_index + 1} of {event.resamples}"
            bar.update(task, description=said, completed=event.position, total=event.total)
    assert event is not None
    print(f"seed {event.seed}, {event.elapsed:.1f} s", file=sys.stderr)
    for number, image in enumerate(event.images[: 1 if output.best_of is not None else None]):
        path = output.out if number == 0 else output.out.with_stem(f"{output.out.stem}-{number + 1}")
        if path.suffix.lower() == ".png":
            write_png(image, path, event.recipes[number])
        else:
            save_image(image, path)
        print(path)
    if output.steps_out is not None:
        save_animation(animation.frames, output.steps_out, SECONDS)
        print(output.steps_out)


class Animation:
    """The first variant at all moments of a run; when they get too many, every other preview goes."""

    def __init__(self, most: int = MOST_FRAMES) -> None:
        self._most = most
        self._moments: list[tuple[bool, Image.Image]] = []  # whether it is a preview

    @property
    def frames(self) -> list[Image.Image]:
        """In order, the result last."""
        return [image for _, image in self._moments]

    def add(self, event: PipelineEvent) -> None:
        """Takes the event's image, reduced to LONGEST_FRAME a side."""
        from PIL import ImageOps

        image = event.image
        if max(image.size) > LONGEST_FRAME:
            image = ImageOps.contain(image, (LONGEST_FRAME, LONGEST_FRAME))
        self._moments.append((event.kind == "preview", image))
        if len(self._moments) > self._most:
            self._moments = [(p, image) for i, (p, image) in enumerate(self._moments) if not p or i % 2]
