"""One step of the chain, x_t to x_s: by a published stage, or by the denoiser between two noise levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from imagebart.diffusion import reverse_step
from imagebart.models.denoiser import Denoiser, DenoiserInput, mask_sides
from imagebart.models.stages import Stage
from imagebart.models.transformer import DecoderInput, KVCache, Transformer
from imagebart.sampling.logits import guided
from imagebart.sampling.packed_linear import threads_for


class Step(Protocol):
    """A reverse step, x_t to x_s."""

    vocab_size: int  # K
    beta: float  # probability of a token of x_s to be replaced by noise in x_t

    @property
    def decoder(self) -> Transformer: ...

    def keeps(self, noise_level: Tensor) -> Tensor:
        """Which tokens it does not sample, bool [B, N], by their noise levels."""

    def sees(self, noise_level: Tensor) -> Tensor:
        """Which tokens of the chain's start it takes as x_t, bool [B, N], by their noise levels."""

    def prepare(self, given: DenoiserInput) -> DecoderInput:
        """Everything that is computed once. given: its noise levels are the tokens' own, which the step may limit."""

    def add_x_t_evidence(self, logits: Tensor, x_t: Tensor, noise_level: Tensor) -> Tensor:
        """The decoder's logits [B, S, K], x_t and its noise_level -> logits that temperature and filters act on."""

    def reverse(self, logits: Tensor, x_t: Tensor, noise_level: Tensor) -> Tensor:
        """Filtered logits [B, S, K] -> log p(x_s | x_t), up to a constant."""


