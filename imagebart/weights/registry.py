"""The published models (CompVis, 2021): their names, addresses and networks, and where they are on this machine.

How a stage is built follows from `data/published_models.yaml`, or from scaleN.yaml, the original's configuration,
beside its checkpoint. That file is read as data: the classes that it names are only compared.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import constants

from imagebart.core.errors import WeightsError, format_value, reason_of
from imagebart.models.denoiser import Kind as StageKind
from imagebart.models.denoiser import StageConfig
from imagebart.models.transformer import TransformerConfig
from imagebart.models.vqgan import FirstStageConfig
from imagebart.text.conditioners import ClassConditioner, ClipTextConditioner, Conditioner, Kind, NoConditioner
from imagebart.text.prompts import VOCAB_SIZE as CLIP_VOCABULARY
from imagebart.weights.folder import ModelConfig

CHECKPOINTS = Path("checkpoints")  # where models are installed by hand


@dataclass(frozen=True)
class PublishedStage:
    first_stage: FirstStageConfig
    conditioner: Conditioner  # its tokens share the image tokens' embeddings
    config: StageConfig  # apart from t, beta and the start token, which its checkpoint knows


X_TRANSFORMER = "imagebart.modules.xtransformers.x_transformer"
KINDS: dict[str, StageKind] = {
    f"{X_TRANSFORMER}.XTransformer": "encoder_decoder",
    f"{X_TRANSFORMER}.ResidualScaledXTransformer": "residual",
    "imagebart.modules.transformer.mingpt.GPT": "decoder_only",
}
CONDITIONINGS: dict[str, Kind] = {
    "": "none",
    "imagebart.util.ClassProvider": "class",
    "imagebart.util.BasicTokenizer": "text",
}
# The original's settings, by the names that ours have.
SIZES = {"depth": "depth", "heads": "heads", "num_tokens": "vocab_in", "max_seq_len": "positions"}
ENCODER = {"dim": "width"} | {f"enc_{name}": ours for name, ours in SIZES.items()}
DECODER = {"dim": "width"} | {f"dec_{name}": ours for name, ours in SIZES.items()}
GPT = {
    "n_embd": "width",
    "n_layer": "depth",
    "n_head": "heads",
    "vocab_size": "vocab_out",
    "input_vocab_size": "vocab_in",
    "block_size": "positions",
    "n_unmasked": "unmasked",
}
VQGAN = {
    "resolution": "resolution",
    "ch": "channels",
    "ch_mult": "multipliers",
    "num_res_blocks": "res_blocks",
    "attn_resolutions": "attention_resolutions",
    "z_channels": "latent_channels",
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
# Settings without effect on what is computed: sizes given elsewhere, training, and the last, which is ignored there.
WITHOUT_EFFECT = {"n_scales", "xt_start", "xt_size", "embd_pdrop", "resid_pdrop", "attn_pdrop", "dropout", "tanh_out"}


def read_stage_yaml(path: Path) -> PublishedStage:
    """The stage that a scaleN.yaml describes; raises WeightsError naming the file and what is wrong in it."""
    try:
        return _parse_stage(yaml.safe_load(path.read_text(encoding="utf-8")))
    except KeyError as error:
        raise WeightsError(f"{path} lacks the setting {error}") from error
    except Exception as error:  # whatever a file holds
        raise WeightsError(f"{path} cannot be used: {reason_of(error)}") from error


def _parse_stage(content: Any) -> PublishedStage:
    params = content["model"]["params"]
    network, vqgan = params["transformer_config"], params["first_stage_config"]["params"]
    kind, conditioner = network["target"], (params.get("conditioner_config") or {"target": ""})["target"]
    for what, value, known in (("network", kind, KINDS), ("conditioner", conditioner, CONDITIONINGS)):
        if value not in known:
            raise ValueError(f"the {what} is {format_value(value)}, expected one of {', '.join(known)}")
    sizes = _renamed(vqgan["ddconfig"], VQGAN) | {"code_dim": vqgan["embed_dim"], "codebook_size": vqgan["n_embed"]}
    if vqgan.get("remap"):  # which codes are used is in the checkpoint; how many, in the transformer's vocabulary
        sizes["used_codes"] = network["params"]["vocab_size" if KINDS[kind] == "decoder_only" else "dec_num_tokens"]
    lists = {name: tuple(value) for name, value in sizes.items() if isinstance(value, list)}
    first_stage = FirstStageConfig.parse(**sizes | lists)
    return _build(first_stage, CONDITIONINGS[conditioner], KINDS[kind], network["params"])


def _build(first_stage: FirstStageConfig, kind: Kind, stage: StageKind, settings: Mapping[str, Any]) -> PublishedStage:
    """A stage of a conditioner's and a stage's kind, from the original's settings of its transformers."""
    if stage == "decoder_only":
        encoder, named = None, _renamed({"input_vocab_size": settings["vocab_size"], "n_unmasked": 0, **settings}, GPT)
        head_size = settings["n_embd"] // settings["n_head"]
        decoder = TransformerConfig.parse(**named, head_size=head_size, attention_bias=True, head_bias=False)
    else:  # heads of x-transformers have size 64 whatever the width
        encoder = TransformerConfig.parse(**_renamed(settings, ENCODER, beside=DECODER), causal=False)
        named = _renamed(settings, DECODER, beside=ENCODER)
        decoder = TransformerConfig.parse(**named, vocab_out=named["vocab_in"], cross=True)
    conditioner = _conditioner(kind, encoder or decoder, first_stage.tokens)
    sizes = {"vocab_size": decoder.vocab_out, "tokens": first_stage.tokens, "cond_length": conditioner.length}
    config = StageConfig.parse(kind=stage, t=1, beta=1.0, decoder=decoder, encoder=encoder, **sizes)
    return PublishedStage(first_stage, conditioner, config)


