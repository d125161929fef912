"""What happens to the canvas: pictures that come onto it, and masks made without painting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from imagebart.errors import InputError
from imagebart.masks import grow, invert, load_mask, preset, shrink
from imagebart.metadata import Recipe, read_recipe
from imagebart.ui import wording
from imagebart.ui.choice import Choice
from imagebart.ui.controls import RESET, restored_values
from imagebart.ui.examples import Example
from imagebart.ui.files import publish
from imagebart.ui.frame import KEEP
from imagebart.ui.picture import EditorValue, Picture, on_canvas, to_editor
from imagebart.ui.record import GONE, Record
from imagebart.ui.running import Results
from imagebart.ui.trail import Stop, Trail

# Growing and shrinking move a mask's edge by this share of the canvas's longer side: half a token of 16 a side.
MOVE = 1 / 32


@dataclass(frozen=True)
class Placed:
    """New values of what belongs to the canvas; None leaves a thing as it is."""

    editor: Any = None
    facts: Any = None
    picture: Any = None
    trail: Any = None
    undo: Any = None
    redo: Any = None
    words: Any = None

    def updates(self) -> list[Any]:
        """Values in the order of `PLACED`."""
        return [KEEP if value is None else value for value in (getattr(self, name) for name in PLACED)]


PLACED = tuple(field.name for field in fields(Placed))
RESTORED = ("choice", *RESET, "messages")
"""What a picture with a recipe sets beside `PLACED`."""


@dataclass(frozen=True)
class Desk:
    """What is on the canvas when a button is pressed, in the order of the page's inputs."""

    canvas: EditorValue | None
    picture: Picture | None
    trail: Trail | None
    words: str | None

    def current(self) -> tuple[Picture | None, Image.Image | None]:
        """The picture and its mask, the mask in the canvas's pixels."""
        return on_canvas(self.canvas, self.picture)

    def stop(self) -> Stop | None:
        """What is on the canvas, to be gone back to; None where it is empty."""
        picture, mask = self.current()
        if picture is None:
            return None
        return Stop(picture.path or publish(picture.image), None if mask is None else _png(mask), self.words or "")


class CanvasActions:
    """Actions on the canvas. What belongs to a session comes in and goes out with each call."""

    def __init__(self, choice: Choice, examples: Sequence[Example] = ()) -> None:
        self._choice = choice
        self._examples = examples

    def open(self) -> list[Any]:
        """The first example, if there is any, for a page that was just opened."""
        return (_example(self._examples[0]) if self._examples else Placed()).updates()

    def again(self, picture: Picture, mask: bytes | None, trail: Trail | None, words: str | None) -> list[Any]:
        """The picture of a page that was loaded again, with the mask that was painted, or else the example's own."""
        example = next((example for example in self._examples if str(example.path) == picture.path), None)
        painted = example.mask() if example is not None and mask is None else None
        if mask is not None:
            with suppress(InputError):  # it was that of a picture of another shape
                painted = load_mask(mask, picture.view.size)
        return replace(_with_trail(_on_canvas(picture, painted), trail or Trail()), words=words).updates()

    def upload(self, path: str | None, model: str | None, *desk: Any) -> list[Any]:
        """A file becomes the picture; one that this page made also brings back its prompt, seed and settings."""
        unchanged = [*Placed().updates(), *[KEEP] * len(RESTORED)]
        if path is None:
            return unchanged
        try:
            picture = Picture.load(path)
        except InputError as error:
            gr.Warning(str(error))
            return unchanged
        placed = _replaced(Desk(*desk), picture)
        try:
            recipe = read_recipe(path)
        except InputError as error:
            gr.Warning(str(error))
            recipe = None
        if recipe is None:
            return [*placed.updates(), *[KEEP] * len(RESTORED)]
        return self._restored(placed, recipe, model)

    def example(self, event: gr.SelectData, *desk: Any) -> list[Any]:
        """An example's picture, mask and prompt."""
        return _left(Desk(*desk), _example(self._examples[event.index])).updates()

    def resume(self, record: Record | None, step: float, *desk: Any) -> list[Any]:
        """The step of the last run that is being looked at becomes the picture."""
        if record is None:
            return Placed().updates()
        try:
            image = record.picture(int(step) - 1)
        except InputError as error:
            gr.Warning(str(error))
            return Placed().updates()
        last = int(step) >= len(record.of_variant())
        path = record.results[record.variant] if last else publish(image)
        return _replaced(Desk(*desk), Picture.of(image, path)).updates()

    def result(self, event: gr.SelectData, results: Results | None, *desk: Any) -> list[Any]:
        """An earlier result becomes the picture."""
        if not results or event.index >= len(results):
            return Placed().updates()
        return _placed_or_gone(lambda: _replaced(Desk(*desk), _reopened(results[event.index].path)))

    def undo(self, *desk: Any) -> list[Any]:
        """The picture that was on the canvas before, with its mask and prompt."""
        return self._walk(Desk(*desk), back=True)

    def redo(self, *desk: Any) -> list[Any]:
        """The picture that was on the canvas before undoing."""
        return self._walk(Desk(*desk), back=False)

    def ready_mask(self, name: str, *desk: Any) -> list[Any]:
        """A preset becomes the mask, in place of what is painted."""
        return _masked(Desk(*desk), lambda picture, _: preset(name, picture.image.size))

    def upload_mask(self, path: str | None, *desk: Any) -> list[Any]:
        """A file becomes the mask, in place of what is painted."""
        return _masked(Desk(*desk), lambda picture, _: load_mask(path or "", picture.image.size))

    def last_mask(self, mask: bytes | None, *desk: Any) -> list[Any]:
        """The mask of the last edit, in place of what is painted."""

        def again(picture: Picture, _: Image.Image | None) -> Image.Image:
            if mask is None:
                raise InputError("There is no last mask yet: it is the one of the last edit.")
            return load_mask(mask, picture.view.size)

        return _masked(Desk(*desk), again)

    def invert(self, *desk: Any) -> list[Any]:
        """Painted where nothing was, and the other way round."""
        return _masked(Desk(*desk), lambda picture, mask: invert(mask or Image.new("L", picture.view.size)))

    def grow(self, *desk: Any) -> list[Any]:
        """The mask a little wider."""
        return _masked(Desk(*desk), lambda picture, mask: grow(_painted(mask), _move(picture)))

    def shrink(self, *desk: Any) -> list[Any]:
        """The mask a little narrower."""
        return _masked(Desk(*desk), lambda picture, mask: shrink(_painted(mask), _move(picture)))

    def clear_mask(self, *desk: Any) -> list[Any]:
        """The canvas as it was before painting. The picture comes from the session if the canvas lost it."""
        picture, _ = Desk(*desk).current()
        return (Placed() if picture is None else _on_canvas(picture)).updates()

    def _walk(self, desk: Desk, back: bool) -> list[Any]:
        trail, now = desk.trail or Trail(), desk.stop()
        if now is None or not (trail.back if back else trail.forward):
            return Placed().updates()
        stop, trail = trail.undo(now) if back else trail.redo(now)

        def there() -> Placed:
            picture = _reopened(stop.path)
            mask = None if stop.mask is None else load_mask(stop.mask, picture.view.size)
            return replace(_with_trail(_on_canvas(picture, mask), trail), words=stop.prompt)

        return _placed_or_gone(there)

    def _restored(self, placed: Placed, recipe: Recipe, model: str | None) -> list[Any]:
        pipeline = self._choice.get(model)
        values = restored_values(recipe, pipeline)
        if pipeline.conditioning == "class":
            values["choice"] = recipe.prompt if recipe.prompt in pipeline.classes else pipeline.classes[0]
        note = wording.restored(recipe.model if recipe.model != pipeline.name else None)
        values["messages"] = wording.notes_html([note])
        return [*replace(placed, words=values["words"]).updates(), *(values.get(name, KEEP) for name in RESTORED)]


