"""What the page does: runs and Cancel, questions about the image and the prompt, settings.

An action takes values of components by name, and returns an update: a dictionary of new values by the names of
components; what is missing stays as it is.
"""

import random
import re
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from functools import partial, wraps
from html import escape
from pathlib import Path
from shutil import copyfile
from typing import Any
from uuid import uuid4

import cv2
import gradio as gr
import numpy as np
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from PIL import Image

from imagebart.core.errors import InputError
from imagebart.imaging.files import load_image, read_recipe, write_png
from imagebart.pipeline import MISSED, OFFERED, Pipeline, PipelineEvent
from imagebart.ui import MAX_RUN_SECONDS, files, messages, on_gpu
from imagebart.ui.controls import MAX_IMAGES, NAMES, RESET, Controls, link_values, recipe_values, starting_values
from imagebart.ui.files import MAX_PREVIEW_SIDE, ImageDeleted, Sketch, SketchValue, pack_for_view
from imagebart.ui.models import Models, model_properties

UPDATED = ("run", "progress", "announcement", "messages", "seed")  # by a run; "run" is a message to the sketchpad
RESTORED = ("words", "choice", *RESET)  # the controls that an image which was made here sets

MAX_PREVIEWS = 32  # kept of a run: beyond these every second one is dropped, as often as needed
# Pixels of what a run changes up to which previews are kept: writing larger ones would hold up the model.
MAX_KEPT_PIXELS = 1_000_000
MAX_CANCELLED = 1000  # names of cancelled runs that are remembered
MAX_CHECKED = 2000  # characters of a prompt

Update = dict[str, Any]


def answering(function: Callable[[Any], dict[str, Any]], limiter: CapacityLimiter) -> Callable[[Any], Any]:
    """A function that the browser may call by name: what is wrong is answered with {"error": a sentence}.

    limiter: of how many such calls use the model or open large images at a time; the others wait without a thread.
    """

    @wraps(function)
    async def answer(question: Any) -> dict[str, Any]:
        try:
            return await run_sync(function, question, limiter=limiter)
        except InputError as error:
            return {"error": str(error), "deleted": isinstance(error, ImageDeleted)}

    return answer


def waiting() -> Update:
    return {"progress": messages.waiting_html(), "announcement": "", "messages": ""}


def failed(sentence: str) -> Update:
    """The page when a run cannot be done: the sentence, and everything else as it was."""
    return {"progress": "", "announcement": "", "messages": messages.problem_html(sentence)}


def within_time(events: Iterator[PipelineEvent], seconds: float) -> Generator[PipelineEvent, None, None]:
    """The events of a run, closed at the end; raises InputError where it takes longer than so many seconds."""
    with closing(events):  # type: ignore[type-var]
        for event in events:
            if event.elapsed > seconds and event.kind != "result":
                raise InputError(messages.run_too_long(seconds))
            yield event


