"""What one moment changes on the page."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, fields, replace
from functools import partial, wraps
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.server_messages import ProcessCompletedMessage
from PIL import Image

from imagebart.errors import InputError
from imagebart.imaging.metadata import write_png
from imagebart.pipeline import Pipeline, PipelineEvent
from imagebart.ui import messages as wording
from imagebart.ui.controls import Controls
from imagebart.ui.errors import noted
from imagebart.ui.examples import LARGEST_PREVIEW, reduced
from imagebart.ui.files import as_preview, publish, publish_preview, written
from imagebart.ui.model_list import Choice
from imagebart.ui.sketchpad.component import LONGEST_NAME, Sketch, run_name
from imagebart.ui.sketchpad.stored_images import Gone, describe_own

# Buttons that start a run.
STARTERS = ("edit", "generate", "vary")


@dataclass(frozen=True)
class Frame:
    """New values of what shows a run; None leaves a thing as it is."""

    run: Any = None  # what the sketchpad is told
    progress: Any = None
    announcement: Any = None
    messages: Any = None
    seed: Any = None
    running: bool | None = None

    def updates(self) -> list[Any]:
        """Values in the order of `SHOWN`."""
        values = [getattr(self, name) for name in VALUES]
        start: Any = gr.skip() if self.running is None else gr.update(interactive=not self.running)
        stop: Any = gr.skip() if self.running is None else gr.update(interactive=self.running)
        return [gr.skip() if value is None else value for value in values] + [start] * len(STARTERS) + [stop]


VALUES = tuple(field.name for field in fields(Frame) if field.name != "running")
BUTTONS = (*STARTERS, "cancel")
SHOWN = (*VALUES, *BUTTONS)
"""Names of the page's parts that a frame sets, in the order of `Frame.updates`."""

WAITING = Frame(progress=wording.waiting_html(), messages="", announcement="", running=True)
IDLE = Frame(progress="", announcement="")


def failed(sentence: str, run: str) -> Frame:
    """The page when the run of a name cannot be done: the sentence, and everything else as it was."""
    return replace(IDLE, messages=wording.problem_html(sentence), run={"over": run})


def cancelled(run: str) -> Frame:
    """The page when the run of a name was cancelled, and will give no result."""
    return replace(IDLE, messages=wording.notes_html([wording.CANCELLED]), run={"over": run})


def broken(run: str) -> list[Any]:
    """The page when the run of a name did not come about: too many wait, or what the browser sent cannot be read."""
    return replace(failed(wording.BROKEN, run), running=False).updates()


# What RunState (sketchpad/run.js) knows of the last run that was started: its state, and its name.
OVER = "document.documentElement.dataset.runState = ''"
NAME = "document.documentElement.dataset.runName"
NAMED = f"(pad, ...values) => [{{ ...pad, run: {NAME} }}, ...values]"
"""A run's values as they are sent: with its name."""
BROKEN = f"() => {{ {OVER}; return [{NAME}]; }}"
"""What `broken` takes."""


def waiting_script() -> str:
    """The page from the click until it is this page's turn, set by the browser alone."""
    return f"() => ({json.dumps(WAITING.updates())})"


def ended_script() -> str:
    """The buttons once a run is over. Not with its last frame: until Gradio has heard of the end, it drops a click."""
    return f"() => {{ {OVER}; return {json.dumps(Frame(running=False).updates()[-len(BUTTONS) :])}; }}"


# What is kept of a run: every stage and some of the previews, so that they can be looked at and edited again.
#
# Pictures lie in files, of large ones only the part that the run redraws; the browser holds their names.


# Previews kept of a run: beyond these every second one is dropped, as often as needed.
MOST_PREVIEWS = 32
# Pixels of a picture or part up to which previews are kept: writing larger ones would hold up the model.
LARGEST_KEPT = 1_000_000

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Step:
    """A moment of a run, of one or more variants: a small picture to look at, and the part that the run redraws."""

    caption: str
    stage: str | None  # the name of the stage that ends here; None on the way
    variants: tuple[int, ...]  # whose files these are, by their numbers in the run
    shown: tuple[str, ...]
    parts: tuple[str, ...]

    def ordered(self, variants: tuple[int, ...]) -> dict[str, Any]:
        """The step as the browser keeps it, with its files in this order; None for variants that it does not show."""
        shown, parts = (dict(zip(self.variants, paths, strict=True)) for paths in (self.shown, self.parts))
        order = variants[: max(variants.index(number) for number in self.variants) + 1]
        return {
            "caption": self.caption,
            "shown": [shown.get(number) for number in order],
            "parts": [parts.get(number) for number in order],
        }


