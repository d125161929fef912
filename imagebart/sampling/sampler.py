"""The reverse chain: steps T ... 1 with forward-backward repeats (ImageBART, 4.3 and A.3), and the corrector."""

import math
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from imagebart.core.errors import InputError
from imagebart.core.settings import SamplingSettings
from imagebart.models.denoiser import Denoiser, Stage
from imagebart.models.diffusion import add_noise_rows, row_generators, uniform_tokens
from imagebart.models.imagebart import ImageBARTModel
from imagebart.sampling.packed_linear import PackedNetwork
from imagebart.sampling.steps import ChainEvent, ChainState, KnownTokens, Step, sample_step

SEED_OFFSET = 0x9E3779B9  # added to a seed for the noise that a variation starts from, which is not the chain's own


@torch.no_grad()
def sample_chain(state: ChainState, packed: PackedNetwork, settings: SamplingSettings) -> Iterator[ChainEvent]:
    """From x_T down to x_0, and through the corrector; an event after every pass of a network, the last holds x_0.

    packed: packs a network's weights. Resample r of n first adds noise to the last result, with probability
    (1 - r/n) beta_t, as the original does; kept tokens stay clean, where the original adds noise to them as well. The
    iterator can be closed at any moment.
    """
    x, resamples = state.x, settings.resamples
    for t in range(len(state.steps), 0, -1):
        step = state.steps[t - 1]
        of_step = settings
        if isinstance(stage := step.network, Stage):
            temperature = settings.temperature * stage.config.temperature
            of_step = settings.replace(temperature=temperature, top_k=settings.top_k or stage.config.top_k)
        for repeat in range(resamples):
            if repeat:
                x = state.add_noise(x, (1 - repeat / resamples) * step.beta)
            x_t = torch.where(step.sees(state.noise_level), state.x, x)
            begun = ChainEvent(tokens=x_t, stage=t, stages=state.scales, resample_index=repeat, resamples=resamples)
            # Held by nothing else, so that the memory of a stage's packed weights is free before the next one's.
            for event in sample_step(
                replace(step, network=packed(step.network)), replace(state, x=x_t), of_step, state.gumbel(), begun
            ):
                x = event.tokens.clone()
                yield event
    if settings.corrector_steps:
        yield from correct(state, replace(begun, tokens=x), packed, settings)


# The corrector: after the chain, tokens that do not fit the others are sampled again.
#
# A chain never looks back at a token that it has sampled. The corrector asks the denoiser's encoder how likely each
# token is given all others, p(x_0^i | x_0^j, j != i), and samples the unlikely ones again with the decoder, all others
# kept. Sampling a token from its conditional distribution leaves the model's distribution of images unchanged (Gibbs
# sampling; the forward-backward of ImageBART does it with all tokens). Choosing unlikely tokens, and
# sampling with a lower top-p, moves images towards the modes of that distribution: it is meant to.

TOP_P = 0.5  # at most, for tokens that are sampled again


@torch.no_grad()
def correct(
    state: ChainState, event: ChainEvent, packed: PackedNetwork, settings: SamplingSettings
) -> Iterator[ChainEvent]:
    """Corrects the x_0 of a chain `settings.corrector_steps` times; an event after every pass.

    state: the chain's start; what it keeps is never changed. event: of the chain's end; its tokens are x_0. There is no
    guidance: the few tokens that are sampled follow from the others, and half the passes are saved.
    """
    denoiser = state.steps[0].network
    assert isinstance(denoiser, Denoiser), "stages predict x_{t-1} and have no corrector"
    denoiser, state = packed(denoiser), state.without_guidance()
    settings = settings.replace(guidance=1.0, top_p=min(settings.top_p or 1.0, TOP_P))
    again = torch.ones_like(event.tokens, dtype=torch.bool)
    for number in range(1, settings.corrector_steps + 1):
        x = event.tokens
        (rows,) = again.any(1).nonzero(as_tuple=True)  # an image of which nothing was sampled again is finished
        if not len(rows):
            return
        noise = state.gumbel()
        noisy = torch.where(state.noise_level < 1, state.x, state.uniform())
        chances = probabilities(denoiser, state.select(rows), x[rows], noisy[rows])
        again = torch.zeros_like(again).index_copy(0, rows, chances < settings.corrector_threshold)
        unknown = replace(state, x=torch.where(again, noisy, x), noise_level=state.noise_level.where(again, 0.0))
        begun = replace(event, corrector_step=number)
        for event in sample_step(Step(denoiser, 1.0, 0.0), unknown, settings, noise, begun):
            yield event


