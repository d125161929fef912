"""The published models (CompVis, 2021): their names, addresses and networks, and where they are on this machine.

How a stage is built stands here for each published model, and otherwise in scaleN.yaml, the original's configuration,
beside its checkpoint. That file is read as data: the classes that it names are only compared.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
import yaml
from huggingface_hub import constants
from rapidfuzz import fuzz, process
from torch import nn

from imagebart.atomic_io import format_bytes
from imagebart.errors import InputError, WeightsError, format_value, reason_of
from imagebart.models.denoiser import Denoiser
from imagebart.models.stages import Kind as StageKind
from imagebart.models.stages import StageConfig, build_stage
from imagebart.models.transformer import TransformerConfig
from imagebart.models.vqgan import FirstStage, FirstStageConfig, Levels
from imagebart.settings import Depth, Factor, Heads, Length, Settings, Vocabulary, Width
from imagebart.text.conditioners import ClassConditioner, ClipTextConditioner, Conditioner, Kind, NoConditioner
from imagebart.text.tokenizer import VOCAB_SIZE as CLIP_VOCABULARY
from imagebart.weights.folder import ModelConfig, on_meta_device, open_file

CHECKPOINTS = Path("checkpoints")  # where models are installed by hand
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
MIN_SIMILARITY = 60.0  # of 100, from which on another name is offered for a wrong one


@dataclass(frozen=True)
class PublishedStage:
    """A published stage and the first stage it is for, as far as they are known without the checkpoint."""

    first_stage: FirstStageConfig
    kind: StageKind
    decoder: TransformerConfig
    encoder: TransformerConfig | None
    conditioning: Kind  # its tokens share the image tokens' embeddings

    @property
    def conditioner(self) -> Conditioner:
        """Class models know as many classes as there are embeddings, by number.

        Text models have as many tokens as their longest sequence leaves beside t and the image's. Raises ValueError
        where it leaves none.
        """
        if self.conditioning == "none":
            return NoConditioner()
        reader = self.encoder or self.decoder
        if self.conditioning == "class":
            return ClassConditioner(names=tuple(str(i) for i in range(reader.vocab_in)))
        length = reader.positions - 1 - self.first_stage.tokens
        if length < 1:
            raise ValueError(
                f"a longest sequence of {reader.positions}, expected more than t and the {self.first_stage.tokens} "
                "image tokens of a model with a text"
            )
        return ClipTextConditioner(length=length, vocab_size=min(reader.vocab_in, CLIP_VOCABULARY))

    def stage_config(self, t: int, beta: float, start_token: int) -> StageConfig:
        """Stage t, with what only the checkpoint knows: beta_t and the decoder's start token."""
        assert self.decoder.vocab_out is not None
        return StageConfig(
            kind=self.kind,
            t=t,
            vocab_size=self.decoder.vocab_out,
            tokens=self.first_stage.tokens,
            beta=beta,
            decoder=self.decoder,
            encoder=self.encoder,
            cond_length=self.conditioner.length,
            start_token=start_token,
        )


# The original's networks, by the names of its settings.


class VQGANSettings(Settings):
    """A published first stage, with all its codes in use."""

    resolution: Width
    ch: Width
    ch_mult: Levels
    num_res_blocks: Factor
    attn_resolutions: tuple[Width, ...]
    z_channels: Width
    embed_dim: Width
    n_embed: Vocabulary

    def config(self) -> FirstStageConfig:
        return FirstStageConfig(
            resolution=self.resolution,
            channels=self.ch,
            multipliers=self.ch_mult,
            res_blocks=self.num_res_blocks,
            attention_resolutions=self.attn_resolutions,
            latent_channels=self.z_channels,
            code_dim=self.embed_dim,
            codebook_size=self.n_embed,
        )


