"""A step of the chain, x_t to x_s, by a published stage or by the denoiser between two noise levels; its sampling."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from imagebart.core.settings import SamplingSettings
from imagebart.models.denoiser import Denoiser, Stage
from imagebart.models.diffusion import add_noise_rows, gumbel_noise, reverse_step, uniform_tokens
from imagebart.models.transformer import Cache
from imagebart.sampling.packed_linear import PASS_ROWS, threads_for


@dataclass(frozen=True)
class KnownTokens:
    """What is known of B images of N tokens before they are sampled. One row may stand for all: [1, N] or [N]."""

    tokens: Tensor  # int64 [B, N]
    keep: Tensor | None = None  # bool [B, N], True: the token is kept; None: none is
    noise_level: Tensor | None = None  # of tokens that are not kept, float [B, N] in [0, 1]; None: 1
    strength: Tensor | None = None  # of tokens that are not kept, float [B, N], over 0, at most 1; None: 1
    original: Tensor | None = None  # what a token starts from where its strength leaves it, int64 [B, N]; None: tokens
    color_hints: Tensor | None = None  # colors of kept parts, bool [B, N, K]: see `imagebart.sampling.inpainting`

    @staticmethod
    def concatenate(parts: Sequence["KnownTokens"]) -> "KnownTokens":
        """Those of several images as one batch; all have the same fields."""
        columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(KnownTokens)}
        return KnownTokens(**{name: torch.cat(rows) for name, rows in columns.items() if rows[0] is not None})

    @property
    def max_strength(self) -> float | None:
        """The noise level that a chain with a strength for each token starts from."""
        if self.strength is None or self.keep is None:
            return None
        return float(self.strength.masked_fill(self.keep, 0).max()) or 1.0

    def expand(self, batch: int, device: torch.device) -> "KnownTokens":
        """The same with each of B rows, on a device."""
        parts = {field.name: part for field in fields(self) if (part := getattr(self, field.name)) is not None}
        shapes = {name: part.shape[1:] if part.ndim > 1 else part.shape for name, part in parts.items()}
        return KnownTokens(**{name: part.to(device).expand(batch, *shapes[name]) for name, part in parts.items()})


@dataclass(frozen=True)
class Step:
    """A reverse step: the denoiser predicts x_0, from which x_s follows; a published stage predicts x_s itself.

    A token whose own noise level is below noise_t keeps that level; the first step whose noise_s is lower samples it.
    """

    network: Stage | Denoiser
    noise_t: float  # noise levels of x_t and of x_s: 1 - alphacum
    noise_s: float

    @property
    def beta(self) -> float:
        """The probability of a token of x_s to be replaced by noise in x_t."""
        return 1 - (1 - self.noise_t) / (1 - self.noise_s)

    def keeps(self, noise_level: Tensor) -> Tensor:
        """Which tokens it does not sample, bool [B, N], by their noise levels."""
        return noise_level <= self.noise_s

    def sees(self, noise_level: Tensor) -> Tensor:
        """Which tokens of the chain's start it takes as x_t, bool [B, N], by their noise levels."""
        return (noise_level <= self.noise_t) & (noise_level < 1)

    def prepare(self, state: "ChainState") -> tuple[Cache, Tensor | None]:
        """What is computed once: the decoder's input and, if the network has them, logits of all tokens at once."""
        x_t, noise_level = state.x, state.noise_level
        if isinstance(self.network, Stage):
            return self.network.prepare(x_t, state.cond), None
        noise_t, noise_s = noise_level.clamp(max=self.noise_t), noise_level.clamp(max=self.noise_s)
        cache, encoded = self.network.prepare(x_t, noise_t, noise_s, **state.given)
        return cache, self.add_x_t_evidence(self.network.draft_head(encoded), x_t, noise_level)

    def add_x_t_evidence(self, logits: Tensor, x_t: Tensor, noise_level: Tensor) -> Tensor:
        """The decoder's logits [B, S, K], x_t and its noise_level -> logits that temperature and filters act on."""
        if isinstance(self.network, Stage):
            return self.network.add_x_t_evidence(logits, x_t)
        return self.network.add_x_t_evidence(logits, x_t, self._noise_t(noise_level))

    def reverse(self, logits: Tensor, x_t: Tensor, noise_level: Tensor) -> Tensor:
        """Filtered logits [B, S, K] -> log p(x_s | x_t), up to a constant."""
        if isinstance(self.network, Stage) or self.noise_s == 0:
            return logits  # already of x_s
        return reverse_step(logits.softmax(-1), x_t, self._noise_t(noise_level), self.noise_s).log()

    def _noise_t(self, noise_level: Tensor) -> Tensor:
        """Noise levels of the tokens that are sampled; noise_t for the others, whose predictions are not used."""
        return torch.where(self.keeps(noise_level), self.noise_t, noise_level.clamp(max=self.noise_t))


