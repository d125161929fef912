"""95 % intervals, a classifier two-sample test, and the tables that measures are written to.

Shares have Wilson's score interval. The attributes of one image are right or wrong together more often than by chance,
so the number of trials is the effective one, n / (design effect), from the variance between images (the ratio estimator
of cluster sampling; Cochran, Sampling Techniques, 1977, section 3.12).

The two-sample test (Lopez-Paz and Oquab, Revisiting Classifier Two-Sample Tests, 2017) asks whether a small network
can tell real images from generated ones: it is right in 50 % where it cannot (two-fold cross-validation).
"""

import json
import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from imagebart.core.atomic_io import write_text

Z = 1.959964  # standard deviations that hold 95 % of a normal distribution


class Interval(NamedTuple):
    """A value and the 95 % interval around it."""

    value: float
    low: float
    high: float


def wilson(share: float, trials: float) -> Interval:
    """Wilson's score interval of a share, 0 to 1, of 1 or more independent trials."""
    scale = 1 + Z * Z / trials
    center = (share + Z * Z / (2 * trials)) / scale
    half = Z * math.sqrt(share * (1 - share) / trials + Z * Z / (4 * trials * trials)) / scale
    return Interval(share, max(0.0, min(share, center - half)), min(1.0, max(share, center + half)))


def share_of(right: Sequence[int], asked: Sequence[int] | None = None) -> Interval:
    """The share of right answers, of the numbers of right and of all answers of each image (asked; None: one each)."""
    pairs = [(r, a) for r, a in zip(right, asked or [1] * len(right), strict=True) if a]
    if not pairs:
        raise ValueError("nothing was asked of any image, expected at least one answer")
    total = sum(a for _, a in pairs)
    share = sum(r for r, _ in pairs) / total
    clusters = len(pairs)
    spread = sum((r - share * a) ** 2 for r, a in pairs)
    if clusters < 2 or spread == 0:
        return wilson(share, clusters)  # no difference between clusters: each image counts once
    variance = clusters / (clusters - 1) * spread / total**2
    return wilson(share, min(max(share * (1 - share) / variance, 1.0), total))


def mean_of(values: Sequence[float]) -> Interval:
    """The mean of independent values, at least 1, with the normal interval of its standard error."""
    mean = statistics.fmean(values)
    half = Z * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return Interval(mean, mean - half, mean + half)


def median_of(values: Sequence[float]) -> Interval:
    """The median of independent values, at least 6, between the order statistics that hold it in 95 % of samples.

    As many values lie below it as a coin shows heads (Conover, Practical Nonparametric Statistics, 1999, section 3.2).
    """
    ordered, count = sorted(values), len(values)
    tail, rank = 0.5**count, 0
    while tail <= 0.025:
        rank += 1
        tail += math.comb(count, rank) / 2**count  # whole numbers: of many values they are large
    if rank == 0:
        raise ValueError(f"the median of {count} values, expected at least 6")
    return Interval(statistics.median(ordered), ordered[rank - 1], ordered[count - rank])


TEST_STEPS = 200  # of the two-sample test's networks
TEST_BATCH = 16  # real images a step, and as many generated ones
TEST_CHANNELS = (32, 48, 64, 96)
MIN_IMAGES = 4  # of the two-sample test: two a half


def two_sample_test(real: Tensor, made: Tensor, steps: int = TEST_STEPS, seed: int = 0) -> Interval:
    """The share of images that are classified rightly as real or made: 0.5 where they look alike to it.

    real, made: float [B, 3, H, W] in [-1, 1], B > 3, row i of the one made of row i of the other.
    """
    count = len(real)
    if count < MIN_IMAGES:
        raise ValueError(f"{count} images to tell apart, expected at least {MIN_IMAGES}")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    halves = (order[: count // 2], order[count // 2 :])
    right = torch.zeros(count, dtype=torch.int)
    for training, test in (halves, halves[::-1]):
        network = _train_classifier(real[training], made[training], steps, seed)
        for images, label in ((real, 0), (made, 1)):
            with torch.no_grad():
                logits = torch.cat([network(part) for part in images[test].split(64)])
            right[test] += (logits.argmax(1) == label).int()
    return share_of(right.tolist(), [2] * count)


def _train_classifier(real: Tensor, made: Tensor, steps: int, seed: int) -> nn.Module:
    """A network trained to tell real images from made ones. The global RNG is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _classifier().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps + 1)
        for _ in range(steps):
            # Each image beside what was made of it: they differ in nothing else.
            rows = torch.randperm(len(real))[:TEST_BATCH]
            flipped = (torch.rand(len(rows)) < 0.5).repeat(2)[:, None, None, None]
            images = torch.cat([real[rows], made[rows]])
            logits = network(torch.where(flipped, images.flip(-1), images))
            F.cross_entropy(logits, torch.tensor([0, 1]).repeat_interleave(len(rows))).backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        # The running statistics of batch normalization are still those of weights some steps ago.
        update_bn(torch.cat([real, made])[torch.randperm(2 * len(real))].split(64), network)
    return network.eval()


def _classifier() -> nn.Module:
    """Images float [B, 3, H, W] -> logits of being real and of being made, [B, 2]."""
    layers: list[nn.Module] = [nn.PixelUnshuffle(2)]
    width = 3 * 4
    for channels in TEST_CHANNELS:
        for inputs, stride in ((width, 1), (channels, 2)):
            convolution = nn.Conv2d(inputs, channels, 3, stride, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(channels), nn.ReLU()]
        width = channels
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, 2)]
    return nn.Sequential(*layers)


@dataclass(frozen=True)
class Measure:
    """A number with its 95 % interval, where there is one; shares are 0 to 1."""

    name: str
    value: float
    low: float | None
    high: float | None
    images: int
    unit: str = ""  # "%" for shares
    goal: str = ""

    @property
    def interval(self) -> str:
        if self.low is None or self.high is None:
            return ""
        return f"{_number(self.low, self.unit)} to {_number(self.high, self.unit)}"


def report(measures: Iterable[Measure], about: dict[str, Any], out: Path | None) -> None:
    """Prints measures, each as soon as it is known, then all as a Markdown table; writes them to a JSON file."""
    known = []
    for one in measures:
        known.append(one)
        print(f"{one.name}: {_number(one.value, one.unit)} {one.interval}", file=sys.stderr, flush=True)
    print("| measure | value | 95 % interval | images | goal |\n|---|---:|---:|---:|---|")
    for one in known:
        print(f"| {one.name} | {_number(one.value, one.unit)} | {one.interval} | {one.images} | {one.goal} |")
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        content = {**about, "measures": [asdict(one) for one in known]}
        write_text(out, json.dumps(content, indent=1) + "\n")


def _number(value: float, unit: str) -> str:
    if unit == "%":
        return f"{100 * value:.1f} %"
    return f"{value:.4g}" + (f" {unit}" if unit else "")
