"""What is known of a published stage before its checkpoint is read, in the published models' own terms."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from huggingface_hub import constants
from rapidfuzz import fuzz, process

from imagebart.conditioning import ClassConditioner, ClipTextConditioner, Conditioner, Kind, NoConditioner
from imagebart.config import from_dict
from imagebart.errors import InputError, WeightsError, shown
from imagebart.models.stages import Kind as StageKind
from imagebart.models.stages import StageConfig
from imagebart.models.transformer import TransformerConfig
from imagebart.models.vqgan import FirstStageConfig
from imagebart.weights.folder import ModelConfig


@dataclass(frozen=True)
class Description:
    """A first stage and one stage on it."""

    first_stage: FirstStageConfig
    kind: StageKind
    decoder: TransformerConfig
    encoder: TransformerConfig | None
    conditioning: Kind  # its tokens share the image tokens' embeddings

    @property
    def tokens(self) -> int:
        """N, image tokens a picture."""
        return self.first_stage.tokens

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
            return ClassConditioner(tuple(str(i) for i in range(reader.vocab_in)))
        length = reader.positions - 1 - self.tokens
        if length < 1:
            raise ValueError(
                f"a longest sequence of {reader.positions}, expected more than t and the {self.tokens} image tokens of "
                "a model with a text"
            )
        return ClipTextConditioner(length, min(reader.vocab_in, ClipTextConditioner.vocab_size))

    def stage_config(self, t: int, beta: float, start_token: int) -> StageConfig:
        """Stage t, with what only the checkpoint knows: beta_t and the decoder's start token."""
        assert self.decoder.vocab_out is not None
        return StageConfig(
            kind=self.kind,
            t=t,
            vocab_size=self.decoder.vocab_out,
            tokens=self.tokens,
            beta=beta,
            decoder=self.decoder,
            encoder=self.encoder,
            cond_length=self.conditioner.length,
            start_token=start_token,
        )


def vqgan(
    ch: int,
    ch_mult: list[int],
    num_res_blocks: int,
    attn_resolutions: list[int],
    resolution: int,
    z_channels: int,
    embed_dim: int,
    n_embed: int,
) -> FirstStageConfig:
    """A published first stage, with all its codes in use."""
    return FirstStageConfig(
        resolution=resolution,
        channels=ch,
        multipliers=tuple(ch_mult),
        res_blocks=num_res_blocks,
        attention_resolutions=tuple(attn_resolutions),
        latent_channels=z_channels,
        code_dim=embed_dim,
        codebook_size=n_embed,
    )


def encoder_decoder(
    dim: int,
    enc_num_tokens: int,
    enc_depth: int,
    enc_heads: int,
    enc_max_seq_len: int,
    dec_num_tokens: int,
    dec_depth: int,
    dec_heads: int,
    dec_max_seq_len: int,
) -> tuple[TransformerConfig, TransformerConfig]:
    """Encoder and decoder of a published encoder-decoder stage; heads have size 64 whatever the width."""
    encoder = TransformerConfig(dim, enc_depth, enc_heads, enc_num_tokens, enc_max_seq_len, causal=False)
    decoder = TransformerConfig(
        dim, dec_depth, dec_heads, dec_num_tokens, dec_max_seq_len, vocab_out=dec_num_tokens, cross=True
    )
    return encoder, decoder


def gpt(
    vocab_size: int,
    block_size: int,
    n_layer: int,
    n_head: int,
    n_embd: int,
    input_vocab_size: int | None = None,
    n_unmasked: int = 0,
) -> TransformerConfig:
    """The decoder-only transformer of a published coarsest stage."""
    return TransformerConfig(
        n_embd,
        n_layer,
        n_head,
        input_vocab_size or vocab_size,
        block_size,
        head_size=n_embd // n_head,
        vocab_out=vocab_size,
        unmasked=n_unmasked,
        attention_bias=True,
        head_bias=False,
    )


# Reads scaleN.yaml, the original's configuration of a stage, as data: the classes it names are only compared.


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


# The published models (CompVis, 2021): what they are called, where they are, and how they are built.


FOLDER = Path("checkpoints")  # where models are installed


@dataclass(frozen=True)
class PublishedModel:
    """A published model. The defaults are what most of them share; all are for 256 x 256 pixels."""

    name: str
    knows: str  # what its training pictures show
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
    sha256: str | None = None  # of its zip; None: none was published

    @property
    def address(self) -> str:
        """Where its files are."""
        return f"https://ommer-lab.com/files/{self.name}.zip"

    @property
    def how_to_install(self) -> str:
        """The end of a sentence that says that it is missing."""
        return (
            f"run `python -m imagebart download {self.name}`, or download {self.address} and unpack it into "
            f"{FOLDER / self.name}"
        )

    def named(self, conditioner: Conditioner) -> Conditioner:
        """A conditioner whose classes, if they are ImageNet's thousand, have their names in place of numbers."""
        if not isinstance(conditioner, ClassConditioner) or len(conditioner.names) != self.classes:
            return conditioner
        text = resources.files("imagebart").joinpath("data", "imagenet_classes.txt").read_text(encoding="utf-8")
        return replace(conditioner, names=tuple(text.splitlines()))

    def description(self, t: int) -> Description:
        """How stage t is built."""
        first_stage = FirstStageConfig(codebook_size=self.codebook_size, used_codes=self.used_codes)
        vocabulary = self.classes or self.used_codes
        conditional = self.classes is not None
        conditioning: Literal["class", "none"] = "class" if conditional else "none"
        if t == self.stages:
            decoder = gpt(
                vocab_size=self.used_codes,
                block_size=258 if conditional else 256,
                n_layer=self.coarsest_depth,
                n_head=16,
                n_embd=self.coarsest_width,
                input_vocab_size=vocabulary,
                n_unmasked=2 if conditional else 0,
            )
            return Description(first_stage, "decoder_only", decoder, None, conditioning)
        encoder, decoder = encoder_decoder(
            dim=self.width,
            enc_num_tokens=vocabulary,
            enc_depth=self.encoder_depth,
            enc_heads=16,
            enc_max_seq_len=self.encoder_positions,
            dec_num_tokens=self.used_codes,
            dec_depth=6,
            dec_heads=16,
            dec_max_seq_len=256,
        )
        kind: StageKind = "residual" if self.residual else "encoder_decoder"
        return Description(first_stage, kind, decoder, encoder, conditioning)