@dataclass(frozen=True)
class ChainState:
    """Where a chain starts: B images of N tokens, and what they are conditioned on."""

    steps: Sequence[Step]  # to run, t = 1 first
    scales: int  # T, of which these are the last
    x: Tensor  # x_t of the last of them, with the known tokens that it sees, int64 [B, N]
    noise_level: Tensor  # chance of a known token to be wrong, float [B, N]: 0 where it is kept, 1 where it is unknown
    generators: list[torch.Generator]  # of the rows
    # Conditioning tokens, int64 [B, L]; for guidance [2 B, L], of which the second half are those of no condition.
    cond: Tensor | None = None
    prompt_embeds: Tensor | None = None  # of cond, see `Denoiser.encode_prompt`
    hint_embeds: Tensor | None = None  # of the tokens, see `Denoiser.embed_hints`

    @property
    def guided(self) -> bool:
        """Whether each row is sampled with its condition and without."""
        return self.cond is not None and len(self.cond) > len(self.x)

    @property
    def total(self) -> int:
        """Tokens to sample in a pass of the coarsest step."""
        return int((~self.steps[-1].keeps(self.noise_level)).any(0).sum())

    @property
    def given(self) -> dict[str, Tensor | None]:
        """What `Denoiser.encode` takes beside x_t and its noise levels."""
        return {"cond": self.cond, "prompt_embeds": self.prompt_embeds, "hint_embeds": self.hint_embeds}

    def select(self, rows: Tensor) -> "ChainState":
        """The same with some of the rows only, int64 [B']; the generators stay those of all rows."""
        conds = torch.cat([rows, rows + len(self.x)]) if self.guided else rows
        return self._at(conds, "cond", "prompt_embeds")._at(rows, "x", "noise_level", "hint_embeds")

    def doubled(self) -> "ChainState":
        """With guidance, the rows twice: with the condition, and without."""
        rows = torch.arange(len(self.x), device=self.x.device).repeat(2 if self.guided else 1)
        return self._at(rows, "x", "noise_level", "hint_embeds")

    def without_guidance(self) -> "ChainState":
        return self._at(slice(len(self.x)), "cond", "prompt_embeds")

    def _at(self, index: Any, *names: str) -> "ChainState":
        return replace(self, **{name: part[index] for name in names if (part := getattr(self, name)) is not None})

    def gumbel(self) -> Tensor:
        """Gumbel noise of each token, [B, N, K]."""
        config = self.steps[0].network.config
        return gumbel_noise((config.tokens, config.vocab_size), self.generators).to(self.x.device)

    def uniform(self) -> Tensor:
        """Uniform noise, int64 [B, N]."""
        config = self.steps[0].network.config
        return uniform_tokens(config.tokens, config.vocab_size, self.generators).to(self.x.device)

    def add_noise(self, x: Tensor, probability: float) -> Tensor:
        """Replaces each token of x, int64 [B, N], with a probability by a uniform one."""
        vocab_size = self.steps[0].network.config.vocab_size
        return add_noise_rows(x, probability, vocab_size, self.generators).to(self.x.device)


class StepRun:
    """A step while its tokens are sampled, some positions at a time; with guidance in a batch of twice the size.

    The decoder gets token i of [prefix, x_s] at its position i; at its position `first` + n it predicts token n of x_s.
    """

    def __init__(self, step: Step, state: ChainState, guidance: float = 1.0) -> None:
        self.step, self.decoder, self.guidance, self.guided = step, step.network.decoder, guidance, state.guided
        self.copies = 2 if self.guided else 1  # of a row: with the condition, and without
        self.x_t, self.noise_level = state.x, state.noise_level
        self.cache, drafts = step.prepare(state.doubled())
        self.cache.allocate(self.decoder)
        self.drafts = drafts if drafts is None or not self.guided else guided(drafts, guidance)  # [B, N, K]
        self.first = self.cache.prefix.shape[1] - 1

    def predicted(self, begins: list[int], length: int) -> Tensor:
        """Which tokens of x_s the decoder predicts at so many positions from these on, int64 [B, length]."""
        device = self.x_t.device
        positions = torch.tensor(begins, device=device)[:, None] + torch.arange(length, device=device)
        return (positions - self.first).clamp(min=0)

    def logits(self, x_s: Tensor, begins: list[int], length: int, skip: int = 0) -> Tensor:
        """Runs the decoder over `length` tokens of x_s, int64 [B, N], row b's from its position begins[b] on.

        Returns the logits at all but the first `skip` of them, [B, length - skip, K]; see `Transformer.decode`.
        """
        places = self.predicted([begin + skip for begin in begins], length - skip)
        x_t, noise_level = (part.gather(1, places).repeat(self.copies, 1) for part in (self.x_t, self.noise_level))
        with threads_for(self.decoder):
            x_s, begins = x_s.repeat(self.copies, 1), begins * self.copies
            hidden = self.decoder.decode(x_s, self.cache, begins, length)[:, skip:]
            logits = self.decoder.head(hidden)
        logits = self.step.add_x_t_evidence(logits, x_t, noise_level)
        return guided(logits, self.guidance) if self.guided else logits

    def select(self, rows: Tensor) -> None:
        """Continues with some of the rows, int64 [B']."""
        self.cache.select(torch.cat([rows, rows + len(self.x_t)]) if self.guided else rows)
        self.x_t, self.noise_level = self.x_t[rows], self.noise_level[rows]


