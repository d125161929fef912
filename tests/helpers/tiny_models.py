"""Tiny random models, with which tests take seconds: 32 x 32 pixels, 8 x 8 tokens."""

import json
from collections.abc import Sequence
from pathlib import Path
from shutil import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from imagebart.core.settings import SamplingSettings
from imagebart.imaging.files import normalize
from imagebart.model import ImageBART
from imagebart.models.denoiser import Denoiser, DenoiserConfig, Stage, StageConfig
from imagebart.models.diffusion import Schedule
from imagebart.models.imagebart import About
from imagebart.models.transformer import TextEncoderConfig, TransformerConfig
from imagebart.models.vqgan import FirstStage, FirstStageConfig
from imagebart.pipeline import Pipeline
from imagebart.text.conditioners import ClassConditioner, Conditioner, Kind, NoConditioner, TextConditioner
from imagebart.worlds.attribute_classifier import CaptionReader, save_heads
from imagebart.worlds.avatars import VALUES, Attributes
from imagebart.worlds.ranking import ATTRIBUTE_CLASSIFIER

SUGGESTIONS = {"hair": ("red hair",), "glasses": ("round glasses", "sunglasses"), "clothes": ("a blue hoodie",)}
TOKENS = 64  # of an image
QUERY_TOKENS = 3  # vectors that stand for a prompt
CAPTIONS = ("a man with round glasses, sunglasses and red hair", "a woman with a hat and a blue hoodie")


def tiny_conditioner(kind: Kind) -> Conditioner:
    """A conditioner of a kind: some words, three classes, or none."""
    if kind == "text":
        return TextConditioner.from_captions(CAPTIONS, length=16)
    if kind == "class":
        return ClassConditioner(names=("cat", "dog", "bird"))
    return NoConditioner()


def tiny_first_stage(**settings: Any) -> FirstStageConfig:
    """The first stage of tiny models, 64 tokens of 24 codes, with other settings."""
    shape = {"resolution": 32, "channels": 32, "multipliers": (1, 1), "res_blocks": 1, "attention_resolutions": ()}
    codes = {"latent_channels": 32, "code_dim": 8, "codebook_size": 24, "pixel_unshuffle": 2, "unit_codes": True}
    return FirstStageConfig(**{**shape, **codes, **settings})


def tiny_transformer(vocab_in: int, positions: int, **settings: Any) -> TransformerConfig:
    shape = {"width": 32, "depth": 1, "heads": 2, "head_size": 16, "vocab_in": vocab_in, "positions": positions}
    return TransformerConfig(**{**shape, **settings})