class EncoderDecoderSettings(Settings):
    """A published encoder-decoder stage; heads have size 64 whatever the width."""

    dim: Width
    enc_num_tokens: Vocabulary
    enc_depth: Depth
    enc_heads: Heads
    enc_max_seq_len: Length
    dec_num_tokens: Vocabulary
    dec_depth: Depth
    dec_heads: Heads
    dec_max_seq_len: Length

    def encoder(self) -> TransformerConfig:
        return TransformerConfig(
            width=self.dim,
            depth=self.enc_depth,
            heads=self.enc_heads,
            vocab_in=self.enc_num_tokens,
            positions=self.enc_max_seq_len,
            causal=False,
        )

    def decoder(self) -> TransformerConfig:
        vocab, positions = self.dec_num_tokens, self.dec_max_seq_len
        return TransformerConfig(
            width=self.dim,
            depth=self.dec_depth,
            heads=self.dec_heads,
            vocab_in=vocab,
            positions=positions,
            vocab_out=vocab,
            cross=True,
        )


class GPTSettings(Settings):
    """The decoder-only transformer of a published coarsest stage."""

    vocab_size: Vocabulary
    block_size: Length
    n_layer: Depth
    n_head: Heads
    n_embd: Width
    input_vocab_size: Vocabulary | None = None
    n_unmasked: Length = 0

    def decoder(self) -> TransformerConfig:
        return TransformerConfig(
            width=self.n_embd,
            depth=self.n_layer,
            heads=self.n_head,
            vocab_in=self.input_vocab_size or self.vocab_size,
            positions=self.block_size,
            head_size=self.n_embd // self.n_head,
            vocab_out=self.vocab_size,
            unmasked=self.n_unmasked,
            attention_bias=True,
            head_bias=False,
        )


# scaleN.yaml.


MAX_YAML_BYTES = 30_000  # the published ones have a few thousand
MAX_YAML_DEPTH = 20  # of lists and mappings in each other, which take a parser long; the published ones have 6
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


def read_stage_yaml(path: Path) -> PublishedStage:
    """The stage that a scaleN.yaml describes; raises WeightsError naming the file and what is wrong in it."""
    try:
        with open_file(path) as file:
            text = file.read(MAX_YAML_BYTES + 1).decode()
        if len(text) > MAX_YAML_BYTES:
            raise ValueError(f"it has {path.stat().st_size:,} bytes, expected at most {MAX_YAML_BYTES:,}")
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_YAML_DEPTH:
                raise ValueError(f"it nests more than {MAX_YAML_DEPTH} lists and mappings")
            if isinstance(event, yaml.AliasEvent):  # which may grow without end
                raise ValueError("it repeats parts of itself (*), which no published one does")
        return _parse_stage(yaml.safe_load(text))
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise WeightsError(f"{path} is no plain YAML: {reason_of(error)}") from error
    except Exception as error:  # whatever a file holds
        raise WeightsError(f"{path} cannot be used: {reason_of(error)}") from error


def _parse_stage(content: Any) -> PublishedStage:
    target, params = _get(content, "model", "target"), _get(content, "model", "params")
    network, settings = _get(params, "transformer_config", "target"), _get(params, "transformer_config", "params")
    conditioning: Kind = "none"
    if params.get("conditioner_config") is not None:
        conditioner = _get(params["conditioner_config"], "target")
        if conditioner not in CONDITIONERS:
            known = " or ".join(CONDITIONERS)
            raise ValueError(f"the conditioner is {format_value(conditioner)}, expected none, {known}")
        conditioning = CONDITIONERS[conditioner]
    kind: StageKind
    encoder: TransformerConfig | None
    if (target, network) == (DECODER_ONLY, GPT):
        kind, encoder = "decoder_only", None
        decoder = GPTSettings.from_json(json.dumps(_with_effect(settings))).decoder()
    elif target == ENCODER_DECODER and network in (PLAIN, RESIDUAL):
        kind = "residual" if network == RESIDUAL else "encoder_decoder"
        both = EncoderDecoderSettings.from_json(json.dumps(_with_effect(settings)))
        encoder, decoder = both.encoder(), both.decoder()
    else:
        raise ValueError(
            f"the model is {format_value(target)} with {format_value(network)}, expected {ENCODER_DECODER} with "
            f"{PLAIN} or {RESIDUAL}, or {DECODER_ONLY} with {GPT}"
        )
    wrapper, settings = _get(params, "first_stage_config", "target"), _get(params, "first_stage_config", "params")
    if wrapper != VQGAN:
        raise ValueError(f"the first stage is {format_value(wrapper)}, expected {VQGAN}")
    sizes = {name: _get(settings, name) for name in ("embed_dim", "n_embed")}
    vqgan = {**_with_effect(_get(settings, "ddconfig")), **sizes}
    first_stage = VQGANSettings.from_json(json.dumps(vqgan)).config()
    if settings.get("remap"):  # which codes are used is in the checkpoint; how many, in the transformer's vocabulary
        first_stage = first_stage.replace(used_codes=decoder.vocab_out)
    return PublishedStage(first_stage, kind, decoder, encoder, conditioning)


