"""`imagebart generate`, `edit`, `vary` and `describe`: what the page does, in the page's words."""

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagebart.cli.options import Model, Sampling, command, output_folder
from imagebart.core.errors import InputError, plain
from imagebart.core.settings import DEFAULT_MODEL, DEFAULT_STRENGTH

if TYPE_CHECKING:  # --help needs neither torch nor images
    from PIL import Image

    from imagebart.imaging.files import Recipe
    from imagebart.pipeline import Pipeline, PipelineEvent

AUTO = "auto"  # the mask is suggested for the prompt
MASKS = (
    "An image, white where to regenerate, gray where to forget only a part of what is there; 'upper half', 'center', "
    f"...; or '{AUTO}': the place that the prompt is about. It is fitted to the model and the prompt."
)
# The animation of a run: its length in seconds, the longest side and number of its frames.
SECONDS, LONGEST_FRAME, MOST_FRAMES = 4.0, 1024, 120

app = typer.Typer()


@dataclass
class Output:
    """The options of every command that samples images."""

    out: Annotated[Path, typer.Option(help="The image; further variants get -2, -3, ... Of a folder: a folder.")]
    model: Model = DEFAULT_MODEL
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="What to show, or the class of a class model. Given several times: an image of each."),
    ] = None
    steps_out: Annotated[Path | None, typer.Option(help="The run as an animation, .webp.")] = None
    like: Annotated[Path | None, typer.Option(help="A PNG made before: gives what is not given here.")] = None
    seed: Annotated[int | None, typer.Option(help="The same gives the same image; a new one if not given.")] = None
    variants: Annotated[int, typer.Option(help="How many images.")] = 1
    best_first: Annotated[bool, typer.Option("--best-first", help="Order variants by the model's scorer.")] = False
    best_of: Annotated[int | None, typer.Option(help="Sample so many and write the best alone.")] = None
    scorer: Annotated[str | None, typer.Option(help="Ranks: classifier or CLIP, folder or Hub name.")] = None

    @cached_property
    def recipe(self) -> "Recipe | None":
        from imagebart.imaging.files import read_recipe

        if self.like is None:
            return None
        if (recipe := read_recipe(self.like)) is None:
            raise InputError(f"{self.like} is no PNG that says how it was made; choose one that this program wrote.")
        return recipe

    def first(self, given: Any, name: str, default: Any = None) -> Any:
        """What was given, or else what --like has of this name, or else the default."""
        like = getattr(self.recipe, name, None)
        return next((value for value in (given, like) if value is not None), default)

    @property
    def prompts(self) -> Any:
        several = self.prompt is not None and len(self.prompt) > 1
        return self.prompt if several else self.first(self.prompt[0] if self.prompt else None, "prompt")

    def check_files(self) -> None:
        """Raises InputError for files that could not be written in the end."""
        from imagebart.imaging.files import check_ending

        check_ending(self.out)
        if self.steps_out is not None and self.steps_out.suffix.lower() != ".webp":
            raise InputError(f"An animation cannot be written to {self.steps_out.name!r}; end the name in .webp.")
        if self.steps_out is not None and self.steps_out.resolve() == self.out.resolve():
            raise InputError(f"--out and --steps-out are both {self.steps_out.name}; name two files.")
        for path in (self.out, self.steps_out):
            if path is not None and not path.parent.is_dir():
                raise InputError(f"There is no folder {path.parent} to write {path.name} to.")
        if self.best_of is not None and self.variants != 1:
            raise InputError("--best-of writes the best image alone; leave out --variants.")

    def pipeline(self) -> "Pipeline":
        from imagebart.pipeline import Pipeline

        made_by = self.first(None, "model")  # is read first, as loading takes seconds
        pipe = Pipeline.from_pretrained(self.model)
        if self.scorer is not None:
            from imagebart.worlds.ranking import load_scorer

            pipe.scorer = load_scorer(self.scorer, pipe.model)
        if self.like is not None and made_by != pipe.name:
            print(plain(f"{self.like.name} was made by the model {made_by}; this one is {pipe.name}."), file=sys.stderr)
        return pipe

    def arguments(self, sampling: Sampling, pipe: "Pipeline") -> dict[str, Any]:
        return {
            "seed": self.first(self.seed, "own_seed"),
            "settings": self.first(None, "settings", pipe.defaults).replace(**sampling),
            "variants": self.best_of or self.variants,
            "best_first": self.best_first or self.best_of is not None,
        }