class Recorder:
    """Records a run while it goes on."""

    def __init__(self, edits: bool, box: Box | None, words: str | None = None) -> None:
        """edits: whether there is a picture that the run changes; box: its part that the run may change.

        words: a person's own; None: all that the recipes say.
        """
        self._edits, self._box, self._words = edits, box, words
        self._steps: list[Step] = []

    def add(self, event: PipelineEvent) -> str:
        """Record an event. Returns a small picture of the first variant, for the page."""
        small = [reduced(image, LARGEST_PREVIEW) for image in event.images]
        if event.kind == "preview" and self._area(event.images[0]) > LARGEST_KEPT:
            return publish_preview(small[0])
        step = self._step(event, small)
        # A slow browser asks for a preview long after it was made, when its step may have been dropped.
        shown = as_preview(step.shown[0])
        self._steps.append(step)
        self._thin()
        return shown

    def finish(self, event: PipelineEvent) -> dict[str, Any]:
        """Record the last event and write the results, each with its recipe; the run as the browser keeps it."""
        self.add(event)
        recipe, asked = event.recipe, dict.fromkeys(one.prompt for one in event.recipes if one.prompt)
        results = []
        for own, image, small in zip(event.recipes, event.images, self._steps[-1].shown, strict=True):
            path = written(f"{own.task}-{own.seed}-{own.variant + 1}.png", partial(write_png, image, recipe=own))
            results.append(describe_own(path, image) | {"small": small, "number": own.variant + 1})
        return {
            "task": recipe.task,
            "prompt": self._words or ", ".join(asked) or None,
            "name": f"{recipe.task}-{recipe.seed}",
            "box": self._box,
            "results": results,
            "steps": [step.ordered(event.variants) for step in self._steps],
        }

    def _step(self, event: PipelineEvent, small: list[Image.Image]) -> Step:
        shown = [publish(image) for image in small]
        parts = shown
        if max(event.images[0].size) > LARGEST_PREVIEW or self._edits:
            parts = [publish(self._part(image)) for image in event.images]
        captions = wording.step_caption(event), wording.stage_caption(event)
        return Step(*captions, event.variants, tuple(shown), tuple(parts))

    def _part(self, image: Image.Image) -> Image.Image:
        box = self._box or (0, 0, *image.size)
        return image if box == (0, 0, *image.size) else image.crop(box)

    def _area(self, image: Image.Image) -> int:
        left, top, right, bottom = self._box or (0, 0, *image.size)
        return (right - left) * (bottom - top)

    def _thin(self) -> None:
        previews = [step for step in self._steps if step.stage is None]
        if len(previews) > MOST_PREVIEWS:
            dropped = previews[::2]
            self._steps = [step for step in self._steps if step not in dropped]
            for path in {path for step in dropped for path in (*step.shown, *step.parts)}:
                Path(path).unlink(missing_ok=True)


# Cancel: the browser gives each run a name, and Cancel names it, so that no other run can be meant.
#
# Names are remembered: the run stops whether Cancel comes before it, while it waits for its turn or while it draws.
# What
# became of it only the run says, as its last moment: a result, or that it was cancelled. Both never come.


# Names kept at a time. The page says its name again as long as the run goes on, should others have driven it out.
MOST = 10_000

Run = Callable[..., Iterator[list[Any]]]


class Stopping:
    """The runs that are to stop, by name. Names cannot be guessed, so nobody stops what is not theirs."""

    def __init__(self, page: gr.Blocks, most: int = MOST) -> None:
        self._page, self._most = page, most
        self._names: OrderedDict[str, None] = OrderedDict()

    def heeded(self, run: Run) -> Run:
        """A run of the page (pad, *controls) that stops at the next moment after its name is told to `stop`.

        It is around what a GPU may be lent to: such work is done in a process of its own, which hears of no names.
        """

        @wraps(run)
        def heeding(pad: Any, *values: Any) -> Iterator[list[Any]]:
            name = run_name(pad)
            with closing(run(pad, *values)) as moments:  # type: ignore[type-var]
                for moment in moments:
                    if name in self._names:
                        break
                    yield moment
                else:
                    return
            yield cancelled(name).updates()

        return heeding

    def stop(self, name: str) -> None:
        """Stop the run of a name, also one that is not here yet; one that waits for its turn leaves the queue.

        To be called where Gradio's queue runs, so that nothing of it changes meanwhile.
        """
        self._names[name] = None
        self._names.move_to_end(name)
        while len(self._names) > self._most:
            self._names.popitem(last=False)
        queue = self._page._queue
        for turn in queue.event_queue_per_concurrency_id.values():
            for event in [event for event in turn.queue if _is(event, name)]:
                turn.queue.remove(event)
                queue.event_ids_to_events.pop(event._id, None)
                last = {"data": cancelled(name).updates()}
                queue.send_message(event, ProcessCompletedMessage(output=last, success=True))

    def answer(self) -> Callable[[Any], Coroutine[Any, Any, None]]:
        """`stop` for the browser to call: where the queue runs, and without a thread, of which none may be free."""

        async def stop(name: Any) -> None:
            if isinstance(name, str) and len(name) <= LONGEST_NAME:
                self.stop(name)

        return stop


def _is(event: Any, name: str) -> bool:
    """Whether an event of Gradio's queue is the run of a name."""
    sent = event.data.data if event.data else []
    return bool(sent) and isinstance(sent[0], dict) and sent[0].get("run") == name


# Edit, Generate and Vary: from the page's values to the frames of a run.


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
        prompt, settings = pipeline.complete_prompt(file, words, settings)
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
