"""The page: its layout and looks, its scripts, which action belongs to which event, and the server that it runs on."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import cache, partial
from importlib.resources import files
from inspect import isgeneratorfunction
from pathlib import Path
from threading import Thread
from typing import Any

import gradio as gr
from anyio import CapacityLimiter
from gradio.utils import get_upload_folder

from imagebart.ui import FOLDER_NAME, MAX_RUN_SECONDS, messages
from imagebart.ui.actions import RESTORED, TASKS, UPDATED, Actions, answering, failed, waiting
from imagebart.ui.controls import BASIC, MAX_IMAGES, NAMES, RESET, SLIDERS, Slider, no_request, starting_values
from imagebart.ui.files import MAX_FILE, animate, compose, expand, link_token, open_image, open_mask, tidy_forever
from imagebart.ui.models import Models, model_properties

MAX_QUEUE = 48  # runs that wait at once; further ones are told that the server is busy
MODEL_QUEUE = "model"  # all that use the model take turns
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
AT_ONCE: dict[str, Any] = {**PRIVATE, "show_progress": "hidden", "queue": False}

# What the browser does by itself, see sketchpad/run.js.
RUN_NAME = "document.documentElement.dataset.runName"
WITH_RUN_NAME = f"(sketchpad, ...values) => [{{ ...sketchpad, run: {RUN_NAME} }}, ...values]"
RUN_OVER = "() => imagebart.send('run_over', true)"
RUN_FAILED = f"() => {{ imagebart.send('run', {{ ended: {RUN_NAME} }}); imagebart.send('run_over', true); }}"
SEND_CONTROLS = (
    f'(...values) => imagebart.send("controls", Object.fromEntries({json.dumps(NAMES)}'
    ".map((name, i) => [name, values[i]])))"
)

IMPORT = re.compile(r"^import \{([^}]*)\} from \"\./([\w-]+)\.js\";$", re.MULTILINE)
EXPORT = re.compile(r"^export (?:const|class) (\w+)", re.MULTILINE)


# Folds both parts of the settings once they are there. In a part that begins folded, Gradio gives fields their first
# values again some frames after they came, and what somebody wrote meanwhile is lost
# (`render_previously_invisible_children`).
FOLD = """() => {
  document.documentElement.dataset.folded = "";
  return [{ __type__: "update", open: false }, { __type__: "update", open: false }];
}"""

Parts = dict[str, Any]  # components by name
Properties = Mapping[str, Mapping[str, Any]]  # of components, by their names


def build_page(models: Models, max_run_seconds: float = MAX_RUN_SECONDS) -> gr.Blocks:
    """The page, opened on the first model and its first example. See `launch_page`."""
    from imagebart.ui.endpoints import add_endpoints  # for other programs: nothing on the page goes through them

    pipeline = models.first
    properties = model_properties(pipeline)
    actions = Actions(models, max_run_seconds)
    # What uses the model takes turns; large images in memory at a time are few.
    one, few = CapacityLimiter(1), CapacityLimiter(4)
    functions = [answering(call, one) for call in (actions.fit, actions.select, actions.describe, actions.recognize)]
    calls = (actions.check_prompt, open_image, open_mask, link_token, compose, animate, expand)
    functions += [answering(call, few) for call in calls]

    async def stop(run: str) -> None:
        actions.cancel(run)  # at once, in no thread, of which none may be free

    values = starting_values(pipeline)
    with gr.Blocks(title=messages.TITLE, analytics_enabled=False) as page:
        # First, because later events whose functions have the same names get other names.
        add_endpoints(pipeline, MODEL_QUEUE, max_run_seconds)
        parts = add_heading(models.choices())
        with gr.Row(elem_id="desk"):
            with gr.Column(min_width=300, elem_id="left"):
                controls = no_request(pipeline) | values
                parts["sketchpad"] = add_sketchpad(models.examples(pipeline.name), controls, [*functions, stop])
            with gr.Column(min_width=300, elem_id="right"):
                parts |= add_prompt_and_buttons(properties)
                parts |= add_settings(values, properties)
                parts |= add_about(properties)
        parts |= {name: add_channel(name) for name in ("run", "examples", "random_prompt")}
        parts |= {"link": add_receiver("open_link"), "made": add_receiver("restore_settings")}
        _connect_runs(parts, actions)
        _connect_sketchpad(parts, actions)
        _connect_model(parts, actions, tuple(properties), page)
        page.load(None, None, [parts["settings"], parts["advanced"]], js=FOLD, **AT_ONCE)
    page.queue(max_size=MAX_QUEUE)
    return page


def connect(
    parts: Parts,
    event: Callable[..., Any],
    action: Callable[..., Any],
    inputs: Sequence[str],
    outputs: Sequence[str],
    **options: Any,
) -> Any:
    """Connects an event to an action.

    action: takes the values of `inputs` by name, and returns an update: new values of some of `outputs` by name. A
    generator yields updates.
    """

    def updates(update: Mapping[str, Any]) -> Any:
        return {parts[name]: value for name, value in update.items()} or gr.skip()

    def call(*values: Any) -> Any:
        return updates(action(**dict(zip(inputs, values, strict=True))))

    def stream(*values: Any) -> Any:
        with closing(action(**dict(zip(inputs, values, strict=True)))) as moments:
            yield from map(updates, moments)

    function = stream if isgeneratorfunction(action) else call
    return event(function, [parts[name] for name in inputs], [parts[name] for name in outputs], **options)


def _connect_runs(parts: Parts, actions: Actions) -> None:
    for task in TASKS:
        click = parts[task].click
        # The browser updates the page by itself at the click, though the model may be busy for a while.
        _update_in_browser(parts, click, waiting())
        # The values are read at the very click, so nothing may come before it.
        started = connect(
            parts,
            click,
            partial(actions.run, task),
            ("sketchpad", *NAMES),
            UPDATED,
            js=WITH_RUN_NAME,
            concurrency_id=MODEL_QUEUE,
            concurrency_limit=1,
            show_progress="minimal",
            show_progress_on=parts["progress"],
            **PRIVATE,
        )
        # A run is not over with its last update: until Gradio has heard of the end, it drops a click.
        started.success(None, None, None, js=RUN_OVER, **AT_ONCE)
        started.failure(None, None, None, js=RUN_FAILED, **AT_ONCE)
        _update_in_browser(parts, started.failure, failed(messages.SERVER_BUSY))


def _update_in_browser(parts: Parts, event: Callable[..., Any], update: Mapping[str, Any]) -> None:
    values = json.dumps(list(update.values()))
    event(None, None, [parts[name] for name in update], js=f"() => {values}", **AT_ONCE)


def _connect_sketchpad(parts: Parts, actions: Actions) -> None:
    values = [parts[name] for name in NAMES]
    gr.on([part.change for part in values], None, values, None, js=SEND_CONTROLS, **AT_ONCE)
    restored = (*RESTORED, "messages")
    connect(parts, parts["made"].input, actions.restore_settings, ("made", "model"), restored, **AT_ONCE)
    opened = (*(name for name in NAMES if name != "model"), "messages")
    connect(parts, parts["link"].input, actions.open_link, ("link", "model"), opened, **AT_ONCE)


def _connect_model(parts: Parts, actions: Actions, shown: Sequence[str], page: gr.Blocks) -> None:
    model = ("model",)
    # Models may have come since the server started.
    connect(parts, page.load, actions.list_models, (), model, **AT_ONCE)

    def switch(name: str, _: gr.Progress = gr.Progress(track_tqdm=True)) -> Any:  # noqa: B008
        """Another model, with the progress of its download if it is not here."""
        return {parts[part]: value for part, value in actions.switch_model(name).items()}

    parts["model"].input(
        switch,
        parts["model"],
        [parts[name] for name in dict.fromkeys(("model", "examples", *shown, *RESET))],
        show_progress_on=parts["model"],
        concurrency_limit=None,  # a download holds up nobody
        **PRIVATE,
    )
    connect(parts, parts["reset"].click, actions.reset_settings, model, RESET, **AT_ONCE)
    connect(parts, parts["surprise"].click, actions.surprise, model, ("random_prompt", "choice"), **AT_ONCE)
    # The seed's field shows what the last run used.
    connect(parts, parts["reuse_seed"].click, lambda: {"new_seed": False}, (), ("new_seed",), **AT_ONCE)


def launch_page(page: gr.Blocks, **options: Any) -> tuple[Any, str, str]:
    """Launches a page made by `build_page`. `options` go to `Blocks.launch` (server_name, server_port, ...)."""
    folder = Path(get_upload_folder())
    if folder.name.startswith(FOLDER_NAME):  # another one may be shared with other programs
        Thread(target=tidy_forever, args=(folder,), daemon=True).start()
    return page.launch(
        theme=theme(),
        css=_read("page.css"),
        head=f"<script>{_read('channel.js')}</script>",
        max_file_size=MAX_FILE,
        share=False,
        ssr_mode=False,
        run_history=False,
        footer_links=["api"],
        enable_monitoring=False,
        state_session_capacity=64,  # each takes 40 KB, and each call by a client is one; the page keeps no state in it
        **options,
    )


# A list of the system's own, as Gradio has none. Its value is the name of a model, its choices are titles with names.
MODEL_LIST = """
const list = element.querySelector("select");
const show = () => {
  list.replaceChildren(...props.choices.map(([title, name]) => new Option(title, name)));
  list.value = props.value;
  element.hidden = props.choices.length < 2;
};
list.addEventListener("change", () => {
  props.value = list.value;
  trigger("input");
});
watch(["value", "choices"], show);
show();
"""


def add_heading(models: list[tuple[str, str]]) -> Parts:
    with gr.Row(elem_id="top"):
        gr.HTML(messages.HEADING, elem_id="heading")
        html = '<label class="ib-model"><span class="ib-long">Model</span><select aria-label="Model"></select></label>'
        model = gr.HTML(models[0][1], html_template=html, js_on_load=MODEL_LIST, choices=models, elem_id="model")
        gr.HTML(messages.OPEN, elem_id="open")
    return {"model": model}


def add_prompt_and_buttons(properties: Properties) -> Parts:
    """What is done, the prompt, the buttons of runs and their progress: on a phone always within reach."""
    label: dict[str, Any] = {"label": "What should be there?", "show_label": False, "container": False}
    small: dict[str, Any] = {"size": "sm", "min_width": 110}
    parts: Parts = {}
    with gr.Column(elem_id="dock"):
        gr.HTML(_read("sketchpad/modes.html"), elem_id="modes", apply_default_css=False)
        with gr.Row(elem_id="ask"):
            parts["words"] = gr.Textbox(max_lines=3, elem_id="prompt", **label, **properties["words"])
            parts["choice"] = gr.Dropdown(
                multiselect=True, max_choices=MAX_IMAGES, elem_id="choice", **label, **properties["choice"]
            )
        with gr.Row(elem_id="actions"):  # one main button at any moment, see page.css
            gr.Button("Keep", variant="primary", min_width=80, elem_id="keep")
            gr.Button("Discard", min_width=80, elem_id="discard")
            parts["edit"] = gr.Button("Edit", variant="primary", min_width=80, elem_id="edit")
            parts["vary"] = gr.Button("Vary", elem_id="vary", **properties["vary"])  # pressed by Edit, see modes.js
            parts["cancel"] = gr.Button("Cancel", variant="stop", min_width=80, elem_id="cancel")
        parts |= {name: gr.HTML(elem_id=name) for name in ("progress", "announcement")}
        with gr.Column(elem_id="notes"):
            parts["messages"] = gr.HTML(elem_id="messages")
            gr.HTML(_read("sketchpad/prompt_check.html"))
    with gr.Row(elem_id="others"):
        parts["surprise"] = gr.Button("Surprise me", elem_id="surprise", **small, **properties["surprise"])
        parts["generate"] = gr.Button("New image", elem_id="generate", **small)
    return parts


def add_settings(values: Mapping[str, Any], properties: Properties) -> Parts:
    """The words that the model knows; how many images, the seed and the sliders, at these values, those that few need
    further in; to be folded by FOLD.
    """
    parts: Parts = {}
    with gr.Accordion("Words this model knows", open=False, elem_id="words"):
        parts["vocabulary"] = gr.HTML(**properties["vocabulary"])
    with gr.Accordion("Settings", elem_id="settings") as parts["settings"]:
        parts["variants"] = gr.Radio(range(1, MAX_IMAGES + 1), value=1, label="Images at once", elem_id="how-many")
        parts["best_first"] = gr.Checkbox(
            label="Best first",
            info="The images that match your words best come first.",
            elem_id="best-first",
            **properties["best_first"],
        )
        for slider in SLIDERS[:BASIC]:
            _add_slider(parts, slider, values, properties)
        with gr.Row():
            parts["seed"] = gr.Number(
                value=values["seed"],
                precision=0,
                label="Seed",
                info="The same seed, image, mask and words give the same result.",
                elem_id="seed",
            )
            with gr.Column(min_width=160):
                parts["new_seed"] = gr.Checkbox(
                    values["new_seed"], label="New seed each time", info="Off: the seed stays.", elem_id="new-seed"
                )
                parts["reuse_seed"] = gr.Button("Keep the last seed", size="sm", elem_id="reuse-seed")
        parts["exact"] = gr.Checkbox(
            values["exact"],
            label="Only what I painted",
            info="Off: what you paint is fitted to your words, as the outline shows.",
            elem_id="exact",
        )
        with gr.Accordion("Advanced", elem_id="advanced") as parts["advanced"]:
            for slider in SLIDERS[BASIC:]:
                _add_slider(parts, slider, values, properties)
        parts["reset"] = gr.Button("Reset the settings", size="sm", elem_id="reset")
    return parts


def _add_slider(parts: Parts, slider: Slider, values: Mapping[str, Any], properties: Properties) -> None:
    options = {**slider._asdict(), **properties.get(slider.name, {})}
    name = options.pop("name")
    parts[name] = gr.Slider(value=values[name], elem_id=name.replace("_", "-"), **options)


def add_about(properties: Properties) -> Parts:
    with gr.Accordion("About this model", open=False, elem_id="card"):
        card = gr.Markdown(**properties["card"])
    gr.HTML(_read("sketchpad/history.html"), apply_default_css=False)
    return {"card": card}


def add_sketchpad(
    examples: list[dict[str, Any]], controls: Mapping[str, Any], functions: list[Callable[..., Any]]
) -> gr.HTML:
    """The sketchpad. Nothing is ever sent back into its value, so that no answer overwrites what was painted.

    controls: the first values of what it sends with its questions. functions: those of the server that it may call by
    name. (A class derived from `gr.HTML` would not do: Gradio writes a file of stubs beside its source.)
    """
    start = "new sketchpad.Sketchpad(element.firstElementChild, props, server, upload);"
    return gr.HTML(
        {},
        html_template=_read("sketchpad/template.html"),
        js_on_load="\n".join(['"use strict";', *scripts().values(), start]),
        apply_default_css=False,
        server_functions=functions,
        elem_id="sketchpad",
        examples=examples,
        controls=controls,
        max_file=MAX_FILE,
    )


def add_channel(name: str) -> gr.HTML:
    """A hidden part whose value, any JSON, is sent to the page's scripts as the message `name`: see channel.js.

    Each message has a part of its own: a part holds its last value only, and two messages may come at the same moment.
    """
    return _add_hidden(name, f"watch('value', () => props.value && imagebart.send('{name}', props.value));")


def add_receiver(name: str) -> gr.HTML:
    """A hidden part whose value is what the page's scripts last sent as the message `name`; its event is `input`."""
    return _add_hidden(name, f"imagebart.on('{name}', (value) => {{ props.value = value; trigger('input'); }});")