def _get(values: Any, *keys: str) -> Any:
    """What lies under these keys; raises ValueError where it is not there."""
    for i, key in enumerate(keys):
        if not isinstance(values, Mapping) or key not in values:
            raise ValueError(f"it lacks {'.'.join(keys[: i + 1])}")
        values = values[key]
    return values


def _with_effect(settings: Any) -> Any:
    """The settings that our networks have, too; raises ValueError where another has not its only value."""
    if not isinstance(settings, Mapping):
        return settings
    for name, expected in FIXED.items():
        if settings.get(name, expected) != expected:
            raise ValueError(f"{name} is {format_value(settings[name])}, expected {expected!r}")
    return {name: value for name, value in settings.items() if name not in WITHOUT_EFFECT and name not in FIXED}


# The seven models.


@dataclass(frozen=True)
class PublishedModel:
    """A published model. The defaults are what most of them share; all are for 256 x 256 pixels."""

    name: str
    domain: str  # what its training images show
    license: str
    stages: int
    used_codes: int  # K
    codebook_size: int = 16384
    residual: bool = False
    classes: int | None = None
    width: int = 1152  # of encoder and decoder
    encoder_depth: int = 32
    encoder_positions: int = 257
    coarsest_width: int = 1216
    coarsest_depth: int = 36

    @property
    def url(self) -> str:
        """Where its files are."""
        return f"https://ommer-lab.com/files/{self.name}.zip"

    @property
    def how_to_install(self) -> str:
        """The end of a sentence that says that it is missing."""
        return (
            f"run `python -m imagebart download {self.name}`, or download {self.url} and unpack it into "
            f"{CHECKPOINTS / self.name}"
        )

    def with_class_names(self, conditioner: Conditioner) -> Conditioner:
        """A conditioner whose classes, if they are ImageNet's thousand, have their names in place of numbers."""
        if not isinstance(conditioner, ClassConditioner) or len(conditioner.names) != self.classes:
            return conditioner
        text = resources.files("imagebart").joinpath("data/imagenet_classes.txt").read_text(encoding="utf-8")
        return conditioner.replace(names=tuple(text.splitlines()))

    def stage(self, t: int) -> PublishedStage:
        """How stage t is built."""
        first_stage = FirstStageConfig(codebook_size=self.codebook_size, used_codes=self.used_codes)
        conditional = self.classes is not None
        conditioning: Literal["class", "none"] = "class" if conditional else "none"
        if t == self.stages:
            decoder = GPTSettings(
                vocab_size=self.used_codes,
                block_size=258 if conditional else 256,
                n_layer=self.coarsest_depth,
                n_head=16,
                n_embd=self.coarsest_width,
                input_vocab_size=self.classes or self.used_codes,
                n_unmasked=2 if conditional else 0,
            ).decoder()
            return PublishedStage(first_stage, "decoder_only", decoder, None, conditioning)
        networks = EncoderDecoderSettings(
            dim=self.width,
            enc_num_tokens=self.classes or self.used_codes,
            enc_depth=self.encoder_depth,
            enc_heads=16,
            enc_max_seq_len=self.encoder_positions,
            dec_num_tokens=self.used_codes,
            dec_depth=6,
            dec_heads=16,
            dec_max_seq_len=256,
        )
        kind: StageKind = "residual" if self.residual else "encoder_decoder"
        return PublishedStage(first_stage, kind, networks.decoder(), networks.encoder(), conditioning)


