"""`python -m imagebart generate`, `edit` and `vary`: what the page does, in the page's words."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagebart.cli.options import (
    add_model_option,
    add_sampling_options,
    add_scales_option,
    add_start_option,
    given_settings,
)
from imagebart.errors import InputError

if TYPE_CHECKING:  # --help needs neither torch nor pictures
    from PIL import Image

    from imagebart.events import PipelineEvent
    from imagebart.imaging.metadata import Recipe
    from imagebart.pipeline import Pipeline

STRENGTH = 0.3
# The animation of a run: its length in seconds, the longest side and number of its frames.
SECONDS = 4.0
LONGEST_FRAME = 1024
MOST_FRAMES = 120


def add_commands(commands: Any) -> None:
    """Adds the three commands to the command line's subparsers."""
    generate = commands.add_parser("generate", help="a picture from a prompt")
    generate.add_argument("--prompt", help="what to draw (default: anything), or the class of a class model")
    _options(generate)
    generate.set_defaults(handler=_generate)

    edit = commands.add_parser("edit", help="redraw what a mask paints")
    edit.add_argument("--image", type=Path, required=True, help="the picture to edit")
    edit.add_argument("--mask", required=True, help="a picture, white where to redraw; or 'upper half', 'centre', ...")
    edit.add_argument("--prompt", help="what should be there")
    edit.add_argument("--feather", type=int, help="pixels over which the change fades in (default 0)")
    edit.add_argument(
        "--context", type=float, help="how much around the mask the model sees, over its longer side (default: all)"
    )
    _options(edit)
    add_start_option(edit)
    edit.set_defaults(handler=_edit)

    vary = commands.add_parser("vary", help="pictures like a picture")
    vary.add_argument("--image", type=Path, required=True, help="the picture to vary")
    vary.add_argument("--strength", type=float, help=f"share that is redrawn, 0 to 1 (default {STRENGTH})")
    vary.add_argument("--prompt", help="what it should show")
    _options(vary)
    vary.set_defaults(handler=_vary)


def _options(parser: argparse.ArgumentParser) -> None:
    add_model_option(parser)
    parser.add_argument("--out", type=Path, required=True, help="the picture; further variants get -2, -3, ...")
    parser.add_argument("--steps-out", type=Path, help="the way to it as a moving picture, .webp or .gif")
    parser.add_argument("--like", type=Path, help="a PNG made before: takes from it what is not given here")
    parser.add_argument("--seed", type=int, help="the same seed gives the same picture (default: a new one)")
    parser.add_argument("--variants", type=int, default=1, help="how many pictures (default 1)")
    parser.add_argument("--best-first", action="store_true", help="variants in order, best first, as the model judges")
    parser.add_argument("--best-of", type=int, help="draw so many and write the best alone")
    parser.add_argument("--judge", help="what ranks: a folder or Hub name of a classifier or CLIP")
    add_sampling_options(parser)
    add_scales_option(parser)


def _generate(options: argparse.Namespace) -> None:
    like = _prepare(options)
    pipe = _pipeline(options, like)
    run = pipe.generate(options.prompt, **_common(options, like, pipe))
    _follow(run, options)


def _edit(options: argparse.Namespace) -> None:
    from imagebart.imaging import files as images
    from imagebart.imaging import masks

    like = _prepare(options)
    image = images.load_image(options.image)
    mask = (
        masks.preset(options.mask, image.size)
        if options.mask in masks.PRESETS
        else masks.load_mask(Path(options.mask), image.size)
    )
    feather = _first(options.feather, like and like.feather, 0)
    context = _first(options.context, like and like.context, math.inf)
    pipe = _pipeline(options, like)
    run = pipe.edit(image, mask, options.prompt, feather=feather, context=context, **_common(options, like, pipe))
    _follow(run, options)


def _vary(options: argparse.Namespace) -> None:
    like = _prepare(options)
    strength = _first(options.strength, like and like.strength, STRENGTH)
    pipe = _pipeline(options, like)
    run = pipe.vary(options.image, strength, options.prompt, **_common(options, like, pipe))
    _follow(run, options)


def _prepare(options: argparse.Namespace) -> Recipe | None:
    """Refuses what could not be written in the end; reads the picture to be like, and takes its words."""
    from PIL import Image

    from imagebart.imaging.animation import animation_format
    from imagebart.imaging.metadata import read_recipe

    if options.steps_out is not None:
        animation_format(options.steps_out)
    if Image.registered_extensions().get(options.out.suffix.lower()) not in Image.SAVE:
        raise InputError(f"A picture cannot be written to {options.out.name!r}; end the name in .png.")
    for path in (options.out, options.steps_out):
        if path is not None and not path.parent.is_dir():
            raise InputError(f"There is no folder {path.parent} to write {path.name} to.")
    if options.like is None:
        return None
    like = read_recipe(options.like)
    if like is None:
        raise InputError(f"{options.like} is no PNG that says how it was made; choose one that this program wrote.")
    options.prompt = _first(options.prompt, like.prompt)
    options.seed = _first(options.seed, like.own_seed)
    return like


def _pipeline(options: argparse.Namespace, like: Recipe | None) -> Pipeline:
    from imagebart.pipeline import Pipeline

    pipe = Pipeline.from_pretrained(options.model)
    if options.judge is not None:
        from imagebart.rankers import load_ranker

        pipe.judge = load_ranker(options.judge, pipe.model)
    if like is not None and like.model != pipe.name:
        print(f"{options.like.name} was made by the model {like.model}; this one is {pipe.name}.", file=sys.stderr)
    return pipe


def _common(options: argparse.Namespace, like: Recipe | None, pipe: Pipeline) -> dict[str, Any]:
    settings = given_settings(options, pipe.defaults if like is None else like.settings)
    variants = _first(options.best_of, options.variants)
    drawn = {"seed": options.seed, "settings": settings, "variants": variants}
    return {**drawn, "best_first": options.best_first or options.best_of is not None}


def _first(*values: Any) -> Any:
    """The first that is not None."""
    return next((value for value in values if value is not None), None)


def _follow(run: Iterable[PipelineEvent], options: argparse.Namespace) -> None:
    """Says what is happening on standard error; writes the pictures, and says where on standard output."""
    from imagebart.imaging.animation import save_animation
    from imagebart.imaging.files import save_image
    from imagebart.imaging.metadata import write_png

    event = None
    film = Film()
    for event in run:
        if event.kind == "start":
            for note in event.notes:
                print(note, file=sys.stderr)
        if options.steps_out is not None:
            film.add(event)
        line = f"stage {event.stage} of {event.stages}, pass {event.pass_index + 1} of {event.passes}, "
        print(f"\r{line}{event.position} of {event.total} tokens ", end="", file=sys.stderr)
    assert event is not None
    print(f"\nseed {event.seed}, {event.elapsed:.1f} s", file=sys.stderr)
    for number, image in enumerate(event.images[: 1 if options.best_of is not None else None]):
        path = options.out if number == 0 else options.out.with_stem(f"{options.out.stem}-{number + 1}")
        if path.suffix.lower() == ".png":
            write_png(image, path, replace(event.recipe, variant=event.variants[number]))
        else:
            save_image(image, path)
        print(path)
    if options.steps_out is not None:
        save_animation(film.frames, options.steps_out, SECONDS)
        print(options.steps_out)


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
        image = event.image.copy()
        image.thumbnail((LONGEST_FRAME, LONGEST_FRAME))
        self._moments.append((event.kind == "preview", image))
        if len(self._moments) > self._most:
            self._moments = [(p, image) for i, (p, image) in enumerate(self._moments) if not p or i % 2]
