"""The published models (CompVis, 2021): what they are called, where they are, and how they are built."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Literal

from imagebart.conditioning import ClassConditioner, Conditioner
from imagebart.models.first_stage import FirstStageConfig
from imagebart.models.published import Kind
from imagebart.weights.description import Description, encoder_decoder, gpt

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
        kind: Kind = "residual" if self.residual else "encoder_decoder"
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
