"""Edit, Generate and Vary: from the page's values to what each event of a run changes on the page; and Cancel.

An update is a dictionary of new values by the names of components; what is missing stays as it is.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial, wraps
from pathlib import Path
from typing import Any

import cv2
import gradio as gr
import numpy as np
from gradio.server_messages import ProcessCompletedMessage
from PIL import Image

from imagebart.errors import InputError
from imagebart.fitting import ELSEWHERE
from imagebart.imaging.metadata import write_png
from imagebart.pipeline import MISSED, Pipeline, PipelineEvent
from imagebart.ui import messages
from imagebart.ui.controls import MAX_IMAGES, Controls, context_size
from imagebart.ui.environment import MAX_RUN_SECONDS
from imagebart.ui.errors import log_unexpected
from imagebart.ui.files import publish, publish_copy_as_preview, publish_file, publish_preview
from imagebart.ui.model_list import ModelChoice
from imagebart.ui.sketchpad.component import MAX_RUN_NAME, Sketch, SketchValue, pack_for_view, run_name
from imagebart.ui.sketchpad.stored_images import MAX_PREVIEW_SIDE, ImageDeleted, describe_png, downscaled

UPDATED = ("run", "progress", "announcement", "messages", "seed")
"""The components that a run changes; "run" is a message to the sketchpad."""

MAX_PREVIEWS = 32  # kept of a run: beyond these every second one is dropped, as often as needed
# Pixels of what a run changes up to which previews are kept: writing larger ones would hold up the model.
MAX_KEPT_PIXELS = 1_000_000
MAX_CANCELLED = 10_000  # names of cancelled runs that are remembered

Update = dict[str, Any]
Box = tuple[int, int, int, int]


def waiting() -> Update:
    """The page before the first event."""
    return {"progress": messages.waiting_html(), "announcement": "", "messages": ""}


def failed(sentence: str, run: str) -> Update:
    """The page when the run of a name cannot be done: the sentence, and everything else as it was."""
    return {"run": {"ended": run}, "progress": "", "announcement": "", "messages": messages.problem_html(sentence)}


def cancelled(run: str) -> Update:
    """The page when the run of a name was cancelled, and will give no result."""
    return {**failed("", run), "messages": messages.notes_html([messages.CANCELLED])}


@dataclass(frozen=True)
class Step:
    """An event of a run with one or more variants: small images to look at, and the parts that the run changes."""

    caption: str
    preview: bool
    slot: int  # which of the run's `film_labels` it belongs to
    variants: tuple[int, ...]  # whose files these are, by their numbers in the run
    shown: tuple[str, ...]
    parts: tuple[str, ...]

    def ordered(self, variants: tuple[int, ...]) -> dict[str, Any]:
        """The step as the browser keeps it, with its files in this order; None for variants that it does not show."""
        shown, parts = (dict(zip(self.variants, paths, strict=True)) for paths in (self.shown, self.parts))
        order = variants[: max(variants.index(number) for number in self.variants) + 1]
        return {
            "caption": self.caption,
            "preview": self.preview,
            "slot": self.slot,
            "shown": [shown.get(number) for number in order],
            "parts": [parts.get(number) for number in order],
        }


class RunHistory:
    """The steps of a run: every stage and some of the previews, so that they can be looked at and edited again.

    Images lie in files, of large ones only the part that the run changes; the browser holds their names.
    """

    def __init__(self, edits: bool = False) -> None:
        """edits: whether the run changes an image."""
        self._edits = edits
        self._box: Box | None = None  # the part of it that may change; None: all of it
        self._steps: list[Step] = []
        self._labels: list[str] = []

    def add(self, event: PipelineEvent) -> dict[str, Any]:
        """Adds an event. What the page shows of it: a small image of the first variant, and its place in the run."""
        if event.mask is not None:
            self._box = event.mask.getbbox()
        corrected = event.recipe.settings.corrector_steps > 0
        self._labels = self._labels or messages.film_labels(event.stage, event.stages, corrected)
        last = len(self._labels) - 1
        slot = 0 if event.kind == "start" else last
        if event.kind in ("preview", "stage") and not event.corrector_step:
            slot = min(last - event.stage + (0 if corrected else 1), last)
        share = event.position / event.total if event.kind == "preview" and event.total else 1.0
        caption = messages.step_caption(event)
        return {
            "film": self._labels,
            "images": [self._keep(event, slot, caption)],
            "slot": slot,
            "share": share,
            "caption": caption,
        }

    def _keep(self, event: PipelineEvent, slot: int, caption: str) -> str:
        """Adds an event to the steps, where it is not too large; a small image of the first variant."""
        preview = event.kind == "preview"
        small = [downscaled(image, MAX_PREVIEW_SIDE) for image in event.images]
        left, top, right, bottom = box = self._box or (0, 0, *event.images[0].size)
        if preview and (right - left) * (bottom - top) > MAX_KEPT_PIXELS:
            return publish_preview(small[0])
        shown = parts = tuple(publish(image) for image in small)
        if self._edits or max(event.images[0].size) > MAX_PREVIEW_SIDE:
            parts = tuple(publish(image if box == (0, 0, *image.size) else image.crop(box)) for image in event.images)
        # A slow browser asks for a preview long after it was made, when its step may have been dropped.
        sent = publish_copy_as_preview(shown[0])
        self._steps.append(Step(caption, preview, slot, event.variants, shown, parts))
        self._drop_previews()
        return sent

    def finish(self, event: PipelineEvent) -> dict[str, Any]:
        """Adds the last event and writes the results, each with its recipe; the run as the browser keeps it."""
        self.add(event)
        recipe, prompts = event.recipe, dict.fromkeys(one.prompt for one in event.recipes if one.prompt)
        results = []
        for own, image, small in zip(event.recipes, event.images, self._steps[-1].shown, strict=True):
            name = f"{own.task}-{own.seed}-{own.variant + 1}.png"
            path = publish_file(name, partial(write_png, image, recipe=own))
            results.append(describe_png(path, image) | {"small": small, "number": own.variant + 1})
        return {
            "task": recipe.task,
            "film": self._labels,
            "prompt": ", ".join(prompts) or None,
            "name": f"{recipe.task}-{recipe.seed}",
            "box": self._box,
            "results": results,
            "steps": [step.ordered(event.variants) for step in self._steps],
        }

    def _drop_previews(self) -> None:
        previews = [step for step in self._steps if step.preview]
        if len(previews) > MAX_PREVIEWS:
            dropped = previews[::2]
            self._steps = [step for step in self._steps if step not in dropped]
            for path in {path for step in dropped for path in (*step.shown, *step.parts)}:
                Path(path).unlink(missing_ok=True)


@dataclass(frozen=True)
class Run:
    """A run that is about to start."""

    events: Iterator[PipelineEvent]
    history: RunHistory
    again: bool = False  # whether a result that misses what the words ask for may be tried again, as the best of four


def within_time(events: Iterator[PipelineEvent], seconds: float) -> Generator[PipelineEvent, None, None]:
    """The events of a run, closed at the end; raises InputError where it takes longer than so many seconds."""
    with closing(events):  # type: ignore[type-var]
        for event in events:
            if event.elapsed > seconds and event.kind != "result":
                raise InputError(messages.run_too_long(seconds))
            yield event


class Runs:
    """The page's runs: each takes the sketchpad's value and the controls' values by name."""

    def __init__(self, choice: ModelChoice, max_seconds: float = MAX_RUN_SECONDS) -> None:
        """max_seconds: of a run, which is then ended by a sentence."""
        self._choice = choice
        self._max_seconds = max_seconds

    def edit(self, sketchpad: SketchValue, **controls: Any) -> Iterator[Update]:
        """Regenerates what is painted on the sketchpad."""
        yield from self._updates("edit", _edit, sketchpad, controls)

    def generate(self, sketchpad: SketchValue, **controls: Any) -> Iterator[Update]:
        """Generates a new image."""
        yield from self._updates("generate", _generate, sketchpad, controls)

    def vary(self, sketchpad: SketchValue, **controls: Any) -> Iterator[Update]:
        """Regenerates the whole image on the sketchpad, as differently as the strength says."""
        yield from self._updates("vary", _vary, sketchpad, controls)

    def _updates(
        self,
        task: str,
        start: Callable[[Pipeline, Controls, Sketch], Run],
        sketchpad: SketchValue,
        values: Mapping[str, Any],
    ) -> Iterator[Update]:
        """The updates of a run until it ends, fails or is closed; closing it stops the model too."""
        yield waiting()
        message: dict[str, Any] = {"run": run_name(sketchpad), "task": task, "version": 0}
        try:
            controls, sketch = Controls(**values), Sketch.read(sketchpad)
            message["version"] = sketch.version
            pipeline = self._choice.get(controls.model)
            tried = controls.best_first and controls.variants == MAX_IMAGES
            run = replace(start(pipeline, controls, sketch), again=pipeline.can_rank and not tried)
            with closing(within_time(run.events, self._max_seconds)) as events:
                for event in events:
                    if task == "edit" and event.kind == "result":
                        self._choice.record_edit(controls.model, event)
                    yield _update(event, run, message)
        except ImageDeleted as error:
            yield {**failed(str(error), message["run"]), "run": {**message, "deleted": True}}
        except InputError as error:
            yield failed(str(error), message["run"])
        except Exception:
            yield failed(log_unexpected("a run failed"), message["run"])


