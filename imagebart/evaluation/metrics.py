"""Metrics of images and of features, 95 % intervals around them, and the tables that they are written to.

Shares have Wilson's score interval. The attributes of one image are right or wrong together more often than by chance,
so the number of trials is the effective one, n / (design effect), from the variance between images (the ratio estimator
of cluster sampling; Cochran, Sampling Techniques, 1977, section 3.12).
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imagebart.atomic_io import write_text
from imagebart.errors import InputError
from imagebart.imaging.files import denormalize

Z = 1.959964  # standard deviations that hold 95 % of a normal distribution


@dataclass(frozen=True)
class Interval:
    """A value and the 95 % interval around it."""

    value: float
    low: float
    high: float


def wilson(share: float, trials: float) -> Interval:
    """Wilson's score interval of a share, 0 to 1, of 1 or more independent trials."""
    if not 0 <= share <= 1 or trials < 1:
        raise ValueError(f"a share of {share} in {trials} trials; expected 0 to 1 in at least 1")
    scale = 1 + Z * Z / trials
    centre = (share + Z * Z / (2 * trials)) / scale
    half = Z * math.sqrt(share * (1 - share) / trials + Z * Z / (4 * trials * trials)) / scale
    return Interval(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def share_of(right: Sequence[int], asked: Sequence[int] | None = None) -> Interval:
    """The share of right answers, from the numbers of right and of all answers of each image (asked; None: one each).

    Images without answers do not count. Raises ValueError where there are no answers at all.
    """
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
    if not values:
        raise ValueError("the mean of no values, expected at least one")
    numbers = torch.tensor(values, dtype=torch.float64)
    mean = float(numbers.mean())
    half = Z * float(numbers.std()) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return Interval(mean, mean - half, mean + half)


def median_of(values: Sequence[float]) -> Interval:
    """The median of independent values, at least 6, between the order statistics that hold it in 95 % of samples.

    Conover, Practical Nonparametric Statistics, 1999, section 3.2: as many values lie below the median as a coin shows
    heads. Raises ValueError for fewer values.
    """
    ordered, count = sorted(values), len(values)
    tail, rank = 0.5**count, 0
    while tail <= 0.025:
        rank += 1
        tail += math.comb(count, rank) * 0.5**count
    if rank == 0:
        raise ValueError(f"the median of {count} values, expected at least 6")
    return Interval(statistics.median(ordered), ordered[rank - 1], ordered[count - rank])


def replicates(statistic: Callable[[Tensor], float], count: int, groups: int = 10) -> Tensor:
    """A statistic of all of `count` items, then without each group of them: float64 [1 + groups].

    statistic: takes the numbers of the items to use, int64 [n].
    """
    if not 2 <= groups <= count:
        raise ValueError(f"{groups} groups of {count} items, expected 2 to {count}")
    items = torch.arange(count)
    without = [statistic(items[items % groups != g]) for g in range(groups)]
    return torch.tensor([statistic(items), *without], dtype=torch.float64)


def jackknife(values: Tensor) -> Interval:
    """The normal interval of the grouped jackknife around the first of `replicates`.

    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 11.5. Unlike resampling it repeats no item,
    which would shrink a covariance.
    """
    value, without = float(values[0]), values[1:]
    error = math.sqrt((len(without) - 1) * float(without.var(correction=0)))
    return Interval(value, value - Z * error, value + Z * error)


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """The Fréchet distance of Gaussians fitted to features [n, F] and [m, F] (n, m over 1), 0 or more.

    Heusel et al., GANs trained by a two time-scale update rule, 2017, eq. 6: |m - w|^2 + tr(C + D - 2 (C D)^(1/2)). Few
    samples make it too large, so it is compared only with that of as many.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or len(x) < 2 or len(y) < 2:
        raise ValueError(f"features have shapes {list(x.shape)} and {list(y.shape)}, expected [n, F] and [m, F]")
    x, y = x.double(), y.double()
    first, second = torch.cov(x.T).reshape(x.shape[1], -1), torch.cov(y.T).reshape(x.shape[1], -1)
    values, vectors = torch.linalg.eigh(first)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    # C D has the eigenvalues of C^(1/2) D C^(1/2), which is symmetric.
    eigenvalues = torch.linalg.eigvalsh(root @ second @ root).clamp_min(0)
    shift = (x.mean(0) - y.mean(0)).square().sum()
    distance = shift + first.trace() + second.trace() - 2 * eigenvalues.sqrt().sum()
    return max(float(distance), 0.0)


SSIM_BATCH = 4  # images: PyTorch's convolution of float64 takes 300 MB for each of 256 x 256 pixels


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity of images [B, C, H, W] in [-1, 1], at least 11 pixels a side: [B], at most 1.

    Wang et al., Image quality assessment, 2004, section III: where the Gaussian window fits into the image.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    if min(x.shape[-2:]) < 11:
        raise ValueError(f"images are {x.shape[-1]} x {x.shape[-2]} pixels, expected at least 11 x 11")
    found = []
    for one, other in zip(x.double().split(SSIM_BATCH), y.double().split(SSIM_BATCH), strict=True):
        pair = ((one + 1) / 2, (other + 1) / 2)
        _, map_ = structural_similarity_index_measure(*pair, data_range=1.0, reduction="none", return_full_image=True)
        found.append(map_[..., 5:-5, 5:-5].flatten(1).mean(1))
    return torch.cat(found)


NEIGHBOURS = 3


def inside(points: Tensor, others: Tensor, neighbours: int = NEIGHBOURS) -> Tensor:
    """Which points [n, F] lie in the manifold of others [m, F], m over `neighbours`: bool [n].

    That is, within the distance of any of them to its third neighbour (Kynkäänniemi et al., Improved Precision and
    Recall Metric for Assessing Generative Models, 2019, eq. 1). Of generated among real images it is the precision, of
    real among generated ones the recall.
    """
    if len(others) <= neighbours:
        raise InputError(f"{len(others)} images are too few to compare with; there must be over {neighbours}.")
    own = torch.cdist(others.double(), others.double())
    radii = own.sort(1).values[:, neighbours]  # the nearest is itself
    return (torch.cdist(points.double(), others.double()) <= radii).any(1)


def nearest(points: Tensor, others: Tensor, count: int = 1) -> tuple[Tensor, Tensor]:
    """The `count` of others [m, F] nearest to each point [n, F], or all m: distances and numbers, [n, count]."""
    distance, index = torch.cdist(points.double(), others.double()).sort(stable=True, dim=1)
    return distance[:, :count], index[:, :count]


Features = Callable[[Tensor], Tensor]  # images float [B, 3, H, W] in [-1, 1] -> [B, F]
BATCH = 64


def local_features(name: str) -> Features:
    """The features of a transformers or timm model that is on this machine; nothing is downloaded.

    Raises InputError where there is none of that name.
    """
    from transformers import AutoImageProcessor, AutoModel

    try:
        processor: Any = AutoImageProcessor.from_pretrained(name, local_files_only=True)
        model = AutoModel.from_pretrained(name, local_files_only=True).eval()
    except (OSError, ValueError) as error:
        raise InputError(f"There is no model {name} on this machine that tells features: {str(error)[:120]}") from error

    def features(images: Tensor) -> Tensor:
        output = model(**processor(images=list(denormalize(images)), return_tensors="pt"))
        pooled = getattr(output, "pooler_output", None)
        return (output.last_hidden_state.mean(1) if pooled is None else pooled).flatten(1)

    return lambda images: in_batches(features, images)


@torch.no_grad()
def in_batches(features: Features, images: Tensor) -> Tensor:
    """Features of many images, `BATCH` at a time."""
    return torch.cat([features(part).float().cpu() for part in images.split(BATCH)])


@dataclass(frozen=True)
class Measure:
    """A number with its 95 % interval; shares are 0 to 1. group: "" for totals, else the table that it stands in."""

    name: str
    value: float
    low: float
    high: float
    images: int
    unit: str = ""  # "%" for shares
    goal: str = ""
    group: str = ""


def measure(name: str, interval: Interval, images: int, unit: str = "", goal: str = "", group: str = "") -> Measure:
    """A measure of an interval."""
    return Measure(name, interval.value, interval.low, interval.high, images, unit, goal, group)


def table(measures: Sequence[Measure]) -> str:
    """Measures as Markdown tables, the totals first, then group by group."""
    blocks = []
    for group in dict.fromkeys(m.group for m in measures):
        head = f"| {group or 'measure'} | value | 95 % interval | images | goal |\n|---|---:|---:|---:|---|"
        rows = [
            f"| {m.name} | {_number(m.value, m.unit)} | {_number(m.low, m.unit)} to {_number(m.high, m.unit)} "
            f"| {m.images} | {m.goal} |"
            for m in measures
            if m.group == group
        ]
        blocks.append("\n".join([head, *rows]))
    return "\n\n".join(blocks)


def side_by_side(columns: Mapping[str, Sequence[Measure]]) -> str:
    """The totals of several models, a column each: value ± half of the 95 % interval."""
    rows: dict[str, dict[str, str]] = {}
    for column, measures in columns.items():
        for m in measures:
            if not m.group:
                half = (m.high - m.low) / 2
                error = f"{100 * half:.1f}" if m.unit == "%" else f"{half:.2g}"
                rows.setdefault(m.name, {})[column] = f"{_number(m.value, m.unit)} ± {error}"
    lines = ["| measure | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for name, row in rows.items():
        lines.append(f"| {name} | " + " | ".join(row.get(column, "") for column in columns) + " |")
    return "\n".join(lines)


def write_json(path: Path, about: dict[str, Any], measures: Sequence[Measure]) -> None:
    """Writes measures, and what they are of, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {**about, "measures": [asdict(m) for m in measures]}
    write_text(path, json.dumps(content, indent=1) + "\n")


def _number(value: float, unit: str) -> str:
    if unit == "%":
        return f"{100 * value:.1f} %"
    return f"{value:.3g}" + (f" {unit}" if unit else "")