def _on_canvas(picture: Picture, mask: Image.Image | None = None) -> Placed:
    value = to_editor(picture, mask)
    layers = [publish(layer) for layer in value["layers"]]
    canvas = {"background": publish(picture.view), "layers": layers, "composite": None}
    return Placed(editor=canvas, facts=wording.facts_html(picture.image.size), picture=picture)


def _example(example: Example) -> Placed:
    return replace(_on_canvas(Picture.load(str(example.path)), example.mask()), words=example.prompt or None)


def _replaced(desk: Desk, picture: Picture) -> Placed:
    """Another picture on the canvas; undo leads back to the one that was there."""
    return _left(desk, _on_canvas(picture))


def _left(desk: Desk, placed: Placed) -> Placed:
    now, trail = desk.stop(), desk.trail or Trail()
    return _with_trail(placed, trail if now is None else trail.leave(now))


def _with_trail(placed: Placed, trail: Trail) -> Placed:
    undo, redo = (gr.update(interactive=bool(stops)) for stops in (trail.back, trail.forward))
    return replace(placed, trail=trail, undo=undo, redo=redo)


def _masked(desk: Desk, make: Callable[[Picture, Image.Image | None], Image.Image]) -> list[Any]:
    """The picture with another mask; what prevents it is said, and the canvas stays as it is."""
    picture, mask = desk.current()
    if picture is None:
        gr.Warning(wording.NO_PICTURE)
        return Placed().updates()
    try:
        return _on_canvas(picture, make(picture, mask)).updates()
    except InputError as error:
        gr.Warning(str(error))
        return Placed().updates()


def _placed_or_gone(place: Callable[[], Placed]) -> list[Any]:
    try:
        return place().updates()
    except InputError as error:
        gr.Warning(str(error))
        return Placed().updates()


def _reopened(path: str) -> Picture:
    if not Path(path).is_file():
        raise InputError(GONE)
    return Picture.load(path)


def _painted(mask: Image.Image | None) -> Image.Image:
    if mask is None:
        raise InputError(wording.NO_MASK)
    return mask


def _move(picture: Picture) -> int:
    return max(1, round(max(picture.view.size) * MOVE))


def _png(mask: Image.Image) -> bytes:
    file = BytesIO()
    mask.save(file, "PNG")
    return file.getvalue()
