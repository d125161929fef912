"""What the page says while it works: pure functions from events to text and HTML."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Protocol

LONGEST_OPENING = 900  # characters
NO_MASK = (
    "Nothing is painted yet. Paint over the part that should change, or press one of the ready masks below the picture."
)
NO_PICTURE = "There is no picture on the canvas yet. Pick an example or upload one."
MISREAD = "What was sent cannot be used: its values are too few, or not of the kinds that are asked for."
TOO_MUCH = "What was sent is larger than anything that this page takes."
FOREIGN_FILE = "A file that was named is none that was uploaded to this page; upload it first."
NOTHING_ABROAD = "This page fetches nothing from other servers."
BROKEN = (
    "The server could not take this, or too many people are waiting. Your picture, mask and words are still here: "
    "please try again in a moment."
)
CANCELLED = "Cancelled. Your picture, mask and words are as you left them."
HISTORY = (
    '<section class="sp-history" id="history" aria-label="History" hidden>'
    '<h2 class="ib-label">History: go back to any of them</h2>'
    '<div class="sp-strip" data-roving role="toolbar" aria-label="Runs"></div></section>'
)
ALL_WORDS = {
    "text": "This model was trained on any words.",
    "class": "This model takes a class in place of words.",
    "none": "This model takes no words.",
}
UNKNOWN_LINE = (
    '<p class="ib-unknown" id="unknown" role="status" hidden></p>'
    '<p class="ib-chips" id="meant" role="status" hidden></p>'
)


def sorry(number: str) -> str:
    """What nobody expected; the number stands in the server's log, too."""
    return (
        f"Something went wrong on our side: error {number}. Your picture, mask and words are still here: please try "
        "again, and tell whoever runs this page the number if it comes again."
    )