def _add_hidden(name: str, js: str) -> gr.HTML:
    return gr.HTML(html_template="<span></span>", js_on_load=js, elem_classes="sp-channel", elem_id=f"channel-{name}")


@cache
def scripts(name: str = "sketchpad") -> dict[str, str]:
    """A module and before it those that it imports, by their names, each as a script in a scope of its own.

    Together they are one script, so that the page asks for no further file.
    """
    source = _read(f"sketchpad/{name}.js")
    found: dict[str, str] = {}
    for _, imported in IMPORT.findall(source):
        found |= scripts(imported)
    body = EXPORT.sub(lambda export: export[0].removeprefix("export "), IMPORT.sub(r"const {\1} = \2;", source))
    given = ", ".join(EXPORT.findall(source))
    return found | {name: f"const {name} = (() => {{\n{body}\nreturn {{ {given} }};\n}})();"}


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def theme() -> gr.themes.Base:
    """Quiet surfaces, one strong color, and the system's own fonts, so that nothing is fetched."""
    return gr.themes.Base(
        primary_hue="violet",
        secondary_hue="violet",
        neutral_hue="slate",
        radius_size="lg",
        font=("system-ui", "sans-serif"),
        font_mono=("ui-monospace", "monospace"),
    ).set(
        body_background_fill="*neutral_50",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_title_text_color="*neutral_700",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_transition="none",  # at once: half way between two states a label is hard to read
        input_background_fill="white",
        input_background_fill_dark="*neutral_900",
        input_border_width="1px",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )
