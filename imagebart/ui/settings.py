"""The advanced settings, folded away, each with a line of help."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from imagebart.settings import SamplingSettings


@dataclass(frozen=True)
class Settings:
    """The components, in the order in which `handlers.Controls` takes their values after the prompt."""

    seed: gr.Number
    new_seed: gr.Checkbox
    temperature: gr.Slider
    top_k: gr.Slider
    top_p: gr.Slider
    guidance: gr.Slider
    passes: gr.Slider
    feather: gr.Slider
    reuse: gr.Button

    def inputs(self) -> list[gr.components.Component]:
        """All but the button."""
        return [
            self.seed,
            self.new_seed,
            self.temperature,
            self.top_k,
            self.top_p,
            self.guidance,
            self.passes,
            self.feather,
        ]


def add_settings(defaults: SamplingSettings, guided: bool) -> Settings:
    """Add the settings to the page being built, at a model's `defaults`; guidance only if `guided`."""
    with gr.Accordion("Advanced settings", open=False, elem_id="settings"):
        with gr.Row():
            seed = gr.Number(
                value=0,
                precision=0,
                label="Seed",
                info="The same seed, picture, mask and words give the same result.",
                elem_id="seed",
            )
            with gr.Column(min_width=160):
                new_seed = gr.Checkbox(True, label="New seed each time", elem_id="new-seed")
                reuse = gr.Button("Keep the last seed", size="sm", elem_id="reuse-seed")
        with gr.Row():
            temperature = gr.Slider(
                0.1,
                2,
                value=defaults.temperature,
                step=0.05,
                label="Temperature",
                info="Lower is plainer, higher more surprising.",
            )
            guidance = gr.Slider(
                1,
                8,
                value=defaults.guidance,
                step=0.25,
                label="Guidance",
                info="Higher follows your words more strictly.",
                visible=guided,
            )
        with gr.Row():
            top_k = gr.Slider(
                0,
                512,
                value=defaults.top_k or 0,
                step=1,
                label="Top-k",
                info="Choose among this many likeliest tokens; 0 means all.",
            )
            top_p = gr.Slider(
                0.05,
                1,
                value=defaults.top_p or 1,
                step=0.01,
                label="Top-p",
                info="Leave out the unlikeliest tokens; 1 means none.",
            )
        with gr.Row():
            passes = gr.Slider(
                1,
                4,
                value=defaults.passes,
                step=1,
                label="Passes per stage",
                info="More passes tidy up, and take longer.",
            )
            feather = gr.Slider(
                0,
                32,
                value=4,
                step=1,
                label="Feather",
                info="Width, in pixels, of the soft seam inside the mask.",
            )
    return Settings(seed, new_seed, temperature, top_k, top_p, guidance, passes, feather, reuse)
