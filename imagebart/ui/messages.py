"""What the page says: sentences, and pure functions from events to text and HTML."""

from collections.abc import Mapping, Sequence
from html import escape

from imagebart.pipeline import Pipeline, PipelineEvent
from imagebart.weights.registry import PublishedModel

SKETCH_UNREADABLE = "The server cannot read what the sketchpad sent; reload the page."
MASK_UNREADABLE = "The mask cannot be read, or belongs to another image; reload the page."

# What is missing for a run, and what ended one.
NOTHING_TO_REMOVE = "Nothing is painted yet. Paint over what should go."
NO_BACKGROUND = "Say how the background should be, such as “blue”."
NO_IMAGE = "There is no image on the canvas yet. Choose an example or upload one."
IMAGE_DELETED = (
    "This image is no longer on the server: images are deleted after an hour. You can save those on the page."
)
CANCELLED = "Cancelled. Your image, mask and prompt have not changed."
SERVER_BUSY = (
    "The server could not run this, or too many people are waiting. Your image, mask and prompt are still here: "
    "please try again in a moment."
)
DISK_FULL = (
    "The server's disk is full at the moment. Your image, mask and prompt are still here: "
    "please try again in a few minutes."
)


def run_too_long(seconds: float) -> str:
    limit = f"{seconds / 60:g} minutes" if seconds >= 120 else f"{seconds:g} seconds"
    return f"The run took longer than the {limit} that this page allows; choose fewer images or steps."


def expanded_too_far(size: tuple[int, int], shape: int, pixels: int) -> str:
    most = f"{pixels // 1_000_000} megapixels, and a longer side of {shape} times the shorter one"
    return f"The image would have {size[0]:,} × {size[1]:,} pixels; it can grow to at most {most}."


LINK_OPENED = "This link's image, prompt, seed and settings are set. Press Edit for its result."
SETTINGS_RESTORED = "This image was made here: its prompt, seed and settings are set again."


def download_begins(model: PublishedModel) -> str:
    return f"{model.name} draws {model.domain}; its license: {model.license}. {model.download_gb:g} GB are downloaded."


def of_model(sentence: str, model: str | None) -> str:
    """A sentence about a result, and the model that made it where that is another one."""
    return sentence if model is None else f"{sentence} It was made with another model: {model}."


# The progress of a run.


def scale_line(event: PipelineEvent) -> str:
    """The step that is running, counted from the coarsest, which is the first; in parts, what is being drawn."""
    number = event.stages - event.stage + 1
    if event.drawing:
        return f"{event.drawing[:1].upper()}{event.drawing[1:]}: step {number} of {event.stages}"
    name = " (coarsest)" if number == 1 else " (finest)" if event.stage == 1 else ""
    return f"Step {number} of {event.stages}{name if event.stages > 1 else ''}"


def step_caption(event: PipelineEvent) -> str:
    """A step of a run in words, for looking at it afterwards: "Step 2 of 4: 24 % drawn"."""
    if event.kind == "start":
        return "Noise: nothing is drawn yet"
    if event.kind == "result":
        return "The result"
    if event.corrector_step:
        return f"Correcting: {drawn(event)}"
    which = scale_line(event) if event.resamples == 1 else f"{scale_line(event)}, pass {event.resample_index + 1}"
    return f"{which} done" if event.kind == "stage" else f"{which}: {drawn(event)} drawn"


def drawn(event: PipelineEvent) -> str:
    return f"{round(100 * event.position / max(event.total, 1))} %"


def film_labels(first: int, stages: int, corrected: bool) -> list[str]:
    """Short names of what a run from step `first` (of `stages`, counted down) shows: noise, scales, the image.

    corrected: whether the corrector follows the last scale, whose end is not the image then.
    """
    scales = [f"{stages - stage + 1} of {stages}" for stage in range(first, 0 if corrected else 1, -1)]
    return ["Noise", *scales, "Image"]


def progress_html(event: PipelineEvent) -> str:
    """How far a run is: its share, step and pass where there are several, and the time."""
    scale = f"{scale_line(event)} · " if event.stages > 1 else ""
    number = f"pass {event.resample_index + 1} of {event.resamples} · " if event.resamples > 1 else ""
    position = "Correcting" if event.corrector_step else escape(f"{scale}{number}{drawn(event)}")
    percent = round(100 * event.fraction)
    remaining = "" if event.remaining is None else f", about {event.remaining:.1f} s left"
    time = f"{event.elapsed:.1f} s{remaining}"
    attributes = (
        f' role="progressbar" aria-label="Progress" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{percent}"'
        f' aria-valuetext="{position} · {time}"'
    )
    return _bar(f"<span>{position}</span><span>{time}</span>", percent, attributes)


def waiting_html() -> str:
    """Before the first event: the bar is there already, so that the page does not jump."""
    return _bar("Waiting for the model …", 0)


def done_html(event: PipelineEvent) -> str:
    seed = f'<span class="ib-long"> · seed {event.seed}</span>'
    return _bar(f"<span>Keep it, or paint on.</span><span>Done in {event.elapsed:.1f} s{seed}</span>", 100)


def _bar(line: str, percent: int, attributes: str = "") -> str:
    track = f'<span class="ib-track"><span class="ib-fill" style="width:{percent}%"></span></span>'
    return f'<div class="ib-progress"{attributes}><span class="ib-line">{line}</span>{track}</div>'


def problem_html(sentence: str) -> str:
    return f'<p class="ib-message ib-problem">{escape(sentence)}</p>'


def note_html(note: str, again: str = "") -> str:
    """What the person should know about a run. again: a task that a button starts once more, see `tryFour`."""
    button = f' <button type="button" class="ib-chip" data-again="{again}">Try four, best first</button>'
    return f'<p class="ib-message ib-note">{escape(note)}{button if again else ""}</p>'


# The page around it, and what it shows of a model.

TITLE = "ImageBART in the browser"
HEADING = '<header><h1 class="ib-title">ImageBART<span class="ib-long"> in the browser</span></h1></header>'
OPEN = (
    '<button type="button" class="sp-button" popovertarget="examples">'
    'Open<span class="ib-long"> an image</span></button>'
)
NO_VOCABULARY = {
    "text": "This model was trained on any words.",
    "class": "This model takes a class instead of words.",
    "none": "This model takes no words.",
}


def about_model(pipeline: Pipeline) -> str:
    side, grid, stages = pipeline.image_size, pipeline.grid, pipeline.stages
    steps = "any number of scales" if pipeline.any_scales else f"{stages} stage{'' if stages == 1 else 's'}"
    draws = f"Draws {escape(pipeline.knows)} only. " if pipeline.knows else ""
    card = pipeline.card or "This model has no card."
    return f"{draws}{side} × {side} pixels, {grid} × {grid} tokens, {steps}.\n\n{card}"


def words_html(suggestions: Mapping[str, Sequence[str]], vocabulary: Sequence[str]) -> str:
    """Words to add to the prompt: suggestions by what they describe, then a model's whole vocabulary."""
    groups, chip = "", '<button type="button" class="ib-chip" aria-pressed="false"'
    for name, words in {**suggestions, "all words": vocabulary}.items():
        chips = "".join(f'{chip} data-add="{word}">{word}</button>' for word in map(escape, words))
        label = escape(name)
        groups += f'<div class="ib-chips" role="group" aria-label="{label}"><span>{label}</span>{chips}</div>'
    return f'<input type="search" id="find-word" placeholder="Find a word" aria-label="Find a word">{groups}'
