"""Whether real pictures can be told from made ones, by a small network trained for it: at chance where they cannot.

Pictures are halved at random; a network learns from one half and is asked about the other, and the other way round, so
that each picture is judged once, by a network that has seen neither it nor what was made of it (two-fold
cross-validation; as classifier two-sample tests do, Lopez-Paz and Oquab, 2017).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.swa_utils import update_bn

from imagebart.evaluation.intervals import Interval, share_of
from imagebart.pictures.classifier import Classifier, ClassifierConfig

STEPS = 200
BATCH = 16  # real pictures a step, and as many made ones
LEAST = 4  # pictures: two a half
CHANNELS = (32, 48, 64, 96)


def told_apart(real: Tensor, made: Tensor, steps: int = STEPS, seed: int = 0) -> Interval:
    """The share of pictures, real and made, that are told rightly: 0.5 where they cannot be told apart.

    real, made: float [B, 3, H, W] in [-1, 1], row i of the one made of row i of the other.
    """
    of_real, of_made = (doubt[0] for doubt in doubts(real, [made], steps, seed))
    right = (of_real < 0).int() + (of_made >= 0).int()
    return share_of(right.tolist(), [2] * len(real))


def doubts(real: Tensor, made: Sequence[Tensor], steps: int = STEPS, seed: int = 0) -> tuple[Tensor, Tensor]:
    """How made pictures look, in logits, over 0 for made: the real ones, [1, B], and those of each kind, [M, B].

    The network learns to tell real pictures from all kinds of made ones alike. Raises ValueError for under 4 pictures.
    """
    count = len(real)
    if count < LEAST:
        raise ValueError(f"{count} pictures to tell apart, expected at least {LEAST}")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    halves = (order[: count // 2], order[count // 2 :])
    found = torch.zeros(1 + len(made), count)
    for learnt, asked in (halves, halves[::-1]):
        network = _taught(real[learnt], [kind[learnt] for kind in made], steps, seed)
        for row, images in zip(found, (real, *made), strict=True):
            with torch.no_grad():
                logits = torch.cat([network(part)[0] for part in images[asked].split(64)])
            row[asked] = logits[:, 1] - logits[:, 0]
    return found[:1], found[1:]


def _taught(real: Tensor, made: Sequence[Tensor], steps: int, seed: int) -> Classifier:
    """A network that has learnt to tell real pictures from made ones. The global RNG is left alone."""
    side = real.shape[-1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Classifier(ClassifierConfig({"made": ("no", "yes")}, side, CHANNELS))
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps + 1)
        answers = torch.tensor([0, 1]).repeat_interleave(min(BATCH, len(real)))
        for _ in range(steps):
            rows = torch.randperm(len(real))[:BATCH]
            kinds = torch.randint(len(made), (len(rows),)).tolist()
            # A picture beside what was made of it: nothing but the making tells the two apart.
            others = [made[kind][row] for kind, row in zip(kinds, rows.tolist(), strict=True)]
            shown = torch.cat([real[rows], torch.stack(others)])
            turned = (torch.rand(len(rows)) < 0.5).repeat(2)[:, None, None, None]
            loss = F.cross_entropy(network(torch.where(turned, shown.flip(-1), shown))[0], answers)
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        # What its layers take for usual is still that of weights some steps ago.
        mixed = torch.cat([real, *made])[torch.randperm((1 + len(made)) * len(real))]
        update_bn(mixed.split(64), network)
    return network.eval()
