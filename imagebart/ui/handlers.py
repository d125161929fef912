"""What happens when something is pressed. Knows the pipeline and the page's values, not its layout."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, fields, replace
from typing import Any

import gradio as gr
from PIL import Image

from imagebart.errors import InputError
from imagebart.images import load_image
from imagebart.masks import load_mask, preset
from imagebart.pipeline import Pipeline, PipelineEvent
from imagebart.settings import SamplingSettings
from imagebart.ui import wording
from imagebart.ui.files import publish
from imagebart.ui.picture import LARGEST_PREVIEW, EditorValue, Picture, from_editor, reduced, to_editor

log = logging.getLogger(__name__)

KEEP = gr.skip()


@dataclass(frozen=True)
class Outcome:
    """The last finished run of a session."""

    image: Image.Image
    seed: int


@dataclass(frozen=True)
class Controls:
    """The page's settings as they stand when a button is pressed."""

    prompt: str | None
    seed: float | None
    new_seed: bool
    temperature: float
    top_k: float
    top_p: float
    guidance: float
    passes: float
    feather: float

    def fixed_seed(self) -> int | None:
        """The seed to use; None where a new one is wanted."""
        return None if self.new_seed or self.seed is None else int(self.seed)

    def sampling(self) -> SamplingSettings:
        """The sliders' values as the model takes them; their ends "off" become None."""
        return SamplingSettings(
            temperature=self.temperature,
            top_k=int(self.top_k) or None,
            top_p=self.top_p if self.top_p < 1 else None,
            guidance=self.guidance,
            passes=int(self.passes),
        )


@dataclass(frozen=True)
class Frame:
    """What one moment of a run changes on the page; None leaves a thing as it is."""

    preview: Any = None
    progress: Any = None
    announcement: Any = None
    messages: Any = None
    strip: Any = None
    comparison: Any = None
    seed: Any = None
    outcome: Any = None
    running: bool | None = None

    def updates(self) -> list[Any]:
        """Values in the order in which `page.py` lists the outputs: the fields above, then the buttons."""
        values = [getattr(self, field.name) for field in fields(self) if field.name != "running"]
        return [KEEP if value is None else value for value in values] + self._buttons()

    def _buttons(self) -> list[Any]:
        if self.running is None:
            return [KEEP] * 5
        start, stop = gr.update(interactive=not self.running), gr.update(interactive=self.running)
        resume = gr.update(interactive=True) if isinstance(self.outcome, Outcome) else KEEP
        return [start, start, start, stop, resume]


START = Frame(progress=wording.waiting_html(), messages="", announcement="", strip=[], running=True)
IDLE = Frame(progress="", announcement="", running=False)

Updates = Iterator[list[Any]]
# New values of the canvas and of the session's picture.
Filled = tuple[Any, Any]


