"""Reads scaleN.yaml, the original's configuration of a stage, as data: the classes it names are only compared."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from imagebart.conditioning import Kind
from imagebart.config import from_dict
from imagebart.models.first_stage import FirstStageConfig
from imagebart.weights.description import Description, encoder_decoder, gpt, vqgan
from imagebart.weights.errors import WeightsError, shown

R = TypeVar("R")

LARGEST = 100_000  # bytes; the published ones have a few thousand

ENCODER_DECODER = "imagebart.models.diffusion.DenoisingXTransformer"
DECODER_ONLY = "imagebart.models.diffusion.DecoderOnlyDenoiser"
PLAIN = "imagebart.modules.xtransformers.x_transformer.XTransformer"
RESIDUAL = "imagebart.modules.xtransformers.x_transformer.ResidualScaledXTransformer"
GPT = "imagebart.modules.transformer.mingpt.GPT"
VQGAN = "imagebart.models.vqgan.VQGANWrapper"
CONDITIONERS: dict[str, Kind] = {  # by what makes their tokens
    "imagebart.util.ClassProvider": "class",
    "imagebart.util.BasicTokenizer": "text",
}

# Settings with the only value that the published models have, so that our modules compute the same.
FIXED = {
    "wrap_decoder": False,
    "tie_token_emb": False,
    "scale_pos": 0,
    "double_z": False,
    "in_channels": 3,
    "out_ch": 3,
}
# Settings without effect on what is computed: sizes given elsewhere, training, and the last, which the original's
# VQGAN accepts and ignores.
WITHOUT_EFFECT = {"n_scales", "xt_start", "xt_size", "embd_pdrop", "resid_pdrop", "attn_pdrop", "dropout", "tanh_out"}


def read_description(path: Path) -> Description:
    """The stage that a scaleN.yaml describes; raises WeightsError naming the file and what is wrong in it."""
    try:
        content = _plain_yaml(path)
        found = _description(_get(content, "model", "params"), _get(content, "model", "target"))
        return from_dict(Description, asdict(found))  # which knows what range each number has
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise WeightsError(f"{path} is no plain YAML: {' '.join(str(error).split())}") from error
    except Exception as error:  # whatever a file holds
        reason = " ".join(str(error).split())[:600] or type(error).__name__
        raise WeightsError(f"{path} cannot be used: {reason}") from error


def _plain_yaml(path: Path) -> Any:
    if path.stat().st_size > LARGEST:
        raise ValueError(f"it has {path.stat().st_size:,} bytes, expected at most {LARGEST:,}")
    text = path.read_text(encoding="utf-8")
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
        raise ValueError("it repeats parts of itself (*), which no published one does")  # and which grow without end
    return yaml.safe_load(text)


def _description(params: Any, target: Any) -> Description:
    network, kind = _get(params, "transformer_config", "params"), _get(params, "transformer_config", "target")
    conditioning = _conditioning(params.get("conditioner_config"))
    if (target, kind) == (DECODER_ONLY, GPT):
        decoder = _call(gpt, network)
        first = _first_stage(params, decoder.vocab_out)
        return Description(first, "decoder_only", decoder, None, conditioning)
    if target == ENCODER_DECODER and kind in (PLAIN, RESIDUAL):
        encoder, decoder = _call(encoder_decoder, network)
        first = _first_stage(params, decoder.vocab_out)
        return Description(first, "residual" if kind == RESIDUAL else "encoder_decoder", decoder, encoder, conditioning)
    raise ValueError(
        f"the model is {shown(target)} with {shown(kind)}, expected {ENCODER_DECODER} with {PLAIN} or {RESIDUAL}, "
        f"or {DECODER_ONLY} with {GPT}"
    )


def _conditioning(conditioner: Any) -> Kind:
    if conditioner is None:
        return "none"
    target = _get(conditioner, "target")
    if target not in CONDITIONERS:
        raise ValueError(f"the conditioner is {shown(target)}, expected none, {' or '.join(CONDITIONERS)}")
    return CONDITIONERS[target]


def _first_stage(params: Any, vocab_size: int | None) -> FirstStageConfig:
    if _get(params, "first_stage_config", "target") != VQGAN:
        raise ValueError(f"the first stage is {shown(params['first_stage_config']['target'])}, expected {VQGAN}")
    values = _get(params, "first_stage_config", "params")
    settings = {**_get(values, "ddconfig"), "embed_dim": _get(values, "embed_dim"), "n_embed": _get(values, "n_embed")}
    # Which codes are used is in the checkpoint; how many, in the size of the transformer's vocabulary.
    return replace(_call(vqgan, settings), used_codes=vocab_size if values.get("remap") else None)


def _get(values: Any, *keys: str) -> Any:
    """What lies under these keys; raises ValueError where it is not there."""
    for i, key in enumerate(keys):
        if not isinstance(values, Mapping) or key not in values:
            raise ValueError(f"it lacks {'.'.join(keys[: i + 1])}")
        values = values[key]
    return values


def _call(function: Callable[..., R], settings: Any) -> R:
    """Calls one of our functions with the settings it knows; raises ValueError for missing, odd or unknown ones."""
    if not isinstance(settings, Mapping):
        raise ValueError(f"{shown(settings)} stands for settings, expected names with values")
    known = inspect.signature(function).parameters
    arguments = {}
    for name, value in settings.items():
        if name in FIXED:
            if value != FIXED[name]:
                raise ValueError(f"{name} is {shown(value)}, expected {FIXED[name]!r}")
        elif name in known:
            numbers = value if isinstance(value, list) else [value]
            lists = "list" in str(known[name].annotation)
            if lists != isinstance(value, list) or not all(type(n) is int and n >= 0 for n in numbers):
                raise ValueError(f"{name} is {shown(value)}, expected {'whole numbers' if lists else 'a whole number'}")
            arguments[name] = value
        elif name not in WITHOUT_EFFECT:
            raise ValueError(f"it has the unknown setting {shown(name)}")
    missing = [n for n, p in known.items() if p.default is inspect.Parameter.empty and n not in arguments]
    if missing:
        raise ValueError(f"it lacks the setting {missing[0]}")
    return function(**arguments)
