"""Settings of training runs, a class for each kind of run, read from one JSON file."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, model_validator

from imagebart.core.errors import InputError
from imagebart.core.settings import Count, Depth, Heads, HintGrid, Index, Length, Positive, Rate, Settings, Share, Width
from imagebart.models.transformer import TransformerConfig
from imagebart.models.vqgan import FirstStageConfig
from imagebart.text.conditioners import Kind

Resolution = Literal[32, 64, 128, 256]  # that a model of someone's own images may have

Hours = Annotated[float, Field(gt=0, le=10_000)]

S = TypeVar("S", bound=Settings)


class LoopConfig(Settings):
    steps: Count | None = None  # either so many
    hours: Hours | None = None  # or until these are over
    batch_size: Count = 32
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: for matrices and convolutions of blocks; AdamW for the rest
    lr: Rate = 1e-3
    betas: tuple[Share, Share] = (0.9, 0.95)
    weight_decay: Rate = 0.05
    warmup: Index = 150  # steps of linear warm-up
    final_lr: Share = 0.05  # where the cosine ends, as a share of lr
    clip: Positive = 1.0  # largest norm of the gradient
    ema: Share = 0.999  # decay of the averaged weights
    mixed_precision: Literal["auto", "bf16", "no"] = "auto"  # no: fp32; auto: bf16 where the machine multiplies it fast
    seed: int = 0
    workers: Index = 0  # processes that load data; 0: the training process itself
    log_every: Count = 50

    @model_validator(mode="after")
    def _check(self) -> "LoopConfig":
        if (self.steps is None) == (self.hours is None):
            raise ValueError(f"steps is {self.steps} and hours {self.hours}, expected one of the two")
        return self


class AdversarialLoss(Settings):
    """What a discriminator adds to the first stage's loss, and how it is trained itself."""

    start: Share = 0.0  # share of the run before it joins, in which the reconstruction settles
    weight: float = 0.1  # of its gradient at the pixels, over that of the reconstruction
    feature_matching_weight: float = 0.5
    crop: Annotated[Width, Field(ge=32)] = 128  # pixels a side of what it looks at in a step
    channels: Annotated[Width, Field(multiple_of=8)] = 32  # normalized in groups of 8
    lr: Rate = 3e-4


class FirstStageLoss(Settings):
    gradient: float = 0.5  # edges, on three scales
    commitment: float = 0.25  # latents towards their codes
    perceptual: float = 0.0  # LPIPS, which needs the package lpips
    face: float = 2.5  # weight of the region that a recipe marks, the face of avatars; 1 elsewhere
    codebook_decay: float = 0.99  # of the moving averages that are the codes
    dead_code_threshold: float = 0.1  # a code used less often than this share of the mean is replaced
    adversarial: AdversarialLoss | None = None


class FirstStageRun(Settings):
    """`python -m imagebart train first-stage --config FILE`."""

    data: str  # a folder in imagefolder layout, or what a recipe calls its own
    model: FirstStageConfig
    loop: LoopConfig
    loss: FirstStageLoss = FirstStageLoss()
    init_from: str | None = None  # run folder of a trained first stage to start from
    decoder_only: bool = False  # tokens, and with them the stages trained on them, stay as they were

    @model_validator(mode="after")
    def _check(self) -> "FirstStageRun":
        if self.decoder_only and self.init_from is None:
            raise ValueError("decoder_only trains the decoder of a trained first stage; init_from has to name one")
        return self


class StageShape(Settings):
    width: Width = 256
    depth: Depth = 6  # of the decoder
    heads: Heads = 4
    head_size: Width = 64
    encoder_depth: Depth = 3
    query_tokens: Length = 16  # vectors that stand for a caption
    conv_width: Length = 4  # words of a caption that are read together

    def encoder(self, vocab_in: int, positions: int) -> TransformerConfig:
        """The transformer that sees in both directions."""
        return self._transformer(self.encoder_depth, vocab_in=vocab_in, positions=positions, causal=False)

    def decoder(self, vocab_in: int, positions: int, vocab_out: int, cross: bool) -> TransformerConfig:
        """The causal one; cross: it attends to the encoder's output."""
        return self._transformer(self.depth, vocab_in=vocab_in, positions=positions, vocab_out=vocab_out, cross=cross)

    def _transformer(self, depth: int, **shape: Any) -> TransformerConfig:
        return TransformerConfig(width=self.width, depth=depth, heads=self.heads, head_size=self.head_size, **shape)


