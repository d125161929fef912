"""Edit, Generate and Vary: from the page's values to the frames of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from imagebart.errors import InputError
from imagebart.pipeline import Pipeline, PipelineEvent
from imagebart.ui import wording
from imagebart.ui.choice import Choice
from imagebart.ui.controls import Controls
from imagebart.ui.frame import WAITING, Frame, failed
from imagebart.ui.mishaps import noted
from imagebart.ui.record import Box, Recorder
from imagebart.ui.sketchpad.component import Sketch, run_name
from imagebart.ui.sketchpad.shelf import Gone

Updates = Iterator[list[Any]]
Value = Mapping[str, Any] | None


@dataclass(frozen=True)
class _Run:
    """A run that is about to start."""

    events: Iterator[PipelineEvent]
    edits: bool = False  # whether there is a picture that it changes
    box: Box | None = None  # the part of it that it may change
    words: str | None = None  # the person's, where the model is told more
    notes: tuple[str, ...] = ()  # sentences for the person, before the model's own


Start = Callable[[Pipeline, Controls, Sketch], _Run]


class Running:
    """The page's runs. All that they need comes in with each call."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice

    def edit(self, pad: Value, *values: Any) -> Updates:
        """Redraw what is painted on the sketchpad."""
        yield from self._show("edit", _edit, pad, values)

    def generate(self, pad: Value, *values: Any) -> Updates:
        """Draw a whole new picture."""
        yield from self._show("generate", _generate, pad, values)

    def vary(self, pad: Value, *values: Any) -> Updates:
        """Draw the whole picture on the sketchpad again, as differently as the strength says."""
        yield from self._show("vary", _vary, pad, values)

    def _show(self, task: str, start: Start, pad: Value, values: tuple[Any, ...]) -> Updates:
        """Show the events of a run until it ends, fails or is closed; closing it stops the model too."""
        yield WAITING.updates()
        said: dict[str, Any] = {"run": run_name(pad), "task": task, "version": 0}
        try:
            controls, sketch = Controls(*values), Sketch.read(pad)
            said["version"] = sketch.version
            run = start(self._choice.get(controls.model), controls, sketch)
            recorder = Recorder(run.edits, run.box, run.words)
            with closing(run.events):  # type: ignore[type-var]
                for event in run.events:
                    show = _finished if event.kind == "result" else _frame
                    yield show(event, recorder, said, run.notes).updates()
        except Gone as error:
            yield replace(failed(str(error), said["run"]), run={**said, "gone": True}).updates()
        except InputError as error:
            yield failed(str(error), said["run"]).updates()
        except Exception:
            yield failed(noted("a run failed"), said["run"]).updates()


def _edit(pipeline: Pipeline, controls: Controls, sketch: Sketch) -> _Run:
    file, mask = sketch.file(), sketch.mask()  # the pipeline opens it: a large one takes memory once
    prompt, settings, words = controls.prompt(pipeline), controls.sampling(pipeline), None
    notes: tuple[str, ...] = ()
    if isinstance(prompt, str) and prompt == sketch.of:  # nobody painted: all stays that the words do not change
        words = prompt
        prompt, settings = pipeline.with_the_rest(file, words, settings)
        notes = () if prompt == words else (wording.told_to_stay(prompt),)
    events = pipeline.edit(
        file,
        mask,
        prompt,
        seed=controls.fixed_seed(),
        settings=settings,
        feather=int(controls.feather),
        context=controls.around(),
        **controls.variety(pipeline),
    )
    return _Run(events, True, mask.getbbox(), words, notes)


def _generate(pipeline: Pipeline, controls: Controls, _: Sketch) -> _Run:
    events = pipeline.generate(
        controls.prompt(pipeline),
        seed=controls.fixed_seed(),
        settings=replace(controls.sampling(pipeline), start=None),
        **controls.variety(pipeline),
    )
    return _Run(events)


def _vary(pipeline: Pipeline, controls: Controls, sketch: Sketch) -> _Run:
    events = pipeline.vary(
        sketch.file(),
        controls.strength,
        controls.prompt(pipeline),
        seed=controls.fixed_seed(),
        settings=replace(controls.sampling(pipeline), start=None),
        **controls.variety(pipeline),
    )
    return _Run(events, True, (0, 0, *sketch.size))


def _frame(event: PipelineEvent, recorder: Recorder, said: Mapping[str, Any], notes: tuple[str, ...]) -> Frame:
    line = None if event.kind == "preview" else wording.stage_line(event)
    if event.kind == "stage":
        line = f"{line} done"
    return Frame(
        run={**said, "images": [recorder.add(event)]},
        progress=wording.progress_html(event),
        announcement=None if line is None else wording.said_html(line),
        messages=wording.notes_html([*notes, *event.notes]),
        seed=event.seed if event.kind == "start" else None,
    )


def _finished(event: PipelineEvent, recorder: Recorder, said: Mapping[str, Any], notes: tuple[str, ...]) -> Frame:
    return Frame(
        # In the order of the frames before: in another one, Gradio takes it for a new value, and hands it over twice.
        run={**said, **recorder.finish(event)},
        progress=wording.done_html(event),
        announcement=wording.said_html("The picture is ready."),
        messages=wording.notes_html([*notes, *event.notes]),
        seed=event.seed,
    )
