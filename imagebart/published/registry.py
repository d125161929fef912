"""The published models (CompVis, 2021): their names, addresses and networks, and where they are on this machine.

How a stage is built stands here for each published model, and otherwise in scaleN.yaml, the original's configuration,
beside its checkpoint. That file is read as data: the classes that it names are only compared.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from huggingface_hub import constants
from pydantic import ConfigDict

from imagebart.errors import InputError, WeightsError, reason_of
from imagebart.models.stages import Kind as StageKind
from imagebart.models.stages import StageConfig
from imagebart.models.transformer import TransformerConfig
from imagebart.models.vqgan import FirstStageConfig, Levels
from imagebart.settings import Depth, Factor, Heads, Length, Settings, Vocabulary, Width
from imagebart.text.conditioners import ClassConditioner, ClipTextConditioner, Conditioner, Kind, NoConditioner
from imagebart.text.tokenizer import VOCAB_SIZE as CLIP_VOCABULARY
from imagebart.weights import ModelConfig

CHECKPOINTS = Path("checkpoints")  # where models are installed by hand


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


# The original's networks and scaleN.yaml, by the names of its settings. A setting has a default where it is without
# effect on what is computed (training, sizes given elsewhere), and one value where the published models have only that.


class GPTSettings(Settings):
    """The decoder-only transformer of a published coarsest stage."""

    vocab_size: Vocabulary
    block_size: Length
    n_layer: Depth
    n_head: Heads
    n_embd: Width
    input_vocab_size: Vocabulary | None = None
    n_unmasked: Length = 0
    embd_pdrop: float = 0.0
    resid_pdrop: float = 0.0
    attn_pdrop: float = 0.0

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
    wrap_decoder: Literal[False] = False
    tie_token_emb: Literal[False] = False
    scale_pos: Literal[0] = 0
    n_scales: int = 0
    xt_start: int = 0
    xt_size: int = 0

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
        return TransformerConfig(
            width=self.dim,
            depth=self.dec_depth,
            heads=self.dec_heads,
            vocab_in=self.dec_num_tokens,
            positions=self.dec_max_seq_len,
            vocab_out=self.dec_num_tokens,
            cross=True,
        )


class VQGANSettings(Settings):
    """The convolutions of a published first stage."""

    resolution: Width
    ch: Width
    ch_mult: Levels
    num_res_blocks: Factor
    attn_resolutions: tuple[Width, ...]
    z_channels: Width
    double_z: Literal[False] = False
    in_channels: Literal[3] = 3
    out_ch: Literal[3] = 3
    dropout: float = 0.0
    tanh_out: bool = False  # which the original ignores


class Part(Settings):
    """A part of scaleN.yaml, with more settings than matter here."""

    model_config = ConfigDict(extra="ignore")


class NetworkPart(Part):
    target: Literal[
        "imagebart.modules.transformer.mingpt.GPT",
        "imagebart.modules.xtransformers.x_transformer.XTransformer",
        "imagebart.modules.xtransformers.x_transformer.ResidualScaledXTransformer",
    ]
    params: dict[str, Any]


class VQGANParams(Part):
    embed_dim: Width
    n_embed: Vocabulary
    ddconfig: VQGANSettings
    remap: str | None = None  # a file that lists the codes in use; the checkpoint has it, too


class VQGANPart(Part):
    target: Literal["imagebart.models.vqgan.VQGANWrapper"]
    params: VQGANParams


class ConditionerPart(Part):
    target: Literal["imagebart.util.ClassProvider", "imagebart.util.BasicTokenizer"]


class StageParams(Part):
    transformer_config: NetworkPart
    first_stage_config: VQGANPart
    conditioner_config: ConditionerPart | None = None


class StagePart(Part):
    target: Literal[
        "imagebart.models.diffusion.DenoisingXTransformer", "imagebart.models.diffusion.DecoderOnlyDenoiser"
    ]
    params: StageParams


class StageYAML(Part):
    """scaleN.yaml."""

    model: StagePart


def read_stage_yaml(path: Path) -> PublishedStage:
    """The stage that a scaleN.yaml describes; raises WeightsError naming the file and what is wrong in it."""
    try:
        text = path.read_text(encoding="utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise ValueError("it repeats parts of itself (*), which may grow without end")
        return _published_stage(StageYAML.from_json(json.dumps(yaml.safe_load(text))).model.params)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise WeightsError(f"{path} is no plain YAML: {reason_of(error)}") from error
    except Exception as error:  # whatever a file holds
        raise WeightsError(f"{path} cannot be used: {reason_of(error)}") from error


def _published_stage(stage: StageParams) -> PublishedStage:
    network, conditioner, vqgan = stage.transformer_config, stage.conditioner_config, stage.first_stage_config.params
    kind: StageKind = "decoder_only"
    encoder: TransformerConfig | None = None
    if network.target.endswith("GPT"):
        decoder = GPTSettings.parse(**network.params).decoder()
    else:
        kind = "residual" if "Residual" in network.target else "encoder_decoder"
        both = EncoderDecoderSettings.parse(**network.params)
        encoder, decoder = both.encoder(), both.decoder()
    first_stage = FirstStageConfig(
        resolution=vqgan.ddconfig.resolution,
        channels=vqgan.ddconfig.ch,
        multipliers=vqgan.ddconfig.ch_mult,
        res_blocks=vqgan.ddconfig.num_res_blocks,
        attention_resolutions=vqgan.ddconfig.attn_resolutions,
        latent_channels=vqgan.ddconfig.z_channels,
        code_dim=vqgan.embed_dim,
        codebook_size=vqgan.n_embed,
        used_codes=decoder.vocab_out if vqgan.remap else None,
    )
    conditioning: Kind = "none"
    if conditioner is not None:
        conditioning = "class" if conditioner.target.endswith("ClassProvider") else "text"
    return PublishedStage(first_stage, kind, decoder, encoder, conditioning)


# The seven models.


@dataclass(frozen=True)
class PublishedModel:
    """A published model. The defaults are what most of them share; all are for 256 x 256 pixels."""

    name: str
    domain: str  # what its training images show
    license: str
    stages: int
    download_gb: float  # about
    memory_gb: float  # of its weights as float32
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
        download_gb=7.6,
        memory_gb=3.2,
        used_codes=548,
        codebook_size=1024,
        residual=True,
        width=752,
        encoder_depth=18,
        coarsest_width=800,
        coarsest_depth=26,
    ),
    PublishedModel("ffhq_2_scales_custom", *_FACES, 2, 10.6, 5.0, used_codes=548, codebook_size=1024),
    PublishedModel(
        "churches_3_scales", "photographs of churches", _LSUN, 3, 15.9, 7.5, used_codes=1022, encoder_positions=258
    ),
    PublishedModel("bedrooms_3_scales", "photographs of bedrooms", _LSUN, 3, 15.9, 7.5, used_codes=1017),
    PublishedModel("cats_3_scales", "photographs of cats", _LSUN, 3, 15.9, 7.5, used_codes=1014),
    PublishedModel(
        "cin_4_scales_geometric",
        *_IMAGENET,
        stages=4,
        download_gb=21.1,
        memory_gb=10.0,
        used_codes=973,
        residual=True,
        classes=1000,
        encoder_positions=258,
    ),
    PublishedModel(
        "cin_5_scales_custom", *_IMAGENET, 5, 26.4, 12.4, used_codes=973, classes=1000, encoder_positions=258
    ),
)
MODELS = {model.name: model for model in _ALL}


def get_model(name: str) -> PublishedModel:
    """A published model by its name; raises InputError that offers the nearest name."""
    if name in MODELS:
        return MODELS[name]
    raise InputError(f"There is no published model {name[:60]!r}. {did_you_mean(name)}")


def did_you_mean(name: str) -> str:
    """The published models, in a sentence, after the one with the most similar name."""
    similar = [f"Did you mean {near}?" for near in get_close_matches(name[:100], MODELS, 1)]
    return " ".join([*similar, f"There are {', '.join(MODELS)}."])


# Where models are stored: installed by hand in checkpoints/NAME, or in our part of Hugging Face's cache (`HF_HOME`, by
# default ~/.cache/huggingface): published/NAME as downloaded, converted/NAME what `convert` made of it.


def published_folder(name: str) -> Path:
    return Path(constants.HF_HOME) / "imagebart" / "published" / name


def converted_folder(name: str) -> Path:
    return Path(constants.HF_HOME) / "imagebart" / "converted" / name


def model_folder(name: str) -> Path:
    """The folder of a published model, best first; where it would be installed by hand if there is none."""
    folders = [CHECKPOINTS / name, converted_folder(name), published_folder(name)]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


# The card of a model for which nobody wrote one.


CARD_HEADER = "---\nlibrary_name: imagebart\ntags:\n  - imagebart\n  - inpainting\n---\n"  # what the Hub reads


def default_card(config: ModelConfig) -> str:
    """README.md of a model without one: where it is from, what it generates and at which size."""
    about = config.about
    side = config.first_stage.resolution if config.first_stage is not None else 0
    made = "as CompVis published them in 2021, as safetensors" if about.name in MODELS else "of its own"
    ways = f"{len(config.stages)} scales" if config.stages else "one denoiser for every noise level"
    lines = [f"{CARD_HEADER}\n# {about.name}\n", f"Weights of ImageBART {made}: {ways}, {side} × {side} pixels.\n"]
    if about.knows:
        lines.append(
            f"It generates {about.knows} at {side} × {side} pixels and nothing else: other images can be edited, but "
            f"only into these, and regenerated parts of a larger one have no more detail than {side} pixels a side.\n"
        )
    return "\n".join(lines)