def _edit(pipeline: Pipeline, controls: Controls, sketch: Sketch) -> Run:
    mask, prompt = asked_for(pipeline, sketch, controls.prompt(pipeline))
    events = pipeline.edit(
        sketch.file(),  # the pipeline opens it: a large one takes memory once
        mask,
        prompt,
        seed=controls.fixed_seed(),
        settings=controls.sampling(pipeline),
        exact=controls.exact or sketch.mode == "expand",
        movable=sketch.movable,
        remove=sketch.mode == "remove",
        feather=int(controls.feather),
        context=context_size(controls.context),
        **controls.batch(pipeline),
    )
    return Run(events, RunHistory(True))


def asked_for(pipeline: Pipeline, sketch: Sketch, prompt: Any) -> tuple[Image.Image | None, Any]:
    """Mask and prompt of an edit before they are fitted to the model: what is painted, None for nothing, and the words.

    What is removed is filled without words. A background's mask is where the words for it belong, and half a token
    more: patches at the subject's outline, of which a small part is background, are not found.
    """
    if sketch.mode != "background":
        mask = sketch.mask()
        if mask is None and sketch.mode == "remove":
            raise InputError(messages.NOTHING_TO_REMOVE)
        return mask, None if sketch.mode == "remove" else prompt
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputError(messages.NO_BACKGROUND)
    words = prompt if re.search(r"\bbackground\b", prompt, re.IGNORECASE) else f"a {prompt.strip()} background"
    found = np.asarray(pipeline.suggest_mask(sketch.file(), words))
    reach = 2 * round(max(found.shape) / pipeline.grid / 2) + 1
    return Image.fromarray(cv2.dilate(found, np.ones((reach, reach), np.uint8))), words