def guided(logits: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance: logits [2 B, S, K], with cond first -> uncond + guidance (cond - uncond), [B, S, K]."""
    with_cond, without = logits.float().chunk(2)
    return without + guidance * (with_cond - without)


LIKELIEST = 64  # tokens among which top-p is looked for first: to sort all takes five times as long


def filter_logits(logits: Tensor, settings: SamplingSettings) -> Tensor:
    """Temperature, top-k and top-p: logits [..., K] -> float32 [..., K], excluded tokens at -inf."""
    logits = logits.float() / settings.temperature
    if settings.top_k is not None and settings.top_k < logits.shape[-1]:
        least = logits.topk(settings.top_k).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if settings.top_p is not None and settings.top_p < 1:
        shares = logits.softmax(-1)
        ordered, order = shares.topk(min(LIKELIEST, shares.shape[-1]))
        if (ordered.sum(-1) < settings.top_p).any():
            ordered, order = shares.sort(descending=True)
        kept = ordered.cumsum(-1) - ordered < settings.top_p  # the likeliest token always stays
        logits = logits.masked_fill(~torch.zeros_like(shares, dtype=torch.bool).scatter(-1, order, kept), -torch.inf)
    return logits


# Speculative sampling of one step: many tokens a pass of the decoder, and the result of sampling one by one.
#
# A token is argmax(filtered logits + Gumbel noise), and the noise of every position is fixed before the first is
# sampled. So sampling one by one has a single result, and whatever finds it is exact (predictive sampling, Wiggers and
# Hoogeboom, ICML 2020). Each pass of the decoder gets draft tokens: at first those that the step's encoder predicts for
# all positions at once, or x_t where it predicts none; later the predictions of the last pass. The predictions are
# right up to and including the first that differs from its draft. Tokens that the mask keeps are drafts that are always
# right; nothing is computed after the last unknown token.

MIN_LENGTH = 4  # positions of a pass: with fewer, kernels add in another order
MIN_DRAFTS = 8  # of a row in a pass: of 16 rows, fewer make more passes, and more are computed in vain
MULTIPLE = 2  # lengths are multiples of this


@dataclass(frozen=True, kw_only=True)
class ChainEvent:
    """The state of the chain after a pass of the decoder. Positions that are not sampled yet hold drafts of x_s."""

    tokens: Tensor  # int64 [B, N], the receiver's to keep
    stage: int  # t, from T down to 1
    stages: int  # T
    resample_index: int  # from 0
    resamples: int
    position: int = 0  # tokens sampled in this resample, in every row
    total: int = 0  # tokens to sample in this resample
    done: bool = False  # all are sampled
    nfe: int = 0  # passes of the decoder in this resample
    corrector_step: int = 0  # from 1, once all stages are done


def draft_length(needed: int, unknown: list[bool], rows: int) -> int:
    """How many positions of the decoder a pass computes: as many drafts as make PASS_ROWS rows in all, or MIN_DRAFTS.

    needed: the positions up to the first unknown token; unknown: from that token on, whether each is; rows: of the
    decoder's batch. It changes the result only by rounding, where two tokens are almost equally likely.
    """
    places = [place for place, wanted in enumerate(unknown, 1) if wanted]
    drafts = min(max(MIN_DRAFTS, PASS_ROWS // rows), len(places))
    return max(-(-(needed - 1 + places[drafts - 1]) // MULTIPLE) * MULTIPLE, MIN_LENGTH)


class _Row:
    """One row's drafts. Tokens before `settled` are final; the one at it is unknown, unless all are final."""

    def __init__(self, index: int, drafts: list[int], keep: list[bool]) -> None:
        self.index, self.drafts, self.keep = index, drafts, keep
        self.end = max((i + 1 for i, kept in enumerate(keep) if not kept), default=0)
        self.taken = 0  # the decoder's positions that got final tokens
        self.settled = 0
        self._skip_known()

    @property
    def done(self) -> bool:
        return self.settled >= self.end

    def accept(self, predictions: list[int], position: int, first: int) -> None:
        """Takes a pass's predictions from a position on; those before self.settled are not used."""
        right = True  # the drafts that the pass got so far
        for place in range(self.settled, min(position + len(predictions), self.end)):
            if right:
                self.settled = place + 1
            if not self.keep[place]:
                token = predictions[place - position]
                right = right and self.drafts[place] == token
                self.drafts[place] = token  # after a wrong draft, only a better draft
        self.taken = first + self.settled
        self._skip_known()

    def _skip_known(self) -> None:
        while self.settled < self.end and self.keep[self.settled]:
            self.settled += 1


@torch.no_grad()
def sample_step(
    step: Step,
    state: ChainState,
    settings: SamplingSettings,
    noise: Tensor,
    event: ChainEvent,
    drafts: Tensor | None = None,
) -> Iterator[ChainEvent]:
    """Samples x_s given x_t; yields the step's own drafts, if it makes any, and an event after every pass.

    state: its x is x_t, with the known tokens where they are kept. noise: Gumbel [B, N, K]. event: holds the stage and
    resample of the events. drafts: of x_s, with the known tokens, int64 [B, N]; None: the step's own. Rows advance on
    their own; one that is done leaves the batch.
    """
    x_t, keep = state.x, step.keeps(state.noise_level)
    x_s = x_t.clone() if drafts is None else drafts.clone()
    rows = [_Row(b, *row) for b, row in enumerate(zip(x_s.tolist(), keep.tolist(), strict=True))]
    wanted = (~keep).any(0).tolist()
    event = replace(event, position=0, total=sum(wanted), done=False, nfe=0)
    active = [row for row in rows if not row.done]
    if not active:
        return
    batch = torch.tensor([row.index for row in active], device=x_t.device)
    run = StepRun(step, state.select(batch), settings.guidance)
    if drafts is None and run.drafts is not None:
        unknown = ~keep
        logits = filter_logits(run.drafts[unknown[batch]], settings)
        logits = step.reverse(logits, x_t[unknown], state.noise_level[unknown])
        x_s[unknown] = (logits + noise[unknown]).argmax(-1)
        for row in active:
            row.drafts = x_s[row.index].tolist()
        yield replace(event, tokens=x_s.clone())
    while active:
        begins, length, skip = _span(active, run)
        fed = torch.tensor([row.drafts for row in active], device=x_t.device)
        logits = filter_logits(run.logits(fed, begins, length, skip), settings)
        at = batch[:, None], run.predicted([begin + skip for begin in begins], length - skip)
        tokens = (step.reverse(logits, x_t[at], state.noise_level[at]) + noise[at]).argmax(-1).tolist()
        for row, predictions, begin in zip(active, tokens, begins, strict=True):
            row.accept(predictions, begin + skip - run.first, run.first)
            x_s[row.index] = torch.tensor(row.drafts)
        position = sum(wanted[: min(row.settled if not row.done else len(wanted) for row in rows)])
        event = replace(event, position=position, done=position == event.total, nfe=event.nfe + 1)
        yield replace(event, tokens=x_s.clone())
        going = [i for i, row in enumerate(active) if not row.done]
        if 0 < len(going) < len(active):
            run.select(torch.tensor(going, device=x_t.device))
            batch = batch[going]
        active = [active[i] for i in going]


def _span(active: list[_Row], run: StepRun) -> tuple[list[int], int, int]:
    """What the next pass computes: each row's first position of the decoder; how many; how many only for the cache."""
    first, last = run.first, max(row.end for row in active)
    slowest = min(active, key=lambda row: row.settled)
    needed = max(first + row.settled + 1 - row.taken for row in active)
    unknown = [not kept for kept in slowest.keep[slowest.settled : slowest.end]]
    length = min(draft_length(needed, unknown, len(run.cache.prefix)), first + last)
    begins = [min(row.taken, first + last - length) for row in active]
    return begins, length, min(first + row.settled - begin for row, begin in zip(active, begins, strict=True))