def tiny_model(
    conditioning: Kind = "text",
    scales: int = 2,
    seed: int = 0,
    query_tokens: int = QUERY_TOKENS,
    color_hint_grid: int = 0,
    layers: bool = False,
) -> ImageBART:
    """A random model with a denoiser. The global RNG is left alone.

    color_hint_grid: a model of partial patches and hints of so many parts a side.
    layers: whether it draws layers.
    """
    kind = "alpha" if layers else "convolutions"
    first = tiny_first_stage(encoder="patch" if color_hint_grid else "convolutions", decoder=kind)
    conditioner = tiny_conditioner(conditioning)
    text = tiny_text(conditioner, query_tokens)
    prefix, others = (conditioner.length, conditioner.vocab_size) if text is None else (query_tokens, query_tokens)
    encoder = tiny_transformer(first.vocab_size + others + 1, 1 + prefix + TOKENS, causal=False)
    config = DenoiserConfig(
        vocab_size=first.vocab_size,
        tokens=TOKENS,
        decoder=encoder.replace(causal=True, vocab_out=first.vocab_size, cross=True),
        encoder=encoder,
        cond_length=conditioner.length,
        text=text,
        partial_patches=color_hint_grid > 0,
        color_hint_grid=color_hint_grid,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        denoiser = Denoiser(config)
        randomise(denoiser)
        suggestions = SUGGESTIONS if conditioning == "text" else {}
        about = About(name="tiny", knows="nothing", sampling=SamplingSettings(scales=scales), suggestions=suggestions)
        return ImageBART(FirstStage(first), denoiser, conditioner, about)


def tiny_staged_model(conditioning: Kind = "none", stages: int = 2, seed: int = 0) -> ImageBART:
    """A random model of stages, of the published kinds: decoder-only at T, encoder-decoders below."""
    first, conditioner, schedule = tiny_first_stage(), tiny_conditioner(conditioning), Schedule.geometric(stages)
    text = tiny_text(conditioner)
    prefix, others = (conditioner.length, conditioner.vocab_size) if text is None else (QUERY_TOKENS, QUERY_TOKENS)
    read = tiny_transformer(first.vocab_size + others, 1 + prefix + TOKENS, causal=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = []
        for t in range(1, stages + 1):
            coarsest = t == stages
            config = StageConfig(
                kind="decoder_only" if coarsest else "encoder_decoder",
                t=t,
                vocab_size=first.vocab_size,
                tokens=TOKENS,
                beta=schedule.betas[t - 1],
                decoder=read.replace(causal=True, vocab_out=first.vocab_size, cross=not coarsest),
                encoder=None if coarsest else read,
                cond_length=conditioner.length,
                cond_offset=first.vocab_size,
                text=text,
            )
            built.append(Stage(config, stages))
        for stage in built:
            randomise(stage)
        about = About(name="tiny", knows="nothing", suggestions=SUGGESTIONS if conditioning == "text" else {})
        return ImageBART(FirstStage(first), built, conditioner, about, schedule)


def randomise(network: nn.Module) -> None:
    """Gives a network weights with which logits differ clearly, with the prompt above all."""
    for name, parameter in network.named_parameters():
        nn.init.normal_(parameter, std=1.0 if name.startswith("text") else 0.3)


def tiny_text(conditioner: Conditioner, query_tokens: int = QUERY_TOKENS) -> TextEncoderConfig | None:
    """What reads a tiny model's prompts; None for other conditioning tokens."""
    if conditioner.kind != "text":
        return None
    vocab, positions = conditioner.vocab_size + query_tokens, conditioner.length + query_tokens
    words = tiny_transformer(vocab, positions, width=24, head_size=12, causal=False)
    return TextEncoderConfig(transformer=words, query_tokens=query_tokens, conv_width=3)


def tiny_pipeline(conditioning: Kind = "text", scales: int = 2) -> Pipeline:
    """A pipeline around a tiny random model with a denoiser."""
    return Pipeline(tiny_model(conditioning, scales))


def save_model_with_scorer(folder: Path) -> ImageBART:
    """Writes a tiny model with a scorer beside it: heads that say anything, and the reader of avatars."""
    from recipes.avatars import CLASSIFIER

    model = tiny_model(query_tokens=len(VALUES))
    model.save_pretrained(folder)
    torch.manual_seed(0)
    save_heads(CaptionReader(model.text), folder)
    copy(CLASSIFIER, folder / ATTRIBUTE_CLASSIFIER)
    return model


def rendered(avatars: Sequence[Attributes], size: int) -> Tensor:
    """Avatars as images float [B, 3, size, size] in [-1, 1]."""
    from recipes.avatars.artwork import render

    return normalize(torch.from_numpy(np.stack([render(avatar, size) for avatar in avatars])).permute(0, 3, 1, 2))


def save_image_classifier(folder: Path, names: Sequence[str]) -> Path:
    """Writes a small random classifier of transformers' own kinds, with its preprocessing; returns the folder."""
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(1)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], id2label=dict(enumerate(names)))
    ResNetForImageClassification(config).save_pretrained(folder)
    how = {"size": {"height": 16, "width": 16}, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.4, 0.3]}
    (folder / "preprocessor_config.json").write_text(json.dumps(how))
    return folder
