"""Small networks in float64 with random weights, large ones so that their logits differ clearly."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from imagebart.core.settings import SamplingSettings
from imagebart.models.denoiser import Denoiser, DenoiserConfig, Kind, Stage, StageConfig
from imagebart.models.diffusion import row_generators
from imagebart.models.transformer import TextEncoderConfig, TransformerConfig
from imagebart.sampling.steps import ChainEvent, ChainState, Step, sample_step

KINDS: tuple[Kind, ...] = ("decoder_only", "encoder_decoder", "residual")
CONDITIONS = 5  # different conditioning tokens
StepKind = Literal["decoder_only", "encoder_decoder", "residual", "denoiser", "denoiser to x_0"]
STEPS: tuple[StepKind, ...] = (*KINDS, "denoiser", "denoiser to x_0")
N = TypeVar("N", bound=nn.Module)


def with_random_weights(network: N, seed: int = 0) -> N:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.5)
    return network.double().eval().requires_grad_(False)


def shape(vocab_in: int, positions: int, **more: Any) -> TransformerConfig:
    sizes = {"width": 8, "depth": 2, "heads": 2, "head_size": 4}
    return TransformerConfig(vocab_in=vocab_in, positions=positions, **{**sizes, **more})


def _text(cond_length: int, query_tokens: int) -> TextEncoderConfig | None:
    if not query_tokens:
        return None
    vocab_in, positions = CONDITIONS + query_tokens, cond_length + query_tokens
    words = shape(vocab_in, positions, width=6, head_size=3, causal=False)
    return TextEncoderConfig(transformer=words, query_tokens=query_tokens, conv_width=3)


def random_stage(
    kind: Kind, tokens: int = 6, vocab_size: int = 7, cond_length: int = 2, seed: int = 0, query_tokens: int = 0
) -> Stage:
    """A stage of T = 3; query_tokens: those of its text encoder, 0: it has none, and reads the conditioning tokens."""
    decoder_only = kind == "decoder_only"
    prefix = query_tokens or cond_length
    vocab = max(vocab_size + (query_tokens or (CONDITIONS if cond_length else 0)), 4)
    positions = 1 + prefix + tokens
    read = (vocab, positions) if decoder_only else (vocab_size, tokens)
    biases = {"attention_bias": decoder_only, "head_bias": not decoder_only}
    config = StageConfig(
        kind=kind,
        t=3 if decoder_only else 2,
        vocab_size=vocab_size,
        tokens=tokens,
        beta=1.0 if decoder_only else 0.4,
        decoder=shape(*read, vocab_out=vocab_size, cross=not decoder_only, **biases),
        encoder=None if decoder_only else shape(vocab, positions, causal=False),
        cond_length=cond_length,
        cond_offset=vocab_size if cond_length else 0,
        start_token=0 if decoder_only else 1,
        text=_text(cond_length, query_tokens),
    )
    return with_random_weights(Stage(config, 3), seed)


def random_denoiser(
    tokens: int = 6, vocab_size: int = 7, cond_length: int = 2, seed: int = 0, query_tokens: int = 0, **more: Any
) -> Denoiser:
    """A denoiser; query_tokens: as for `random_stage`; more: settings of its configuration."""
    prefix = query_tokens or cond_length
    read = vocab_size + (query_tokens or (CONDITIONS if cond_length else 0)) + 1, 1 + prefix + tokens
    config = DenoiserConfig(
        vocab_size=vocab_size,
        tokens=tokens,
        decoder=shape(*read, vocab_out=vocab_size, cross=True),
        encoder=shape(*read, causal=False),
        cond_length=cond_length,
        text=_text(cond_length, query_tokens),
        **more,
    )
    return with_random_weights(Denoiser(config), seed)


def random_step(kind: StepKind, *shape: int, **more: int) -> Step:
    """A step by a published stage of a kind, or by the denoiser from a noise level of 0.7 to 0.3 or to 0."""
    if kind in ("denoiser", "denoiser to x_0"):
        return Step(random_denoiser(*shape, **more), 0.7, 0.3 if kind == "denoiser" else 0.0)
    return Step(random_stage(kind, *shape, **more), 1.0, 0.0 if kind != "decoder_only" else 0.5)


def chain_state(
    steps: Sequence[Step],
    x: Tensor,
    noise_level: Tensor | None = None,
    cond: Tensor | None = None,
    unconditional: Tensor | None = None,
    color_hints: Tensor | None = None,
    seed: int = 0,
) -> ChainState:
    """Where a chain of these steps starts; noise_level: of each token, None: nothing is known of any."""
    level = torch.ones(x.shape) if noise_level is None else noise_level
    generators = row_generators(range(seed, seed + len(x)))
    both = cond if cond is None or unconditional is None else torch.cat([cond, unconditional])
    state, network = ChainState(steps, len(steps), x, level, generators, both), steps[0].network
    if isinstance(network, Stage):
        return state
    hints = network.embed_hints(color_hints)
    return replace(state, prompt_embeds=network.encode_prompt(both), hint_embeds=hints)


def sampled(
    state: ChainState, settings: SamplingSettings, noise: Tensor, drafts: Tensor | None = None
) -> Iterator[ChainEvent]:
    """The events of a state's last step; their tokens are overwritten as soon as they are read: they are ours."""
    step = state.steps[-1]
    begun = ChainEvent(tokens=state.x, stage=1, stages=1, resample_index=0, resamples=1)
    for event in sample_step(step, state, settings, noise, begun, drafts):
        yield replace(event, tokens=event.tokens.clone())
        event.tokens.zero_()


def random_cond(batch: int, length: int = 2) -> Tensor | None:
    """Conditioning tokens [B, L] for a random network, or None where it takes none."""
    return torch.randint(CONDITIONS, (batch, length)) if length else None