# The authors state no license of the weights; each with what is known of the training images.
_FACES = "photographs of faces", "none stated; trained on FFHQ: non-commercial use (CC BY-NC-SA 4.0)"
_IMAGENET = (
    "photographs of 1000 kinds of things (ImageNet)",
    "none stated; trained on ImageNet: non-commercial research",
)
_LSUN = "none stated; trained on LSUN"
_ALL = (
    PublishedModel(
        "ffhq_4_scales_geometric",
        *_FACES,
        stages=4,
        used_codes=548,
        codebook_size=1024,
        residual=True,
        width=752,
        encoder_depth=18,
        coarsest_width=800,
        coarsest_depth=26,
    ),
    PublishedModel("ffhq_2_scales_custom", *_FACES, 2, 548, codebook_size=1024),
    PublishedModel("churches_3_scales", "photographs of churches", _LSUN, 3, 1022, encoder_positions=258),
    PublishedModel("bedrooms_3_scales", "photographs of bedrooms", _LSUN, 3, 1017),
    PublishedModel("cats_3_scales", "photographs of cats", _LSUN, 3, 1014),
    PublishedModel("cin_4_scales_geometric", *_IMAGENET, 4, 973, residual=True, classes=1000, encoder_positions=258),
    PublishedModel("cin_5_scales_custom", *_IMAGENET, 5, 973, classes=1000, encoder_positions=258),
)
MODELS = {model.name: model for model in _ALL}


def get_model(name: str) -> PublishedModel:
    """A published model by its name; raises InputError that offers the nearest name."""
    if name in MODELS:
        return MODELS[name]
    raise InputError(f"There is no published model {name[:60]!r}. {did_you_mean(name)}")


def did_you_mean(name: str) -> str:
    """The published models, in a sentence, after those of a domain ("faces") or the one with the most similar name."""
    there = f"There are {', '.join(MODELS)}."
    words = {model.name: re.findall("[a-z]+", model.domain.lower()) for model in MODELS.values()}
    of_domain = [
        one for one, known in words.items() if len(name) > 2 and any(w.startswith(name.lower()) for w in known)
    ]
    similar = process.extractOne(name[:100].lower(), MODELS.keys(), scorer=fuzz.WRatio, score_cutoff=MIN_SIMILARITY)
    meant = " or ".join(of_domain) if of_domain else similar and similar[0]
    return f"Did you mean {meant}? {there}" if meant else there


# Where models are stored: installed by hand in checkpoints/NAME, or in our part of Hugging Face's cache (`HF_HOME`, by
# default ~/.cache/huggingface): published/NAME as downloaded, converted/NAME what `convert` made of it, and
# recorded.json the checksums of first downloads.


def is_hub_name(source: str | PathLike[str]) -> bool:
    """Whether this can only be a name on the Hub: owner/name, where there is no folder called owner."""
    return bool(HUB_NAME.fullmatch(str(source))) and not Path(source).parent.is_dir()


def cache_dir() -> Path:
    """Our part of Hugging Face's cache."""
    return Path(constants.HF_HOME) / "imagebart"


def published_folder(name: str) -> Path:
    return cache_dir() / "published" / name


def converted_folder(name: str) -> Path:
    return cache_dir() / "converted" / name


def model_folder(name: str) -> Path:
    """The folder of a published model, best first; where it would be installed by hand if there is none."""
    folders = [CHECKPOINTS / name, converted_folder(name), published_folder(name)]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


# What `imagebart list` says of the published models.


TOKENS = 256  # of an image of theirs
COPIES = 2  # of each parameter of a stage in its checkpoint: as trained, and averaged