class Actions:
    """The page's actions, on the model that is chosen. All else comes in with each call.

    The browser gives each run a name that nobody can guess, and cancels it by that name. Names are remembered: a run
    stops whether Cancel comes before it, while it waits for its turn or while it goes on. Only the run itself says what
    became of it, as its last update: a result, or that it was cancelled, never both.
    """

    def __init__(self, models: Models, max_seconds: float = MAX_RUN_SECONDS) -> None:
        self._models, self._max_seconds = models, max_seconds
        self._cancelled: deque[str] = deque(maxlen=MAX_CANCELLED)
        self._last_fit: tuple[Any, Any] = None, None  # an edit that was asked about, its mask with the prompt
        self._run_on_gpu = on_gpu(self._updates)

    # Runs.

    def run(self, task: str, sketchpad: SketchValue, **controls: Any) -> Iterator[Update]:
        """The updates of a run of one of TASKS until it ends, fails, is cancelled or closed; then the model stops, too.

        Names are looked up here: what a GPU is lent to runs in a process of its own, which learns of none.
        """
        name = sketchpad.get("run") if isinstance(sketchpad, Mapping) else None
        with closing(self._run_on_gpu(task, name, sketchpad, controls)) as updates:
            for update in updates:
                if name in self._cancelled:
                    yield {**failed(""), "run": {"ended": name}, "messages": messages.note_html(messages.CANCELLED)}
                    return
                yield update

    def cancel(self, run: str) -> None:
        """Cancels the run of a name, also one that is not here yet."""
        if run not in self._cancelled:
            self._cancelled.append(run)

    def _updates(
        self, task: str, name: str | None, sketchpad: SketchValue, values: Mapping[str, Any]
    ) -> Iterator[Update]:
        message: dict[str, Any] = {"run": name, "task": task, "version": 0}
        yield waiting()
        try:
            sketch, controls = Sketch.read(sketchpad), Controls.parse(**values)
            message["version"] = sketch.version
            pipeline = self._models.get(controls.model)
            tried = controls.best_first and controls.variants == MAX_IMAGES
            history = RunHistory(edits=task != "generate")
            question, answer = self._last_fit
            known = (answer,) if task == "edit" and question == (sketch, controls.of_fit()) else ()
            with closing(within_time(TASKS[task](pipeline, sketch, controls, *known), self._max_seconds)) as events:
                for event in events:
                    yield _update(event, history, message, again=pipeline.scorer is not None and not tried)
        except ImageDeleted as error:
            yield {**failed(str(error)), "run": {**message, "deleted": True}}
        except InputError as error:
            yield {**failed(str(error)), "run": {"ended": name}}

    # Questions. They come without Gradio's queue: when the last of what a browser has queued is done, Gradio closes the
    # connection that tells of it, and a run that was queued at that moment would not be heard of any more.

    def fit(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """What Edit would change, from the sketchpad's value with all controls: its mask, and how much of the image
        that is, in percent.

        elsewhere: the mask of the place that the words are about, where something else is painted. {} where nothing can
        be changed yet, which is reported when Edit is pressed.
        """
        try:
            pipeline, sketch = self._asked(question)
            controls = Controls.parse(**{name: question[name] for name in NAMES})
            image = load_image(sketch.file())
            first, *others = prompts if isinstance(prompts := controls.prompt(pipeline), list) else [prompts]
            mask, prompt = mask_and_prompt(pipeline, image, sketch, first)
            fitted = pipeline.fit_mask(image, mask, prompt, **edit_options(pipeline, sketch, controls))
            if not others:  # of several classes, each is a prompt of its own
                self._last_fit = (sketch, controls.of_fit()), (fitted, prompt)
        except InputError:
            return {}
        kept = fitted.mask.histogram()[0] / (fitted.mask.width * fitted.mask.height)
        answer = {"mask": pack_for_view(fitted.mask), "share": max(1, round(100 * (1 - kept)))}
        if fitted.elsewhere is not None:
            answer["elsewhere"] = pack_for_view(fitted.elsewhere)
        return answer

    def select(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """{"mask": what "words" are about in the image, packed}."""
        pipeline, sketch = self._asked(question)
        return {"mask": pack_for_view(pipeline.suggest_mask(sketch.file(), question["words"]))}

    def describe(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """{"caption": what the image shows, in words that the model knows}."""
        pipeline, sketch = self._asked(question)
        return {"caption": pipeline.describe(sketch.file())}

    def recognize(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """{"note": a sentence where the model does not know such images, else ""}."""
        pipeline, sketch = self._asked(question)
        small = files.find(sketch.view)  # what the browser shows: a large upload would take long
        return {"note": " ".join(pipeline.domain_notes(small))}

    def _asked(self, question: Mapping[str, Any]) -> tuple[Pipeline, Sketch]:
        return self._models.for_questions(question["model"]), Sketch.read(question)

    def check_prompt(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """{"prompt": …, "model": a model's name} to {"unknown": …, "corrections": …}, for prompt.js while one types.

        unknown: words that this model neither knows nor corrects; corrections: those that it corrects, and to what.
        """
        pipeline, words = self._models.for_questions(question["model"]), question["prompt"][:MAX_CHECKED]
        return {"unknown": pipeline.unknown_words(words), "corrections": pipeline.corrections(words)}

    # Settings.

    def restore_settings(self, made: SketchValue, model: str | None) -> Update:
        """The prompt, seed and settings of the image on the sketchpad, if this page made it."""
        try:
            recipe = read_recipe(Sketch.read(made).file())
            pipeline = self._models.get(model)
        except InputError as error:
            return {"messages": messages.problem_html(str(error))}
        if recipe is None:
            return {}
        other = recipe.model if recipe.model != pipeline.name else None
        note = messages.of_model(messages.SETTINGS_RESTORED, other)
        return {**recipe_values(recipe, pipeline), "messages": messages.note_html(note)}

    def open_link(self, link: Mapping[str, Any], model: str | None) -> Update:
        """The controls' values that a link holds, or those of before a reload; the browser reads them (images.js)."""
        pipeline = self._models.get(model)
        values = link_values(link, pipeline)
        other = values.pop("model", None)
        if link.get("reloaded"):
            return {name: value for name, value in values.items() if name != "words"}
        values["new_seed"] = False
        note = messages.of_model(messages.LINK_OPENED, None if other in (pipeline.name, model) else other)
        return {**values, "messages": messages.note_html(note)}

    def list_models(self, model: str | None = None) -> Update:
        """The list that a model is chosen from, as it is now, and the one that is chosen."""
        chosen: dict[str, Any] = {} if model is None else {"value": model}
        return {"model": gr.update(choices=self._models.choices(), **chosen)}

    def switch_model(self, model: str) -> Update:
        """The page's changes when another model is chosen, which is fetched first if it is not here, with its own
        settings; those of the first one where it cannot be used.
        """
        try:
            if published := self._models.missing().get(model):
                gr.Info(messages.download_begins(published))
                self._models.fetch(model)
            pipeline = self._models.get(model)
        except InputError as error:
            gr.Warning(str(error))
            pipeline, model = self._models.first, self._models.first.name
        update: Update = self.list_models(model) | starting_values(pipeline)
        for name, properties in model_properties(pipeline).items():
            value = {"value": update[name]} if name in update else {}
            update[name] = gr.update(**value, **properties)
        return update | {"examples": {"model": model, "examples": self._models.examples(model)}}

    def reset_settings(self, model: str | None) -> Update:
        return starting_values(self._models.get(model))

    def surprise(self, model: str | None) -> Update:
        pipeline = self._models.get(model)
        if pipeline.conditioning == "class":
            return {"choice": [random.choice(pipeline.classes)]}
        if suggestions := pipeline.suggestions:
            count = random.randint(min(2, pipeline.surprises), pipeline.surprises)
            chosen = random.sample(list(suggestions), min(len(suggestions), count))
            words = ", ".join(random.choice(suggestions[attribute]) for attribute in chosen)
        else:
            words = " ".join(random.sample(pipeline.vocabulary, min(len(pipeline.vocabulary), 2)))
        # With an id, since the page passes on only what changes. The browser sets the prompt, so that it can be undone.
        return {"random_prompt": {"words": words, "id": uuid4().hex}} if words else {}


def mask_and_prompt(
    pipeline: Pipeline, image: Image.Image, sketch: Sketch, prompt: Any
) -> tuple[Image.Image | None, Any]:
    """Mask and prompt of an edit before they are fitted to the model: what is painted, None for nothing, and the words.

    What is removed is filled without words. A background's mask is where the words for it belong, and half a token
    more: patches at the subject's outline, of which a small part is background, are not found.
    """
    if sketch.mode != "background":
        mask = sketch.painted(image.size)
        if mask is None and sketch.mode == "remove":
            raise InputError(messages.NOTHING_TO_REMOVE)
        return mask, None if sketch.mode == "remove" else prompt
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputError(messages.NO_BACKGROUND)
    words = prompt if re.search(r"\bbackground\b", prompt, re.IGNORECASE) else f"a {prompt.strip()} background"
    place = np.asarray(pipeline.suggest_mask(image, words))
    reach = 2 * round(max(place.shape) / pipeline.grid / 2) + 1
    return Image.fromarray(cv2.dilate(place, np.ones((reach, reach), np.uint8))), words


def edit_options(pipeline: Pipeline, sketch: Sketch, controls: Controls) -> dict[str, Any]:
    """How an edit's mask is fitted, by `Pipeline.edit` and the outline before it."""
    return {
        "exact": controls.exact or sketch.mode == "expand",
        "movable": sketch.movable,
        "remove": sketch.mode == "remove",
        "context": controls.crop_context,
        "feather": controls.feather,
        "settings": controls.sampling(pipeline),
    }


def _edit(
    pipeline: Pipeline, sketch: Sketch, controls: Controls, known: tuple[Any, Any] | None = None
) -> Iterator[PipelineEvent]:
    """Regenerates what is painted on the sketchpad. known: the mask and the prompt, where they are known already."""
    image = load_image(sketch.file())
    mask, prompt = known or mask_and_prompt(pipeline, image, sketch, controls.prompt(pipeline))
    return pipeline.edit(image, mask, prompt, **edit_options(pipeline, sketch, controls) | controls.for_run(pipeline))


def _generate(pipeline: Pipeline, _: Sketch, controls: Controls) -> Iterator[PipelineEvent]:
    return pipeline.generate(controls.prompt(pipeline), **controls.for_run(pipeline))


def _vary(pipeline: Pipeline, sketch: Sketch, controls: Controls) -> Iterator[PipelineEvent]:
    return pipeline.vary(sketch.file(), controls.strength, controls.prompt(pipeline), **controls.for_run(pipeline))


TASKS: dict[str, Callable[..., Iterator[PipelineEvent]]] = {"edit": _edit, "generate": _generate, "vary": _vary}


def _update(event: PipelineEvent, history: "RunHistory", message: Mapping[str, Any], again: bool) -> Update:
    """again: whether a result that misses what the words ask for may be tried again, as the best of four."""
    # What is offered, the page says with a button: see `showOffer`.
    notes = [note for note in event.notes if event.elsewhere is None or note not in OFFERED]
    html = [messages.note_html(note, again=message["task"] if again and note == MISSED else "") for note in notes]
    if event.kind == "result":
        run, progress, line = history.finish(event), messages.done_html(event), "The image is ready."
    else:
        run, progress, line = history.add(event), messages.progress_html(event), messages.scale_line(event)
    update: Update = {"run": {**message, **run}, "progress": progress, "messages": "".join(html)}
    if event.kind in ("start", "result"):
        update["seed"] = event.seed
        if event.mask is not None:
            update["run"]["mask"] = pack_for_view(event.mask)
    if event.kind != "preview":
        line += " done" if event.kind == "stage" else ""
        update["announcement"] = f"<span>{escape(line)}</span>"  # for screen readers only
    return update


class RunHistory:
    """The steps of a run: every stage and some of the previews, so that they can be looked at and edited again.

    Images lie in files, of large ones only the part that the run changes; the browser holds their names.
    """

    def __init__(self, edits: bool = False) -> None:
        """edits: whether the run changes an image."""
        self._edits = edits
        self._box: tuple[int, int, int, int] | None = None  # the part of it that may change; None: all of it
        self._steps: list[dict[str, Any]] = []  # as the browser keeps them; "shown" and "parts" by variant
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
        image = self._keep(event, slot, caption)
        return {"film": self._labels, "images": [image], "slot": slot, "share": share, "caption": caption}

    def _keep(self, event: PipelineEvent, slot: int, caption: str) -> str:
        """Adds an event to the steps, where it is not too large; a small image of the first variant."""
        preview = event.kind == "preview"
        small = [files.downscaled(image, MAX_PREVIEW_SIDE) for image in event.images]
        left, top, right, bottom = box = self._box or (0, 0, *event.images[0].size)
        if preview and (right - left) * (bottom - top) > MAX_KEPT_PIXELS:
            return files.publish(small[0], "preview")
        shown = parts = {number: files.publish(image) for number, image in zip(event.variants, small, strict=True)}
        if self._edits or max(event.images[0].size) > MAX_PREVIEW_SIDE:
            parts = {
                number: files.publish(image if box == (0, 0, *image.size) else image.crop(box))
                for number, image in zip(event.variants, event.images, strict=True)
            }
        self._steps.append({"caption": caption, "preview": preview, "slot": slot, "shown": shown, "parts": parts})
        # A slow browser asks for a preview long after it was made, when its step may have been dropped.
        first = shown[event.variants[0]]
        sent = files.publish_file("image.png", lambda path: copyfile(first, path), "preview")
        self._drop_previews()
        return sent

    def finish(self, event: PipelineEvent) -> dict[str, Any]:
        """Adds the last event and writes the results, each with its recipe; the run as the browser keeps it."""
        self.add(event)
        prompts = dict.fromkeys(recipe.prompt for recipe in event.recipes if recipe.prompt)
        results = []
        for recipe, image in zip(event.recipes, event.images, strict=True):
            small = self._steps[-1]["shown"][recipe.variant]
            name = f"{recipe.task}-{recipe.seed}-{recipe.variant + 1}.png"
            path = files.publish_file(name, partial(write_png, image, recipe=recipe))
            results.append(files.describe_png(path, image) | {"small": small, "number": recipe.variant + 1})
        return {
            "task": event.recipe.task,
            "film": self._labels,
            "prompt": ", ".join(prompts) or None,
            "name": f"{event.recipe.task}-{event.recipe.seed}",
            "box": self._box,
            "results": results,
            # In the order of the results; None for variants that a step does not show.
            "steps": [
                step | {name: [step[name].get(variant) for variant in event.variants] for name in ("shown", "parts")}
                for step in self._steps
            ],
        }

    def _drop_previews(self) -> None:
        previews = [step for step in self._steps if step["preview"]]
        for step in previews[::2] if len(previews) > MAX_PREVIEWS else ():
            self._steps.remove(step)
            for path in {*step["shown"].values(), *step["parts"].values()}:
                Path(path).unlink(missing_ok=True)