_ALL = (
    PublishedModel(
        "ffhq_4_scales_geometric",
        "photographs of faces",
        stages=4,
        used_codes=548,
        codebook_size=1024,
        residual=True,
        width=752,
        encoder_depth=18,
        coarsest_width=800,
        coarsest_depth=26,
    ),
    PublishedModel("ffhq_2_scales_custom", "photographs of faces", 2, 548, codebook_size=1024),
    PublishedModel("churches_3_scales", "photographs of churches", 3, 1022, encoder_positions=258),
    PublishedModel("bedrooms_3_scales", "photographs of bedrooms", 3, 1017),
    PublishedModel("cats_3_scales", "photographs of cats", 3, 1014),
    PublishedModel(
        "cin_4_scales_geometric",
        "photographs of 1000 kinds of things (ImageNet)",
        stages=4,
        used_codes=973,
        residual=True,
        classes=1000,
        encoder_positions=258,
    ),
    PublishedModel(
        "cin_5_scales_custom",
        "photographs of 1000 kinds of things (ImageNet)",
        stages=5,
        used_codes=973,
        classes=1000,
        encoder_positions=258,
    ),
)

MODELS = {model.name: model for model in _ALL}


# Where models lie on this machine: installed by hand, made of published files, or downloaded.
#
# Downloads and what is made of them stand in Hugging Face's own folder for such things (`HF_HOME`, by default
# ~/.cache/huggingface), in a part of it that is ours: published/NAME holds files as they were published,
# converted/NAME
# what `convert` made of them, and recorded.json the checksums of first downloads.


HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
SIMILAR = 60.0  # of 100, from which on another name is offered for a wrong one


def is_hub_name(source: str | PathLike[str]) -> bool:
    """Whether this can only be a name on the Hub: owner/name, where there is no folder called owner."""
    return bool(HUB_NAME.fullmatch(str(source))) and not Path(source).parent.is_dir()


def cache() -> Path:
    """Our part of Hugging Face's folder."""
    return Path(constants.HF_HOME) / "imagebart"


def published_folder(name: str) -> Path:
    """Where a published model's own files are downloaded to."""
    return cache() / "published" / name


def converted_folder(name: str) -> Path:
    """Where a published model is converted to, unless told otherwise."""
    return cache() / "converted" / name


def places(name: str) -> tuple[Path, ...]:
    """Where a published model may be, the best first."""
    return FOLDER / name, converted_folder(name), published_folder(name)


def find(name: str) -> Path:
    """The folder of a published model; the first place where it would be looked for, if there is none."""
    return next((place for place in places(name) if place.is_dir()), places(name)[0])


def model_of(name: str) -> PublishedModel:
    """A published model by its name; raises InputError that offers the nearest name."""
    if name in MODELS:
        return MODELS[name]
    raise InputError(f"There is no published model {name[:60]!r}. {nearest(name)}")


def nearest(name: str) -> str:
    """The published models, in a sentence, after those of what is named ("faces") or the one most similarly called."""
    there = f"There are {', '.join(MODELS)}."
    shown = {model.name: re.findall("[a-z]+", model.knows.lower()) for model in MODELS.values()}
    found = [one for one, words in shown.items() if len(name) > 2 and any(w.startswith(name.lower()) for w in words)]
    similar = process.extractOne(name[:100].lower(), MODELS.keys(), scorer=fuzz.WRatio, score_cutoff=SIMILAR)
    meant = " or ".join(found) if found else similar and similar[0]
    return f"Did you mean {meant}? {there}" if meant else there


# A model's card: what somebody wrote, or what it says where nobody did.


HEAD = "---\nlibrary_name: imagebart\ntags:\n  - imagebart\n  - inpainting\n---\n"  # what the Hub reads
LONGEST = 200_000  # bytes of a card


def read_card(folder: Path) -> str:
    """What somebody wrote of a model in its folder, in README.md: its first LONGEST bytes, whatever they are."""
    path = folder / "README.md"
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return file.read(LONGEST).decode("utf-8", errors="replace")


def without_head(text: str) -> str:
    """A card's text after its YAML header."""
    if text.startswith("---\n") and "\n---\n" in text[4:]:
        return text[4:].split("\n---\n", 1)[1].lstrip()
    return text


def default_card(config: ModelConfig) -> str:
    """README.md of a model: where it is from, what it draws and how large; in its own words, as far as known."""
    about, side = config.about, config.first_stage.resolution
    made = "as CompVis published them in 2021, as safetensors" if about.name in MODELS else "of its own"
    ways = f"{len(config.stages)} scales" if config.stages else "one denoiser for every noise rate"
    lines = [f"{HEAD}\n# {about.name}\n", f"Weights of ImageBART {made}: {ways}, {side} × {side} pixels.\n"]
    if about.knows:
        lines.append(
            f"It draws {about.knows} at {side} × {side} pixels and nothing else: other pictures can be edited, but "
            f"only into these, and what is redrawn of a larger one has no more than {side} pixels a side of detail.\n"
        )
    return "\n".join(lines)