class StageStep:
    """A published stage, which predicts x_{t-1} itself."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.vocab_size, self.beta = stage.config.vocab_size, stage.config.beta

    @property
    def decoder(self) -> Transformer:
        return self.stage.decoder

    def keeps(self, noise_level: Tensor) -> Tensor:
        return noise_level == 0

    sees = keeps

    def prepare(self, given: DenoiserInput) -> DecoderInput:
        return self.stage.prepare(given.x_t, given.cond)

    def add_x_t_evidence(self, logits: Tensor, x_t: Tensor, noise_level: Tensor) -> Tensor:
        return self.stage.add_x_t_evidence(logits, x_t)

    def reverse(self, logits: Tensor, x_t: Tensor, noise_level: Tensor) -> Tensor:
        return logits


class DenoisingStep:
    """The denoiser from noise level noise_t to noise_s: it predicts x_0, from which x_s follows.

    A token whose own level is below noise_t keeps that level; the first step whose noise_s is lower samples it.
    """

    def __init__(self, denoiser: Denoiser, noise_t: float, noise_s: float) -> None:
        if not 0 <= noise_s < noise_t <= 1:
            raise ValueError(f"a step from noise {noise_t:g} to {noise_s:g}, expected 0 <= noise_s < noise_t <= 1")
        self.denoiser, self.noise_t, self.noise_s = denoiser, noise_t, noise_s
        self.vocab_size = denoiser.config.vocab_size
        self.beta = 1 - (1 - noise_t) / (1 - noise_s)

    @property
    def decoder(self) -> Transformer:
        return self.denoiser.decoder

    def keeps(self, noise_level: Tensor) -> Tensor:
        return noise_level <= self.noise_s

    def sees(self, noise_level: Tensor) -> Tensor:
        return (noise_level <= self.noise_t) & (noise_level < 1)

    def prepare(self, given: DenoiserInput) -> DecoderInput:
        noise_t, noise_s = given.noise_t.clamp(max=self.noise_t), given.noise_s.clamp(max=self.noise_s)
        decoder_input, encoded = self.denoiser.prepare(replace(given, noise_t=noise_t, noise_s=noise_s))
        decoder_input.drafts = self.add_x_t_evidence(self.denoiser.draft_head(encoded), given.x_t, given.noise_t)
        return decoder_input

    def add_x_t_evidence(self, logits: Tensor, x_t: Tensor, noise_level: Tensor) -> Tensor:
        return self.denoiser.add_x_t_evidence(logits, x_t, self._noise_t(noise_level))

    def reverse(self, logits: Tensor, x_t: Tensor, noise_level: Tensor) -> Tensor:
        if self.noise_s == 0:
            return logits  # x_s is x_0
        return reverse_step(logits.softmax(-1), x_t, self._noise_t(noise_level), self.noise_s).log()

    def _noise_t(self, noise_level: Tensor) -> Tensor:
        """Noise levels of the tokens that are sampled; noise_t for the others, whose predictions are not used."""
        return torch.where(self.keeps(noise_level), self.noise_t, noise_level.clamp(max=self.noise_t))


def denoising_steps(denoiser: Denoiser, scales: int, noise_t: float = 1.0) -> list[DenoisingStep]:
    """Steps of the denoiser from a noise level down to 0, t = 1 first; each removes as much noise (geometric betas)."""
    levels = [noise_t * t / scales for t in range(scales + 1)]
    return [DenoisingStep(denoiser, levels[t], levels[t - 1]) for t in range(1, scales + 1)]


@dataclass(frozen=True)
class KnownTokens:
    """What is known of B images of N tokens before they are sampled. One row may stand for all: [1, N] or [N]."""

    tokens: Tensor  # int64 [B, N]
    keep: Tensor | None = None  # bool [B, N], True: the token is kept; None: none is
    noise_level: Tensor | None = None  # of tokens that are not kept, float [B, N] in [0, 1]; None: 1
    strength: Tensor | None = None  # of tokens that are not kept, float [B, N], over 0, at most 1; None: 1
    original: Tensor | None = None  # what a token starts from where its strength leaves it, int64 [B, N]; None: tokens
    color_hints: Tensor | None = None  # colors of kept parts, bool [B, N, K]: see `imagebart.inpainting`

    @staticmethod
    def concatenate(parts: Sequence[KnownTokens]) -> KnownTokens:
        """Those of several images as one batch; all have the same fields."""
        columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(KnownTokens)}
        return KnownTokens(**{name: torch.cat(rows) for name, rows in columns.items() if rows[0] is not None})

    @property
    def max_strength(self) -> float | None:
        """The noise level that a chain with a strength for each token starts from."""
        if self.strength is None or self.keep is None:
            return None
        return float(self.strength.masked_fill(self.keep, 0).max()) or 1.0

    def expand(self, shape: tuple[int, int], vocab_size: int, device: torch.device) -> KnownTokens:
        """The same with each of B rows of N tokens, of K, on a device; raises ValueError naming what does not fit."""
        parts: dict[str, Tensor] = {}
        for field in fields(self):
            name, part = "known" if field.name == "tokens" else field.name, getattr(self, field.name)
            if part is None:
                continue
            whole = (*shape, vocab_size) if name == "color_hints" else shape
            if tuple(part.shape) not in (whole, (1, *whole[1:]), whole[1:]):
                raise ValueError(f"{name} has shape {list(part.shape)}, expected {list(whole)} or {list(whole[1:])}")
            if name in ("known", "original"):
                check_tokens(name, part, tuple(part.shape), vocab_size)
            if name in ("keep", "color_hints") and part.dtype != torch.bool:
                raise ValueError(f"{name} is of type {part.dtype}, expected torch.bool")
            parts[field.name] = part.to(device).expand(whole)
        for name in parts.keys() & {"noise_level", "strength"}:
            if self.keep is None:
                raise ValueError(f"{name} was given without keep: it is of tokens that are known and not kept")
            own = parts[name][~parts["keep"]]
            if not ((own > 0 if name == "strength" else own >= 0) & (own <= 1)).all():
                expected = "over 0 and at most 1" if name == "strength" else "0 to 1"
                raise ValueError(f"{name} is from {own.min():g} to {own.max():g}, expected {expected}")
        return KnownTokens(**parts)


def check_tokens(name: str, tokens: Tensor, shape: tuple[int, ...], vocab_size: int) -> None:
    """Raises ValueError unless these are tokens in [0, vocab_size) of a shape."""
    if tuple(tokens.shape) != shape:
        raise ValueError(f"{name} has shape {list(tokens.shape)}, expected {list(shape)}")
    if tokens.dtype != torch.long:
        raise ValueError(f"{name} is of type {tokens.dtype}, expected torch.int64")
    if tokens.numel() and not (int(tokens.min()) >= 0 and int(tokens.max()) < vocab_size):
        raise ValueError(
            f"{name} has tokens from {int(tokens.min())} to {int(tokens.max())}, expected 0 to {vocab_size - 1}"
        )


@dataclass(frozen=True)
class ChainState:
    """The start of a chain: B images of N tokens, and what they are conditioned on."""

    steps: Sequence[Step]  # to run, t = 1 first
    scales: int  # T, of which these are the last
    x: Tensor  # x_t of the last of them, with the known tokens that it sees, int64 [B, N]
    noise_level: Tensor  # chance of a known token to be wrong, float [B, N]: 0 where it is kept, 1 where it is unknown
    generators: list[torch.Generator]  # of the rows
    cond: Tensor | None = None  # conditioning tokens, int64 [B, L]
    unconditional: Tensor | None = None  # those of an absent condition, int64 [B, L], for guidance
    color_hints: Tensor | None = None  # colors of kept parts, bool [B, N, K]: see `imagebart.inpainting`
    window: Tensor | None = None  # tokens that the denoiser is given, as many in each row, bool [B, N]; None: all
    places: Tensor | None = None  # of a cropped state: which tokens of the image it has, int64 [B, N]; None: all
    # See `embed`; of cond, of unconditional, and of color_hints and the mask's sides.
    prompt_embeds: Tensor | None = None
    unconditional_embeds: Tensor | None = None
    hint_embeds: Tensor | None = None

    @property
    def total(self) -> int:
        """Tokens to sample in a pass of the coarsest step."""
        return int((~self.steps[-1].keeps(self.noise_level)).any(0).sum())

    def select(self, rows: Tensor) -> ChainState:
        """The same with some of the rows only, int64 [B']; the generators stay those of all rows."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        chosen: dict[str, Any] = {name: part[rows] for name, part in parts.items() if isinstance(part, Tensor)}
        return replace(self, **chosen)

    def crop(self) -> tuple[ChainState, Tensor]:
        """An embedded state with the tokens of its window only, and which they are, ascending, int64 [B, n]."""
        assert self.window is not None, "a state without a window has all tokens"
        places = self.window.nonzero()[:, 1].view(len(self.window), -1)
        x, noise_level, hint_embeds = self.x.gather(1, places), self.noise_level.gather(1, places), self.hint_embeds
        if hint_embeds is not None:
            hint_embeds = hint_embeds.gather(1, places[..., None].expand(-1, -1, hint_embeds.shape[2]))
        cropped = replace(self, x=x, noise_level=noise_level, hint_embeds=hint_embeds, window=None, places=places)
        return cropped, places

    def embed(self) -> ChainState:
        """The same with the conditions' embeddings, which a denoiser's steps have in common; itself if it has them."""
        step = self.steps[0]
        if not isinstance(step, DenoisingStep) or self.prompt_embeds is not None or self.hint_embeds is not None:
            return self
        conds = [cond for cond in (self.cond, self.unconditional) if cond is not None]
        embeds = step.denoiser.encode_prompt(torch.cat(conds) if conds else None)
        sides = mask_sides(self.noise_level > 0) if step.denoiser.config.mask_sides else None
        embedded = replace(self, hint_embeds=step.denoiser.embed_hints(self.color_hints, sides))
        if embeds is None:
            return embedded
        prompt_embeds, *rest = embeds.split(len(self.x))
        return replace(embedded, prompt_embeds=prompt_embeds, unconditional_embeds=rest[0] if rest else None)


class StepRun:
    """A step while its tokens are sampled, some positions at a time; with guidance in a batch of twice the size.

    The decoder gets token i of [prefix, x_s] at its position i; at its position `first` + n it predicts token n of x_s.
    """

    def __init__(self, step: Step, decoder: Transformer, state: ChainState, guidance: float = 1.0) -> None:
        """decoder: the step's, which may be packed. state: embedded, and cropped if it has a window; its x is x_t."""
        self.step, self.decoder, self.guidance = step, decoder, guidance
        self.x_t, self.noise_level, cond, prompt_embeds = state.x, state.noise_level, state.cond, state.prompt_embeds
        self.guided = guidance != 1 and cond is not None and cond.shape[1] > 0
        if self.guided:
            if state.unconditional is None:
                raise ValueError("guidance needs a model that was trained with its condition dropped at random")
            assert cond is not None
            cond = torch.cat([cond, state.unconditional])
            if prompt_embeds is not None and state.unconditional_embeds is not None:
                prompt_embeds = torch.cat([prompt_embeds, state.unconditional_embeds])
        hint_embeds = None if state.hint_embeds is None else self._both(state.hint_embeds)
        x_t, levels = self._both(self.x_t), self._both(self.noise_level)
        places = None if state.places is None else self._both(state.places)
        both = DenoiserInput(x_t, levels, levels, cond, None, places, None, prompt_embeds, hint_embeds)
        self.given = step.prepare(both)
        self.given.make_contiguous()
        self.cache = KVCache(decoder.config, len(self.given.prefix), decoder.position_embedding[:0])
        self.first = self.given.prefix.shape[1] - 1

    @property
    def rows(self) -> int:
        """Of the decoder's batch."""
        return len(self.given.prefix)

    @property
    def drafts(self) -> Tensor | None:
        """Logits of every token at once, [B, N, K], if the step has any."""
        drafts = self.given.drafts
        return guided(drafts, self.guidance) if self.guided and drafts is not None else drafts

    def known(self, begins: list[int], length: int) -> tuple[Tensor, Tensor]:
        """x_t at the positions that these of the decoder predict, int64 [B, length], and its noise levels."""
        device = self.x_t.device
        positions = torch.tensor(begins, device=device)[:, None] + torch.arange(length, device=device)
        places = (positions - self.first).clamp(min=0)
        return self.x_t.gather(1, places), self.noise_level.gather(1, places)

    def logits(self, x_s: Tensor, begins: list[int], length: int, skip: int = 0) -> Tensor:
        """Runs the decoder over `length` tokens of x_s, int64 [B, N], row b's from its position begins[b] on.

        Returns the logits at all but the first `skip` of them, [B, length - skip, K]. The decoder must have run on all
        tokens before a row's first, as they are now; where it runs on a position again, the cache is overwritten.
        """
        x_t, noise_level = self.known([begin + skip for begin in begins], length - skip)
        if self.guided:
            begins = begins + begins
        given, device = self.given, x_s.device
        positions = torch.tensor(begins, device=device)[:, None] + torch.arange(length, device=device)
        tokens = torch.cat([given.prefix, self._both(x_s)[:, :-1]], 1).gather(1, positions)
        rows = torch.arange(len(tokens), device=device)[:, None]
        added_embeds = None if given.added_embeds is None else given.added_embeds[rows, positions]
        places = None if given.places is None else given.places[rows, positions]
        decoder = self.decoder
        assert decoder.head is not None
        with threads_for(decoder):
            hidden = decoder(tokens, added_embeds, given.cross_kv, self.cache, begins, places)[:, skip:]
            logits = decoder.head(hidden).to(hidden.dtype)
        logits = self.step.add_x_t_evidence(logits, self._both(x_t), self._both(noise_level))
        return guided(logits, self.guidance) if self.guided else logits

    def select(self, rows: Tensor) -> None:
        """Continues with some of the rows, int64 [B']."""
        both = torch.cat([rows, rows + len(self.x_t)]) if self.guided else rows
        self.given.select(both)
        self.cache.select(both)
        self.x_t, self.noise_level = self.x_t[rows], self.noise_level[rows]

    def _both(self, rows: Tensor) -> Tensor:
        """With guidance, the rows twice: with the condition, and without."""
        return torch.cat([rows, rows]) if self.guided else rows