@dataclass
class Fill:
    """The options of how an edit fills its mask."""

    exact: Annotated[bool, typer.Option("--exact", help="Change nothing but what the mask marks.")] = False
    remove: Annotated[bool, typer.Option("--remove", help="Remove what the mask marks, without a prompt.")] = False
    feather: Annotated[int | None, typer.Option(help="Pixels over which the change fades in; 0 if not given.")] = None
    context: Annotated[float | None, typer.Option(help="Seen around the mask, over its longer side; else all.")] = None

    def arguments(self, output: Output, mask: str) -> dict[str, Any]:
        """What `Pipeline.edit` takes; nobody painted a ready mask, which may so be moved."""
        from imagebart.imaging.masks import PRESETS

        return {
            "exact": output.first(self.exact or None, "exact", False),
            "movable": mask in PRESETS,
            "remove": output.first(self.remove or None, "remove", False),
            "feather": output.first(self.feather, "feather", 0),
            "context": output.first(self.context, "context", math.inf),
        }


@command(app)
def generate(output: Output, sampling: Sampling) -> None:
    """An image from a prompt; of anything without one."""
    output.check_files()
    pipe = output.pipeline()
    _follow(pipe.generate(output.prompts, **output.arguments(sampling, pipe)), output)


@command(app)
def edit(
    image: Annotated[Path, typer.Option(help="The image to edit, or a folder of images.")],
    mask: Annotated[str, typer.Option(help=MASKS)],
    output: Output,
    sampling: Sampling,
    fill: Fill,
) -> None:
    """Regenerate what a mask marks; of a folder of images, in each, several at a time.

    Of a folder: --out is one, too. --mask may be a folder with NAME.mask.png, or an image of the same name, for each.
    Without --prompt, each has its own from metadata.jsonl there (file_name, text), or from NAME.txt beside it.
    What is done is left alone: a run goes on where another stopped.
    """
    from imagebart.cli.batch import edit_folder, find_jobs, open_mask
    from imagebart.imaging.files import load_image

    if image.is_dir():
        _check_folder(output, mask)
        jobs = find_jobs(image, output_folder(str(output.out)), mask, output.prompts)
        pipe = output.pipeline()
        common = output.arguments(sampling, pipe)
        edit_folder(pipe, jobs, common["seed"], settings=common["settings"], **fill.arguments(output, mask))
        return
    output.check_files()
    source = load_image(image)
    given = None if mask == AUTO else open_mask(mask, source.size)
    pipe = output.pipeline()
    arguments = {**output.arguments(sampling, pipe), **fill.arguments(output, mask)}
    _follow(pipe.edit(source, given, output.prompts, **arguments), output)


def _check_folder(output: Output, mask: str) -> None:
    """Raises InputError for options that are for one image alone."""
    if output.out.suffix.lower() in (".png", ".jpg", ".webp") or output.out.is_file():
        raise InputError(f"--image is a folder, and so --out must be one; {output.out.name} names an image.")
    alone = {
        "--steps-out": output.steps_out, "--variants": output.variants != 1, "--best-of": output.best_of,
        "--best-first": output.best_first, "--scorer": output.scorer, "--mask auto": mask == AUTO,
        "several --prompt": len(output.prompt or ()) > 1,
    }  # fmt: skip
    if given := [option for option, value in alone.items() if value]:
        raise InputError(f"{given[0]} is for one image; --image is a folder, of which each image is edited once.")


@command(app)
def vary(
    image: Annotated[Path, typer.Option(help="The image to vary.")],
    output: Output,
    sampling: Sampling,
    strength: Annotated[
        float | None, typer.Option(help=f"Share to regenerate, 0 to 1; else {DEFAULT_STRENGTH}.")
    ] = None,
) -> None:
    """Images like an image."""
    output.check_files()
    share = output.first(strength, "strength", DEFAULT_STRENGTH)
    pipe = output.pipeline()
    _follow(pipe.vary(image, share, output.prompts, **output.arguments(sampling, pipe)), output)


@command(app)
def describe(image: Annotated[Path, typer.Argument(help="The image.")], model: Model = DEFAULT_MODEL) -> None:
    """What an image shows, in the model's own words."""
    from imagebart.pipeline import Pipeline

    print(Pipeline.from_pretrained(model).describe(image))


def _follow(run: Iterable["PipelineEvent"], output: Output) -> None:
    """Shows the progress on standard error; writes the images, and prints their paths on standard output."""
    from tqdm import tqdm

    from imagebart.imaging.files import save_animation, save_image, write_png

    event, noted = None, set[str]()
    frames: list[Image.Image] = []
    with tqdm(unit="token", disable=None) as bar:
        for event in run:
            for note in event.notes:
                if note not in noted:
                    print(plain(note), file=sys.stderr)
            noted.update(event.notes)
            if output.steps_out is not None:
                frames.append(event.image.copy())
                frames[-1].thumbnail((LONGEST_FRAME, LONGEST_FRAME))  # smaller ones stay as they are
                if len(frames) > MOST_FRAMES:
                    del frames[1::2]  # the first stays, and the last, whose number is even
            bar.set_description(f"stage {event.stage} of {event.stages}", refresh=False)
            bar.total, bar.n = event.total, event.position
            bar.refresh()
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
        save_animation(frames, output.steps_out, SECONDS)
        print(output.steps_out)