class Handlers:
    """The page's actions on one pipeline. What belongs to a session comes in and goes out with each call."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def edit(self, canvas: EditorValue | None, picture: Picture | None, *settings: Any) -> Updates:
        """Redraw what is painted on the canvas."""
        controls = Controls(*settings)
        current, mask = from_editor(canvas, picture)
        if current is None:
            yield _problem(wording.NO_PICTURE)
        elif mask is None:
            yield _problem(wording.NO_MASK)
        else:
            image = current.image
            yield from self._run(
                lambda: self._pipeline.edit(
                    image,
                    mask,
                    controls.prompt,
                    seed=controls.fixed_seed(),
                    settings=controls.sampling(),
                    feather=int(controls.feather),
                ),
                before=image,
            )

    def generate(self, *settings: Any) -> Updates:
        """Draw a whole new picture."""
        controls = Controls(*settings)
        yield from self._run(
            lambda: self._pipeline.generate(controls.prompt, seed=controls.fixed_seed(), settings=controls.sampling()),
            before=None,
        )

    def vary(self, strength: float, canvas: EditorValue | None, picture: Picture | None, *settings: Any) -> Updates:
        """Draw the whole picture on the canvas again, as differently as `strength` says."""
        controls = Controls(*settings)
        current, _ = from_editor(canvas, picture)
        if current is None:
            yield _problem(wording.NO_PICTURE)
            return
        image = current.image
        yield from self._run(
            lambda: self._pipeline.vary(
                image, strength, controls.prompt, seed=controls.fixed_seed(), settings=controls.sampling()
            ),
            before=image,
        )

    def cancelled(self) -> list[Any]:
        """The page after Cancel; Gradio itself closes the run."""
        return replace(IDLE, messages=wording.notes_html([wording.CANCELLED])).updates()

    def upload(self, path: str | None) -> Filled:
        """A file becomes the picture. What cannot be read is said, and the canvas stays as it is."""
        if path is None:
            return KEEP, KEEP
        try:
            picture = Picture.of(load_image(path))
        except InputError as error:
            gr.Warning(str(error))
            return KEEP, KEEP
        return _on_canvas(picture)

    def upload_mask(self, path: str | None, canvas: EditorValue | None, picture: Picture | None) -> Filled:
        """A file becomes the mask, in place of what is painted."""
        return _put_mask(lambda size: load_mask(path or "", size), canvas, picture)

    def ready_mask(self, name: str, canvas: EditorValue | None, picture: Picture | None) -> Filled:
        """A preset becomes the mask, in place of what is painted."""
        return _put_mask(lambda size: preset(name, size), canvas, picture)

    def clear_mask(self, canvas: EditorValue | None, picture: Picture | None) -> Filled:
        """The canvas as it was before painting. The picture comes from the session if the canvas lost it."""
        current, _ = from_editor(canvas, picture)
        return (KEEP, KEEP) if current is None else _on_canvas(current)

    def resume(self, outcome: Outcome | None) -> Filled:
        """The last result becomes the picture to edit."""
        if outcome is None:
            return KEEP, KEEP
        picture = Picture.of(outcome.image)
        return _on_canvas(picture)

    def _run(self, start: Callable[[], Iterator[PipelineEvent]], before: Image.Image | None) -> Updates:
        """Show the events of a run until it ends, fails or is closed; closing it stops the model too."""
        yield START.updates()
        strip: dict[str, str] = {}
        try:
            events = start()
            with closing(events):  # type: ignore[type-var]
                for event in events:
                    yield _show(event, strip, before).updates()
        except InputError as error:
            yield _problem(str(error))
        except Exception:
            log.exception("a run failed")
            yield _problem(wording.SORRY)


def _show(event: PipelineEvent, strip: dict[str, str], before: Image.Image | None) -> Frame:
    """The page at an event of a run. `strip` collects the pictures of the stages, by their captions."""
    small = publish(reduced(event.image, LARGEST_PREVIEW))
    notes = wording.notes_html(event.notes)
    if event.kind == "result":
        strip[wording.step_name(event)] = small
        return Frame(
            preview=publish(event.image),
            progress=wording.done_html(event),
            announcement=wording.said_html("The picture is ready."),
            messages=notes,
            strip=[(path, name) for name, path in strip.items()],
            comparison=None if before is None else (publish(reduced(before)), publish(reduced(event.image))),
            seed=event.seed,
            outcome=Outcome(event.image, event.seed),
            running=False,
        )
    said: str | None = None
    if event.kind == "start":
        strip["noise"] = small
        said = wording.said_html(wording.stage_line(event))
    elif event.kind == "stage":
        strip[wording.step_name(event)] = small
        said = wording.said_html(f"{wording.stage_line(event)} done")
    return Frame(
        preview=small,
        progress=wording.progress_html(event),
        announcement=said,
        messages=notes,
        seed=event.seed if event.kind == "start" else None,
    )


def _on_canvas(picture: Picture, mask: Image.Image | None = None) -> Filled:
    value = to_editor(picture, mask)
    layers = [publish(layer) for layer in value["layers"]]
    return {"background": publish(picture.view), "layers": layers, "composite": None}, picture


def _put_mask(
    make: Callable[[tuple[int, int]], Image.Image], canvas: EditorValue | None, picture: Picture | None
) -> Filled:
    current, _ = from_editor(canvas, picture)
    if current is None:
        gr.Warning(wording.NO_PICTURE)
        return KEEP, KEEP
    try:
        mask = make(current.image.size)
    except InputError as error:
        gr.Warning(str(error))
        return KEEP, KEEP
    return _on_canvas(current, mask)


def _problem(sentence: str) -> list[Any]:
    gr.Warning(sentence)
    return replace(IDLE, messages=wording.problem_html(sentence)).updates()