def _conditioner(kind: Kind, reader: TransformerConfig, tokens: int) -> Conditioner:
    """For a class model, the numbers of its embeddings; for a text model, the tokens that t and the image leave."""
    if kind == "none":
        return NoConditioner()
    if kind == "class":
        return ClassConditioner(names=tuple(str(i) for i in range(reader.vocab_in)))
    length = reader.positions - 1 - tokens
    if length < 1:
        longest = f"a longest sequence of {reader.positions}"
        raise ValueError(f"{longest}, expected more than t and the {tokens} image tokens of a model with a text")
    return ClipTextConditioner(length=length, vocab_size=min(reader.vocab_in, CLIP_VOCABULARY))


def _renamed(settings: Mapping[str, Any], names: Mapping[str, str], beside: Collection[str] = ()) -> dict[str, Any]:
    """Settings under our names; raises ValueError for a value that is not the only one, and for what is not known."""
    for name, value in settings.items():
        if name in FIXED and value != FIXED[name]:
            raise ValueError(f"{name} is {format_value(value)}, expected {FIXED[name]!r}")
        if name not in {*names, *beside, *FIXED, *WITHOUT_EFFECT}:
            raise ValueError(f"unknown setting {format_value(name)}")
    return {ours: settings[theirs] for theirs, ours in names.items()}


@dataclass(frozen=True)
class PublishedModel:
    """A published model, for 256 x 256 pixels. The defaults are what most of them share."""

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
        return f"https://ommer-lab.com/files/{self.name}.zip"

    @property
    def how_to_install(self) -> str:
        """The end of a sentence that says that it is missing."""
        folder = CHECKPOINTS / self.name
        return f"run `python -m imagebart download {self.name}`, or download {self.url} and unpack it into {folder}"

    def with_class_names(self, conditioner: Conditioner) -> Conditioner:
        """A conditioner whose classes, if they are ImageNet's thousand, have their names in place of numbers."""
        if not isinstance(conditioner, ClassConditioner) or len(conditioner.names) != self.classes:
            return conditioner
        text = resources.files("imagebart").joinpath("data/imagenet_classes.txt").read_text(encoding="utf-8")
        return conditioner.replace(names=tuple(text.splitlines()))

    def stage(self, t: int) -> PublishedStage:
        first_stage = FirstStageConfig(codebook_size=self.codebook_size, used_codes=self.used_codes)
        kind: Kind = "none" if self.classes is None else "class"
        if t == self.stages:
            settings = {
                "vocab_size": self.used_codes,
                "block_size": 256 if self.classes is None else 258,
                "n_layer": self.coarsest_depth,
                "n_head": 16,
                "n_embd": self.coarsest_width,
                "input_vocab_size": self.classes or self.used_codes,
                "n_unmasked": 0 if self.classes is None else 2,
            }
            return _build(first_stage, kind, "decoder_only", settings)
        settings = {
            "dim": self.width,
            "enc_num_tokens": self.classes or self.used_codes,
            "enc_depth": self.encoder_depth,
            "enc_heads": 16,
            "enc_max_seq_len": self.encoder_positions,
            "dec_num_tokens": self.used_codes,
            "dec_depth": 6,
            "dec_heads": 16,
            "dec_max_seq_len": 256,
        }
        return _build(first_stage, kind, "residual" if self.residual else "encoder_decoder", settings)


TABLE = yaml.safe_load(resources.files("imagebart").joinpath("data/published_models.yaml").read_text("utf-8"))
MODELS = {name: PublishedModel(name, **entry) for name, entry in TABLE["models"].items()}


def get_model(name: str) -> PublishedModel:
    """A published model by its name; raises WeightsError that offers the most similar name."""
    if name not in MODELS:
        what = f"{name:.100} is no published model, no folder with a model and no owner/name on the Hub"
        similar = "".join(f" Did you mean {near}?" for near in get_close_matches(name[:100], MODELS, 1))
        raise WeightsError(f"{what}.{similar} There are {', '.join(MODELS)}.")
    return MODELS[name]


def published_folder(name: str) -> Path:
    """Where a model's files are as downloaded, in Hugging Face's cache: `HF_HOME`, by default ~/.cache/huggingface."""
    return Path(constants.HF_HOME) / "imagebart" / "published" / name


def converted_folder(name: str) -> Path:
    """Where what `convert` made of them is."""
    return Path(constants.HF_HOME) / "imagebart" / "converted" / name


def model_folder(name: str) -> Path:
    """The folder of a published model, best first; where it would be installed by hand if there is none."""
    folders = [CHECKPOINTS / name, converted_folder(name), published_folder(name)]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


CARD_HEADER = "---\nlibrary_name: imagebart\ntags:\n  - imagebart\n  - inpainting\n---\n\n"  # what the Hub reads


def default_card(config: ModelConfig) -> str:
    """The card of a model for which nobody wrote one: where it is from, what it generates and at which size."""
    about = config.about
    side = config.first_stage.resolution if config.first_stage is not None else 0
    made = "as CompVis published them in 2021, as safetensors" if about.name in MODELS else "of its own"
    ways = f"{len(config.stages)} scales" if config.stages else "one denoiser for every noise level"
    card = f"# {about.name}\n\nWeights of ImageBART {made}: {ways}, {side} × {side} pixels.\n"
    if about.knows:
        card += f"\nIt generates {about.knows} at {side} × {side} pixels; other images can only be edited into these.\n"
        card += f"Regenerated parts of a larger image have no more detail than {side} pixels a side.\n"
    return card
