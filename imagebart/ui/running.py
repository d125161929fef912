"""Edit, Generate and Vary: from the page's values to the frames of a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import gradio as gr
from PIL import Image

from imagebart.errors import InputError
from imagebart.pipeline import Pipeline, PipelineEvent
from imagebart.ui import wording
from imagebart.ui.choice import Choice
from imagebart.ui.controls import Controls
from imagebart.ui.files import publish
from imagebart.ui.frame import START, Frame, problem
from imagebart.ui.picture import EditorValue, Picture, from_editor, on_canvas, reduced
from imagebart.ui.record import Box, Record, Recorder

log = logging.getLogger(__name__)

# Results that a session can go back to.
MOST_RESULTS = 12

Updates = Iterator[list[Any]]


@dataclass(frozen=True)
class Result:
    """A finished picture that can be gone back to."""

    path: str  # the whole picture
    small: str
    caption: str


Results = tuple[Result, ...]


@dataclass(frozen=True)
class _Run:
    """A run that is about to start."""

    start: Callable[[], Iterator[PipelineEvent]]
    results: Results
    base: Image.Image | None = None
    box: Box | None = None
    mask: bytes | None = None


class Running:
    """The page's runs. What belongs to a session comes in and goes out with each call."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice

    def edit(
        self, canvas: EditorValue | None, picture: Picture | None, results: Results | None, *values: Any
    ) -> Updates:
        """Redraw what is painted on the canvas."""
        controls = Controls(*values)
        current, mask = from_editor(canvas, picture)
        if current is None or mask is None:
            yield problem(wording.NO_PICTURE if current is None else wording.NO_MASK)
            return
        image = current.image

        def run(pipeline: Pipeline) -> _Run:
            def start() -> Iterator[PipelineEvent]:
                return pipeline.edit(
                    image,
                    mask,
                    controls.prompt(pipeline),
                    seed=controls.fixed_seed(),
                    settings=controls.sampling(pipeline),
                    feather=int(controls.feather),
                    context=controls.around(),
                    variants=int(controls.variants),
                )

            remembered = _packed(on_canvas(canvas, picture)[1])
            return _Run(start, results or (), image, mask.getbbox(), remembered)

        yield from self._show(controls, run)

    def generate(self, results: Results | None, *values: Any) -> Updates:
        """Draw a whole new picture."""
        controls = Controls(*values)

        def run(pipeline: Pipeline) -> _Run:
            def start() -> Iterator[PipelineEvent]:
                return pipeline.generate(
                    controls.prompt(pipeline),
                    seed=controls.fixed_seed(),
                    settings=replace(controls.sampling(pipeline), start=None),
                    variants=int(controls.variants),
                )

            return _Run(start, results or ())

        yield from self._show(controls, run)

    def vary(
        self, canvas: EditorValue | None, picture: Picture | None, results: Results | None, *values: Any
    ) -> Updates:
        """Draw the whole picture on the canvas again, as differently as the strength says."""
        controls = Controls(*values)
        current, _ = on_canvas(canvas, picture)
        if current is None:
            yield problem(wording.NO_PICTURE)
            return
        image = current.image

        def run(pipeline: Pipeline) -> _Run:
            def start() -> Iterator[PipelineEvent]:
                return pipeline.vary(
                    image,
                    controls.strength,
                    controls.prompt(pipeline),
                    seed=controls.fixed_seed(),
                    settings=replace(controls.sampling(pipeline), start=None),
                    variants=int(controls.variants),
                )

            whole = (0, 0, image.width, image.height)
            return _Run(start, results or (), image, whole)

        yield from self._show(controls, run)

    def _show(self, controls: Controls, prepare: Callable[[Pipeline], _Run]) -> Updates:
        """Show the events of a run until it ends, fails or is closed; closing it stops the model too."""
        yield START.updates()
        try:
            run = prepare(self._choice.get(controls.model))
            recorder = Recorder(run.base, run.box)
            events = run.start()
            with closing(events):  # type: ignore[type-var]
                for event in events:
                    frame = _finished(event, run, recorder) if event.kind == "result" else _frame(event, run, recorder)
                    yield frame.updates()
        except InputError as error:
            yield problem(str(error))
        except Exception:
            log.exception("a run failed")
            yield problem(wording.SORRY)


def _frame(event: PipelineEvent, run: _Run, recorder: Recorder) -> Frame:
    said = None if event.kind == "preview" else wording.stage_line(event)
    if event.kind == "stage":
        said = f"{said} done"
    return Frame(
        preview=recorder.add(event),
        progress=wording.progress_html(event),
        announcement=None if said is None else wording.said_html(said),
        messages=wording.notes_html(event.notes),
        seed=event.seed if event.kind == "start" else None,
        last_mask=run.mask if event.kind == "start" else None,
    )


def _finished(event: PipelineEvent, run: _Run, recorder: Recorder) -> Frame:
    record = recorder.finish(event)
    caption = wording.result_caption(event.recipe.task, event.recipe.prompt)
    pairs = zip(record.results, record.steps[-1].shown, strict=True)
    new = tuple(Result(path, small, caption) for path, small in pairs)
    results = (run.results + new)[-MOST_RESULTS:]
    return replace(
        shown(record),
        progress=wording.done_html(event),
        announcement=wording.said_html("The picture is ready."),
        messages=wording.notes_html(event.notes),
        seed=event.seed,
        results=results,
        results_gallery=gallery(results),
        running=False,
    )


def gallery(results: Results) -> list[tuple[str, str]]:
    """The results so far as the page's gallery takes them."""
    return [(result.small, result.caption) for result in results]


def shown(record: Record) -> Frame:
    """The chosen variant of a finished run, with its steps."""
    steps = record.of_variant()
    result = record.results[record.variant]
    comparison: Any = gr.update(value=None)
    if record.base is not None:
        comparison = (publish(reduced(record.base)), publish(reduced(record.picture(len(steps)))))
    several = len(record.results) > 1
    return Frame(
        preview=result,
        strip=[(step.shown[record.variant], step.stage) for step in steps if step.stage is not None],
        scrubber=gr.update(minimum=1, maximum=len(steps), value=len(steps), interactive=True, visible=True),
        step_line=wording.step_html_line(len(steps), len(steps), steps[-1].caption),
        variant_gallery=gr.update(
            value=[(path, f"Variant {number}") for number, path in enumerate(record.steps[-1].shown, 1)],
            visible=several,
            selected_index=record.variant,
        ),
        comparison=comparison,
        record=record,
        saved=result,
    )


def _packed(mask: Image.Image | None) -> bytes | None:
    """A mask as the few bytes that are kept of it."""
    if mask is None:
        return None
    file = BytesIO()
    mask.save(file, "PNG")
    return file.getvalue()