@dataclass(frozen=True)
class Sizes:
    """Of a model: its stages' parameters, about how many bytes its checkpoints have, and what an image reads."""

    parameters: int
    download: int
    read: int  # parameters, each as often as it is read for an image


def model_table() -> Iterator[tuple[str, ...]]:
    """A heading and all published models. Sizes and times are about right: they follow from the networks' shapes."""
    yield "name", "domain", "stages", "download", "memory", "time for an image here", "folder"
    speed = _parameters_per_second()
    for model in MODELS.values():
        sizes, folder = estimate_sizes(model), model_folder(model.name)
        yield (
            model.name,
            model.domain,
            str(model.stages),
            f"about {format_bytes(sizes.download)}",
            format_bytes(4 * sizes.parameters),
            f"at most {format_seconds(sizes.read / speed)}",
            str(folder) if folder.is_dir() else "not here",
        )


def estimate_sizes(model: PublishedModel) -> Sizes:
    """Computed from the shapes of a model's tensors."""
    with on_meta_device(model.name):
        configs = [model.stage(t).stage_config(t, 0.5, 0) for t in range(1, model.stages + 1)]
        stages = [build_stage(config, model.stages) for config in configs]
        first_stage = _count(FirstStage(model.stage(1).first_stage))  # which each checkpoint has
    parameters = sum(map(_count, stages))
    return Sizes(parameters, 4 * (COPIES * parameters + model.stages * first_stage), _read(stages, TOKENS))


def estimate_edit_seconds(model: PublishedModel | ModelConfig, scales: int) -> float:
    """Seconds that this machine takes, at most, to regenerate a quarter of an image.

    scales: of a model that takes any number. As in `estimate_sizes`, from the networks' shapes.
    """
    if isinstance(model, PublishedModel):
        read = estimate_sizes(model).read / 4
    else:
        with on_meta_device(model.about.name):
            if model.denoiser is not None:
                networks: list[Any] = [Denoiser(model.denoiser)] * scales
            else:
                networks = [build_stage(config, len(model.stages)) for config in model.stages]
        read = _read(networks, model.first_stage.tokens // 4)
    return read / _parameters_per_second()


def _read(networks: Iterable[Any], tokens: int) -> int:
    """Parameters that are read for so many tokens: each pass reads all of a decoder and gives one.

    Speculative decoding needs fewer passes.
    """
    return sum(tokens * _count(network.decoder) + _count(network) for network in networks)


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@cache
def _parameters_per_second() -> float:
    """How many weights this machine multiplies with one vector in a second, in layers of about their size."""
    weights = [torch.rand(4608, 1152) for _ in range(12)]  # more than a cache holds
    x = torch.rand(1, 1152)
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        for weight in weights:
            F.linear(x, weight)
        seconds.append(time.perf_counter() - began)
    return sum(weight.numel() for weight in weights) / min(seconds)


def format_seconds(seconds: float) -> str:
    """Seconds as people read them: 40 s, 12 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# The card of a model for which nobody wrote one.


CARD_HEADER = "---\nlibrary_name: imagebart\ntags:\n  - imagebart\n  - inpainting\n---\n"  # what the Hub reads


def default_card(config: ModelConfig) -> str:
    """README.md of a model without one: where it is from, what it generates and at which size."""
    about, side = config.about, config.first_stage.resolution
    made = "as CompVis published them in 2021, as safetensors" if about.name in MODELS else "of its own"
    ways = f"{len(config.stages)} scales" if config.stages else "one denoiser for every noise level"
    lines = [f"{CARD_HEADER}\n# {about.name}\n", f"Weights of ImageBART {made}: {ways}, {side} × {side} pixels.\n"]
    if about.knows:
        lines.append(
            f"It generates {about.knows} at {side} × {side} pixels and nothing else: other images can be edited, but "
            f"only into these, and regenerated parts of a larger one have no more detail than {side} pixels a side.\n"
        )
    return "\n".join(lines)