def _generate(pipeline: Pipeline, controls: Controls, _: Sketch) -> Run:
    events = pipeline.generate(
        controls.prompt(pipeline),
        seed=controls.fixed_seed(),
        settings=controls.sampling(pipeline),
        **controls.batch(pipeline),
    )
    return Run(events, RunHistory())


def _vary(pipeline: Pipeline, controls: Controls, sketch: Sketch) -> Run:
    events = pipeline.vary(
        sketch.file(),
        controls.strength,
        controls.prompt(pipeline),
        seed=controls.fixed_seed(),
        settings=controls.sampling(pipeline),
        **controls.batch(pipeline),
    )
    return Run(events, RunHistory(True))


def _update(event: PipelineEvent, run: Run, message: Mapping[str, Any]) -> Update:
    """What an event changes on the page."""
    notes = ""
    for note in event.notes:
        if event.elsewhere is not None and note in (MISSED, ELSEWHERE):
            continue  # the page says why, with a button: see `showOffer`
        again = note == MISSED and run.again
        notes += messages.again_html(note, message["task"]) if again else messages.notes_html([note])
    mask = event.mask if event.kind in ("start", "result") else None
    fitted = {} if mask is None else {"mask": pack_for_view(mask)}
    if event.kind == "result":
        return {
            # In the order of the updates before: in another one, Gradio takes it for a new value, and sends it twice.
            "run": {**message, **run.history.finish(event), **fitted},
            "progress": messages.done_html(event),
            "announcement": messages.announcement_html("The image is ready."),
            "messages": notes,
            "seed": event.seed,
        }
    update: Update = {
        "run": {**message, **run.history.add(event)},
        "progress": messages.progress_html(event),
        "messages": notes,
    }
    if event.kind == "start":
        update["seed"] = event.seed
        update["run"] |= fitted
    if event.kind != "preview":
        line = messages.scale_line(event) + (" done" if event.kind == "stage" else "")
        update["announcement"] = messages.announcement_html(line)
    return update