class TokensRun(Settings):
    """What trainings on the tokens of images have in common."""

    data: str  # a folder in imagefolder layout, or what a recipe calls its own
    first_stage: str  # folder of a run, or of a model, that has a trained first stage
    loop: LoopConfig
    shape: StageShape = StageShape()
    conditioning: Kind = "text"
    text_length: Length = 77  # conditioning tokens a caption
    conditioning_dropout: Share = 0.1  # share of captions left out
    text_from: str | None = None  # folder with a trained text encoder, which stays as it is; None: trained as well
    init_from: str | None = None  # folder of a trained network of the same kind and shape to start from

    @model_validator(mode="after")
    def _check(self) -> "TokensRun":
        if self.text_from is not None and self.conditioning != "text":
            raise ValueError(f"text_from names a text encoder; conditioning is {self.conditioning!r}, expected text")
        return self


class StageRun(TokensRun):
    """`python -m imagebart train stage --config FILE`."""

    betas: tuple[Share, ...]  # of all stages, t = 1 first
    t: int | None  # the stage to train; None: all, side by side
    kind: Literal["encoder_decoder", "residual"] = "encoder_decoder"  # of stages before the coarsest
    decoder_corruption: Share = 0.0  # share of images of which some of the decoder's input tokens are noise

    @model_validator(mode="after")
    def _check_stages(self) -> "StageRun":
        if self.t is not None and not 1 <= self.t <= len(self.betas):
            raise ValueError(f"t is {self.t}, expected 1 to {len(self.betas)}, the number of betas, or null for all")
        return self


class DenoiserRun(TokensRun):
    """`python -m imagebart train denoiser --config FILE`."""

    conditioning_dropout: Share = 0.15
    query_token_dropout: Share = 0.25  # share of images whose caption loses some of its query tokens, any part of them
    full_noise: Share = 0.5  # share of steps from pure noise
    decoder_corruption: Share = 0.4  # share of the steps to x_0 in which some of the decoder's input tokens are noise
    scheduled_sampling: Share = 0.0  # share of those in which they are sampled by the network, in place of noise
    draft_weight: Rate = 0.2  # of the loss of the encoder's own prediction
    tied_embeddings: bool = False  # one table of codes for embeddings and logits
    sampled_codes: bool = False  # the loss is over the codes of a step's images and of its noise, not over all
    color_hint_grid: HintGrid = 0  # parts along a side of a patch, of which the encoder is given color hints; 0: none
    color_hint_dropout: Share = 0.1  # share of images without them


class StepCounts(Settings):
    """Steps of each part, in place of hours: the same on every machine."""

    denoiser: Count
    first_stage: Count | None = None  # None where a trained one is used


class ModelRun(Settings):
    """`python -m imagebart train model`. Shapes that are None are chosen for the images and the machine."""

    data: str  # a folder of images, or the name of a data set on the Hub
    hours: Hours | None = None  # either so long
    steps: StepCounts | None = None  # or so many
    resolution: Resolution | None = None  # pixels a side
    first_stage: str | None = None  # folder of a trained first stage, or of a model, whose first stage is used
    init_from: str | None = None  # folder of a model whose first stage is used and whose denoiser is trained further
    knows: str = ""  # what the images show, in plain words
    license: str = ""  # of the images
    credit: str = ""  # Markdown for the card: who made the images
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 16
    first_stage_share: Annotated[float, Field(gt=0, lt=1)] = 0.4  # of the hours
    model: FirstStageConfig | None = None
    loss: FirstStageLoss | None = None
    shape: StageShape | None = None
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> "ModelRun":
        if (self.hours is None) == (self.steps is None):
            raise InputError("How long to train is missing, or given twice; give either --hours or steps.")
        if self.init_from is not None and (self.first_stage is not None or self.shape is not None):
            other = "shape" if self.first_stage is None else "first stage"
            raise InputError(f"{self.init_from} has its own {other}; leave out one of the two.")
        return self

    @property
    def trained_first_stage(self) -> str | None:
        """The folder whose first stage is used; None where one is trained."""
        return self.first_stage or self.init_from


def load(cls: type[S], path: Path | None, **given: Any) -> S:
    """A run's settings from a JSON file, if there is one, and others that are given in place of the file's."""
    try:
        values = {} if path is None else dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"cannot read the configuration {path}, expected a JSON object: {error}") from error
    return cls.from_json(json.dumps(values | given))