class Moment(Protocol):
    """The part of a pipeline event that the progress line tells."""

    @property
    def stage(self) -> int: ...
    @property
    def stages(self) -> int: ...
    @property
    def resample_index(self) -> int: ...
    @property
    def resamples(self) -> int: ...
    @property
    def position(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def fraction(self) -> float: ...
    @property
    def elapsed(self) -> float: ...
    @property
    def remaining(self) -> float | None: ...


class Event(Moment, Protocol):
    """The part of a pipeline event that names it among the others."""

    @property
    def kind(self) -> str: ...


class Finished(Protocol):
    """The part of the last event that is told."""

    @property
    def elapsed(self) -> float: ...
    @property
    def seed(self) -> int: ...


def stage_name(stage: int, stages: int) -> str:
    """Plain name of a stage; `stage` counts down from `stages` (coarsest) to 1 (finest)."""
    if stages == 1:
        return "picture"
    if stage == stages:
        return "coarse"
    return "fine" if stage == 1 else f"finer {stages - stage}"


def stage_line(event: Moment) -> str:
    """Which stage is running, as a person counts: the coarsest is the first."""
    number = event.stages - event.stage + 1
    return f"Stage {number} of {event.stages} ({stage_name(event.stage, event.stages)})"


def stage_caption(event: Event) -> str | None:
    """Name of what ends at this event, for the strip of stages; None on the way."""
    if event.kind == "preview":
        return None
    if event.kind == "start":
        return "noise" if event.stage == event.stages else "start"
    name = stage_name(event.stage, event.stages)
    return name if event.resamples == 1 else f"{name}, pass {event.resample_index + 1}"


def step_caption(event: Event) -> str:
    """A step of a run in words, for the one who looks at it again."""
    name = stage_caption(event)
    if event.kind == "start":
        return "Before the first token"
    if event.kind == "result":
        return "The result"
    if name is not None:
        return f"{name[0].upper()}{name[1:]} done"
    return f"{stage_line(event)}, pass {event.resample_index + 1}: {event.position} of {event.total} tokens"


def time_line(event: Moment) -> str:
    """Time gone, and time left where that is known."""
    time = f"{event.elapsed:.1f} s"
    return time if event.remaining is None else f"{time}, about {event.remaining:.1f} s left"


def place_line(event: Moment) -> str:
    """How far a run is: tokens, and stage and pass where there are several."""
    said = [f"{event.position} of {event.total} tokens"]
    if event.resamples > 1:
        said.insert(0, f"pass {event.resample_index + 1} of {event.resamples}")
    if event.stages > 1:
        said.insert(0, stage_line(event))
    return " · ".join(said)


def progress_line(event: Moment) -> str:
    """One line: how far, time gone and time left."""
    return f"{place_line(event)} · {time_line(event)}"


def progress_html(event: Moment) -> str:
    """The progress line above a bar that screen readers know as one."""
    percent = round(100 * min(1.0, max(0.0, event.fraction)))
    line = escape(progress_line(event))
    return (
        f'<div class="ib-progress" role="progressbar" aria-label="Progress" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{percent}" aria-valuetext="{line}">'
        f'<span class="ib-line"><span>{escape(place_line(event))}</span><span>{escape(time_line(event))}</span></span>'
        f'<span class="ib-track"><span class="ib-fill" style="width:{percent}%"></span></span></div>'
    )


def waiting_html() -> str:
    """Before the first event: the bar is there, so that the page does not jump."""
    return (
        '<div class="ib-progress"><span class="ib-line">Waiting for the model …</span>'
        '<span class="ib-track"><span class="ib-fill" style="width:0%"></span></span></div>'
    )


def done_html(event: Finished) -> str:
    """After the last event."""
    line = f"Done in {event.elapsed:.1f} s · seed {event.seed}"
    return (
        f'<div class="ib-progress"><span class="ib-line">{escape(line)}</span>'
        '<span class="ib-track"><span class="ib-fill" style="width:100%"></span></span></div>'
    )


def problem_html(sentence: str) -> str:
    """A sentence about what went wrong."""
    return f'<p class="ib-message ib-problem">{escape(sentence)}</p>'


def notes_html(notes: Sequence[str]) -> str:
    """What the person should know about this run; empty where there is nothing."""
    return "".join(f'<p class="ib-message ib-note">{escape(note)}</p>' for note in notes)


def told_to_stay(told: str) -> str:
    """What the model is told where nobody painted: the words, and all that is to stay."""
    return f'What is to stay was told as well: "{told}".'


def said_html(sentence: str) -> str:
    """A sentence for screen readers only."""
    return f"<span>{escape(sentence)}</span>"


def words_html(words: Sequence[str]) -> str:
    """A model's vocabulary as a cloud of words."""
    return '<p class="ib-words">' + " ".join(f"<span>{escape(word)}</span>" for word in words) + "</p>"


def model_summary(knows: str, side: int, grid: int, stages: int) -> str:
    """One line on a model: what it knows, and its sizes."""
    sizes = f"{side} × {side} pixels · {grid} × {grid} tokens · {stages} stage{'' if stages == 1 else 's'}"
    return f"knows {knows} only · {sizes}" if knows else sizes


HEADING = (
    '<header class="ib-heading"><h1>ImageBART in the browser</h1>'
    "<p>Paint over a part of a picture, say what should be there, and watch it appear.</p></header>"
)


def opening(card: str) -> str:
    """The first words of a model's card, in Markdown: its title and what follows, up to the next heading or table."""
    kept: list[str] = []
    for block in card.split("\n\n"):
        title = block.startswith("#")
        if kept and (title or block.startswith("|")) or sum(map(len, kept)) + len(block) > LONGEST_OPENING:
            break
        kept.append(block)
    return "\n\n".join(kept)


def model_html(name: str, summary: str) -> str:
    """Which model is loaded."""
    return f'<p class="ib-model">Model <b>{escape(name)}</b> · {escape(summary)}</p>'


def lexicon_html(words: Sequence[str]) -> str:
    """The words that a model knows, for the script that marks the others; nothing to see."""
    return f'<span hidden data-words="{escape(json.dumps(list(words)))}"></span>'


def suggestions_html(suggestions: Mapping[str, Sequence[str]]) -> str:
    """Words to add to the prompt, a fold for each attribute; the page's script opens folds and adds words."""
    if not suggestions:
        return ""
    tabs, groups = [], []
    for number, (attribute, words) in enumerate(suggestions.items()):
        tabs.append(
            f'<button type="button" class="ib-chip ib-tab" aria-expanded="false" aria-controls="suggest-{number}">'
            f"{escape(attribute)}</button>"
        )
        chips = "".join(
            f'<button type="button" class="ib-chip" aria-pressed="false" data-add="{escape(word)}">'
            f"{escape(word)}</button>"
            for word in words
        )
        label = f'role="group" aria-label="{escape(attribute)}"'
        groups.append(f'<div class="ib-chips" id="suggest-{number}" {label} hidden>{chips}</div>')
    head = f'<div class="ib-chips" role="group" aria-label="Suggestions by what they describe">{"".join(tabs)}</div>'
    return head + "".join(groups)


def shared(other_model: str | None) -> str:
    """What was read from a link."""
    text = "This link's picture, words, seed and settings are set. Press Edit to draw what it was made of."
    return text if other_model is None else f"{text} It was made with another model: {other_model}."


def restored(other_model: str | None) -> str:
    """What was read from a picture that this page made."""
    text = "This picture was made here: its prompt, seed and settings are set again."
    return text if other_model is None else f"{text} It was made with another model: {other_model}."
