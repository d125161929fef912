"""A tiny random model, so that tests and the page's development take seconds: 32 x 32 pixels, 8 x 8 tokens."""

from __future__ import annotations

import torch

from imagebart.conditioning import ClassConditioner, Conditioner, Kind, NoConditioner, TextConditioner
from imagebart.diffusion import Schedule
from imagebart.first_stage import FirstStage, FirstStageConfig
from imagebart.model import About, ImageBART
from imagebart.pipeline import Pipeline
from imagebart.stage import StageConfig, build_stage
from imagebart.text_encoder import TextEncoderConfig
from imagebart.transformer import TransformerConfig

SUGGESTIONS = {"hair": ("red hair",), "glasses": ("round glasses", "sunglasses"), "clothes": ("a blue hoodie",)}
SLOTS = 3  # vectors that stand for a prompt
CAPTIONS = ("a man with round glasses, sunglasses and red hair", "a woman with a hat and a blue hoodie")


def tiny_conditioner(kind: Kind) -> Conditioner:
    """A conditioner of a kind: some words, three classes, or none."""
    if kind == "text":
        return TextConditioner.from_captions(CAPTIONS, length=16)
    if kind == "class":
        return ClassConditioner(("cat", "dog", "bird"))
    return NoConditioner()


def tiny_model(conditioning: Kind = "text", stages: int = 2, seed: int = 0) -> ImageBART:
    """A random model of two or more stages: decoder-only at T, the others aligned. The global RNG is left alone."""
    first = FirstStageConfig(
        resolution=32,
        channels=32,
        multipliers=(1, 1),
        res_blocks=1,
        attention_resolutions=(),
        latent_channels=32,
        code_dim=8,
        codebook_size=24,
        fold=2,
        unit_codes=True,
    )
    tokens = (first.resolution // first.downsampling) ** 2
    conditioner = tiny_conditioner(conditioning)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        schedule = Schedule.geometric(stages)
        built = [
            build_stage(tiny_stage_config(t, schedule, first.vocab_size, tokens, conditioner), stages)
            for t in range(1, stages + 1)
        ]
        for name, parameter in (named for stage in built for named in stage.named_parameters()):
            # So that logits differ clearly, with the prompt above all.
            torch.nn.init.normal_(parameter, std=1.0 if name.startswith("text") else 0.3)
        about = About("tiny", "nothing", suggestions=SUGGESTIONS if conditioning == "text" else {})
        return ImageBART(FirstStage(first), built, schedule, conditioner, about)


def tiny_stage_config(
    t: int, schedule: Schedule, vocab_size: int, tokens: int, conditioner: Conditioner
) -> StageConfig:
    """Stage t of a tiny model."""
    text = None
    if conditioner.kind == "text":
        words = TransformerConfig(
            24, 1, 2, conditioner.vocab_size + SLOTS, conditioner.length + SLOTS, 12, causal=False
        )
        text = TextEncoderConfig(words, SLOTS, phrase=3)
    prefix = conditioner.length if text is None else SLOTS
    vocab = vocab_size + (conditioner.vocab_size if text is None else SLOTS)
    positions = 1 + prefix + tokens
    decoder = TransformerConfig(32, 1, 2, vocab, positions, 16, vocab_out=vocab_size, cross=t < schedule.stages)
    encoder = TransformerConfig(32, 1, 2, vocab, positions, 16, causal=False)
    return StageConfig(
        kind="aligned" if t < schedule.stages else "decoder_only",
        t=t,
        vocab_size=vocab_size,
        tokens=tokens,
        beta=schedule.betas[t - 1],
        decoder=decoder,
        encoder=encoder if t < schedule.stages else None,
        cond_length=conditioner.length,
        cond_offset=vocab_size,
        text=text,
    )


def tiny_pipeline(conditioning: Kind = "text", stages: int = 2) -> Pipeline:
    """A pipeline around a tiny random model."""
    return Pipeline(tiny_model(conditioning, stages))