class Cancellation:
    """The runs that are cancelled, by name: the browser gives each run a name that nobody can guess.

    Names are remembered: a run stops whether Cancel comes before it, while it waits for its turn or while it goes on.
    Only the run itself says what became of it, as its last update: a result, or that it was cancelled, never both.
    """

    def __init__(self, page: gr.Blocks, max_names: int = MAX_CANCELLED) -> None:
        """max_names: kept at a time. The page repeats the name as long as the run goes on, should it be forgotten."""
        self._page, self._max_names = page, max_names
        self._names: OrderedDict[str, None] = OrderedDict()

    def applied_to(self, run: Callable[..., Iterator[Update]]) -> Callable[..., Iterator[Update]]:
        """A run that ends at the next update after its name was given to `cancel`.

        It is around what a GPU may be lent to: such work is done in a process of its own, which learns of no names.
        """

        @wraps(run)
        def cancellable(sketchpad: SketchValue, **controls: Any) -> Iterator[Update]:
            name = run_name(sketchpad)
            with closing(run(sketchpad=sketchpad, **controls)) as updates:  # type: ignore[type-var]
                for update in updates:
                    if name in self._names:
                        break
                    yield update
                else:
                    return
            yield cancelled(name)

        return cancellable

    def cancel(self, name: str) -> None:
        """Cancels the run of a name, also one that is not here yet; one that waits for its turn leaves the queue.

        To be called in the event loop of Gradio's queue, so that nothing of it changes meanwhile.
        """
        self._names[name] = None
        self._names.move_to_end(name)
        while len(self._names) > self._max_names:
            self._names.popitem(last=False)
        queue = self._page._queue
        for waiting in queue.event_queue_per_concurrency_id.values():
            for event in [event for event in waiting.queue if _is_run(event, name)]:
                waiting.queue.remove(event)
                queue.event_ids_to_events.pop(event._id, None)
                last = {"data": in_order(cancelled(name), UPDATED)}
                queue.send_message(event, ProcessCompletedMessage(output=last, success=True))

    def endpoint(self) -> Callable[[Any], Coroutine[Any, Any, None]]:
        """`cancel` for the browser: in the queue's event loop, and without a thread, of which none may be free."""

        async def stop(name: Any) -> None:
            if isinstance(name, str) and len(name) <= MAX_RUN_NAME:
                self.cancel(name)

        return stop


def _is_run(event: Any, name: str) -> bool:
    """Whether an event of Gradio's queue is the run of a name."""
    sent = event.data.data if event.data else []
    return bool(sent) and isinstance(sent[0], dict) and sent[0].get("run") == name


def in_order(update: Mapping[str, Any], names: tuple[str, ...]) -> list[Any]:
    """An update as Gradio's front end takes it: a value for each of the components of these names."""
    return [update.get(name, gr.skip()) for name in names]