def probabilities(denoiser: Denoiser, state: ChainState, x: Tensor, noisy: Tensor) -> Tensor:
    """p(x_0^i | other tokens, condition) of every token that the state does not keep, float [B, N]; 1 where it does.

    x: x_0, int64 [B, N]; noisy: x_t at the state's noise levels, int64 [B, N]. Two passes: first the black squares of a
    chessboard are noisy, then the white ones, so that each token sees those above, below, left and right of it.
    """
    chances = torch.ones(x.shape, device=x.device)
    side = math.isqrt(denoiser.config.tokens)
    place = torch.arange(x.shape[1], device=x.device)
    color = (place // side + place % side) % 2
    for part in range(2):
        unknown = (color == part) & (state.noise_level > 0)
        if unknown.any():
            logits = denoiser.draft_logits(
                x_t=torch.where(unknown, noisy, x), noise_t=state.noise_level.where(unknown, 0.0), **state.given
            )
            p = logits.float().softmax(-1).gather(-1, x[..., None])[..., 0]
            chances = torch.where(unknown, p, chances)
    return chances


class Sampler:
    def __init__(self, model: ImageBARTModel) -> None:
        self.model, self.packed = model, PackedNetwork()

    def warm_up(self) -> None:
        """Packs what the first run begins with."""
        self.packed(self.steps(SamplingSettings())[-1].network)

    def steps(self, settings: SamplingSettings, strength: float = 1.0) -> Sequence[Step]:
        """The chain's steps, t = 1 first, from noise level `strength`, over 0 and at most 1, on.

        Each of a denoiser's removes as much noise. A model of stages starts with the finest that expects at least as
        much noise. Raises InputError for steps that the model does not have.
        """
        model, scales = self.model, self.model.scales_of(settings.scales)
        if model.denoiser is not None:
            levels = [strength * t / scales for t in range(scales + 1)]
            return [Step(model.denoiser, noise_t, noise_s) for noise_s, noise_t in pairwise(levels)]
        if settings.corrector_steps:
            raise InputError("This model has no corrector: the number of corrector steps must be 0.")
        levels = [1 - model.schedule.alphacum(t) for t in range(scales + 1)]
        first = next((t for t in range(1, scales) if levels[t] >= strength), scales)
        return [Step(model.stages[t - 1], levels[t], levels[t - 1]) for t in range(1, first + 1)]

    @torch.no_grad()
    def prepare(
        self,
        batch: int,
        settings: SamplingSettings,
        cond: Tensor | None = None,
        *,
        start: Tensor | None = None,
        known: KnownTokens | None = None,
        strength: float = 1.0,
        seed: int | Sequence[int] | None = None,
    ) -> ChainState:
        """Where the chain starts; with a seed, always the same. Arguments as for `ImageBART.stream`.

        known: its strengths are each token's probability to start as `strength` says, else it is that of the image, and
        its noise level is as many times lower; stages use the largest strength for all. seed: also one for each row,
        which then samples as a run of its own with that seed would.
        """
        model, denoiser, device = self.model, self.model.denoiser, self.model.device
        if known is not None:
            known = known.expand(batch, device)
            strength = known.max_strength or strength
        steps = self.steps(settings, strength)
        first = secrets.randbits(32) if seed is None else seed
        seeds = range(first, first + batch) if isinstance(first, int) else first
        generators, start_seeds = row_generators(seeds), [seed + SEED_OFFSET for seed in seeds]
        noise = min(strength, 1 - math.prod(1 - step.beta for step in steps))
        if start is not None:
            x = start
        elif noise == 1 or known is None:
            x = uniform_tokens(model.tokens, model.vocab_size, generators)
        else:
            x = add_noise_rows(known.tokens, noise, model.vocab_size, row_generators(start_seeds))
        x, levels = x.to(device), torch.ones(x.shape, device=device)
        if known is not None and known.keep is not None:
            tokens, levels = self._masked(known, known.keep, start_seeds)
            levels = levels if denoiser is not None else (levels > 0).float()  # all that stages know
            x = torch.where(steps[-1].sees(levels), tokens, x)
        if model.conditioner.length:
            cond = (model.conditioner.unconditional(batch) if cond is None else cond).to(device)
            if settings.guidance != 1:
                cond = torch.cat([cond, model.conditioner.unconditional(batch).to(device)])
        state = ChainState(steps, model.scales_of(settings.scales), x, levels, generators, cond)
        if denoiser is None:
            return state
        denoiser, color_hints = self.packed(denoiser), None if known is None else known.color_hints
        hint_embeds = denoiser.embed_hints(color_hints)
        return replace(state, prompt_embeds=denoiser.encode_prompt(cond), hint_embeds=hint_embeds)

    def _masked(self, known: KnownTokens, keep: Tensor, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Known tokens as the chain starts from them, int64 [B, N], and their noise levels, float [B, N]."""
        tokens, device = known.tokens, keep.device
        levels = (~keep).float() if known.noise_level is None else known.noise_level.where(~keep, 0.0)
        if known.strength is None:
            return tokens, levels
        rows = row_generators(seeds)
        uniform = uniform_tokens(self.model.tokens, self.model.vocab_size, rows).to(device)
        chances = torch.stack([torch.rand(self.model.tokens, generator=row) for row in rows]).to(device)
        masked = torch.where(levels < 1, tokens, uniform)
        original = tokens if known.original is None else known.original
        return torch.where(chances < known.strength, masked, original), levels * known.strength

    def stream(self, state: ChainState, settings: SamplingSettings) -> Iterator[ChainEvent]:
        """Runs the chain, an event a pass of a network."""
        return sample_chain(state, self.packed, settings)
