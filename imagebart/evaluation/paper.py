"""Networks that look at pictures, for distances between sets of them: Inception of 2015, or any of transformers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imagebart.conditioning import ClassConditioner
from imagebart.errors import InputError
from imagebart.evaluation.image_sampler import ImageSampler
from imagebart.evaluation.metrics import frechet_distance, inside, nearest
from imagebart.imaging import files as images
from imagebart.imaging.files import denormalize
from imagebart.model import ImageBART
from imagebart.ranking import ClipScorer, Preprocessor, Scorer, rank

INCEPTION = "pt_inception-2015-12-05-6726825d.pth"
ADDRESS = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION}"


@dataclass(frozen=True)
class NetworkOutput:
    """What a network says of pictures: features [B, F]; logits [B, classes], where it is a classifier."""

    features: Tensor
    logits: Tensor | None


@dataclass(frozen=True)
class FeatureNetwork:
    """A network: images float [B, 3, H, W] in [-1, 1] -> features and logits."""

    see: Callable[[Tensor], NetworkOutput]

    @torch.no_grad()
    def many(self, batches: Iterable[Tensor]) -> NetworkOutput:
        """What it says of pictures that come in batches."""
        seen = [self.see(batch) for batch in batches]
        logits = [one.logits for one in seen if one.logits is not None]
        return NetworkOutput(torch.cat([one.features for one in seen]), torch.cat(logits) if logits else None)


def load_feature_network(source: str) -> FeatureNetwork:
    """The network of a path: the file of Inception's weights, or a classifier's folder or Hub name.

    Raises InputError where it cannot be loaded.
    """
    return _inception(Path(source)) if source.endswith(".pth") else _classifier(source)


def _inception(path: Path) -> FeatureNetwork:
    if not path.is_file():
        raise InputError(
            f"{path} is missing: the weights of the FID of papers. Fetch {ADDRESS}, or choose a classifier's folder, "
            "with which distances are comparable with each other alone."
        )
    try:
        from torchmetrics.image.fid import NoTrainInceptionV3

        network = NoTrainInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], str(path))
    except (ImportError, RuntimeError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise InputError(f"{path} cannot be used: {reason} (it takes `pip install torch-fidelity`).") from error

    def see(images: Tensor) -> NetworkOutput:
        features, logits = network._torch_fidelity_forward(denormalize(images))
        return NetworkOutput(features, logits)

    return FeatureNetwork(see)


def _classifier(source: str) -> FeatureNetwork:
    from transformers import AutoModelForImageClassification

    try:
        network = AutoModelForImageClassification.from_pretrained(source).eval().requires_grad_(False)
    except (OSError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"The network {source} cannot be loaded: {reason}.") from error
    view = Preprocessor.from_pretrained(source)

    def see(images: Tensor) -> NetworkOutput:
        said = network(view.prepare(images), output_hidden_states=True)
        last = said.hidden_states[-1]
        return NetworkOutput(last.mean((2, 3)) if last.ndim == 4 else last.mean(1), said.logits)

    return FeatureNetwork(see)


# The measures of the paper for one of its models, beside the paper's own figures (ImageBART, section 4).
#
# FID and Inception score are taken on whatever network looks at the pictures: only with the Inception network of 2015
# are
# they comparable with the paper's. What is drawn is kept as PNG files, so that a run that was stopped goes on; several
# processes share it out.


BATCH = 32  # pictures that are read and looked at, at once
MOST_NEIGHBOURS = 8  # drawn pictures whose nearest real ones are shown
NEAREST = 3  # of each

# The paper's FIDs by how many are drawn for one that is kept, as Rombach et al. 2022 repeat them (Tables 1 and 10).
PAPER = {
    "ffhq_4_scales_geometric": {1: 9.57},
    "churches_3_scales": {1: 7.32},
    "bedrooms_3_scales": {1: 5.51},
    "cin_5_scales_custom": {1: 21.19, 20: 7.44},
}
SCALES = (1, 2, 3, 4, 8)  # T, where it can be chosen
FEW = 1000  # pictures, under which an Inception score is not split in ten


@dataclass(frozen=True)
class Row:
    """A measure: ours, and the paper's where it is known."""

    name: str
    value: float
    pictures: int
    paper: float | None = None


@dataclass(frozen=True)
class PaperStudy:
    """A model, real pictures, what looks at them, and where to keep what is drawn.

    prompts: what to draw, in turn; () for models that take none. scorer, best_of: of so many drawn, the best is kept.
    """

    sampler: ImageSampler
    data: tuple[Path, ...]
    network: FeatureNetwork
    out: Path
    samples: int
    prompts: tuple[str, ...] = ()
    best_of: int = 1
    scorer: Scorer | None = None
    seed: int = 0
    process: int = 0  # this one, of so many that draw
    processes: int = 1

    @property
    def samples_drawn(self) -> list[Path]:
        """Where the samples are, or will be."""
        return [self.out / "samples" / f"{i:06}.png" for i in range(self.samples)]

    @property
    def completed(self) -> list[Path]:
        """Where the real pictures with their upper halves drawn anew are, or will be."""
        return [self.out / "upper-halves" / f"{i:06}.png" for i in range(len(self.data))]

    def prompt(self, i: int) -> str | None:
        """What sample i is to show."""
        return self.prompts[i % len(self.prompts)] if self.prompts else None

    @cached_property
    def real(self) -> NetworkOutput:
        """The real pictures, looked at."""
        return self.network.many(self._read(self.data[i : i + BATCH]) for i in range(0, len(self.data), BATCH))

    def seen(self, paths: Sequence[Path]) -> NetworkOutput:
        """Drawn pictures, looked at."""
        return self.network.many(self._read(paths[i : i + BATCH]) for i in range(0, len(paths), BATCH))

    def _read(self, paths: Sequence[Path]) -> Tensor:
        return torch.cat([read_square(path, self.sampler.size) for path in paths])


def draw(study: PaperStudy) -> None:
    """Draws this process's share of all that is measured; what is there stays."""
    draw_samples(study)
    complete_upper_halves(study)


def evaluate_paper(study: PaperStudy) -> Iterator[Row]:
    """All measures of what has been drawn, each as soon as it is known."""
    drawn = study.seen(study.samples_drawn)
    known = PAPER.get(study.sampler.model.about.name, {}).get(study.best_of)
    yield Row("acceptance rate", 1 / study.best_of, study.samples)
    yield from _likeness(study.real, drawn, "", known)
    if isinstance(study.scorer, ClipScorer):
        yield Row("CLIP score", clip_score(study, study.scorer, study.samples_drawn), study.samples)
    yield from _likeness(study.real, study.seen(study.completed), "upper half completed: ")


def _likeness(real: NetworkOutput, drawn: NetworkOutput, prefix: str, known: float | None = None) -> Iterator[Row]:
    """FID, Inception score, precision and recall of drawn pictures; known: the paper's FID."""
    from torchmetrics.image.inception import InceptionScore

    count = len(drawn.features)
    yield Row(f"{prefix}FID", frechet_distance(real.features, drawn.features), count, known)
    if drawn.logits is not None:
        score = InceptionScore(feature=torch.nn.Identity(), splits=1 if count < FEW else 10)
        score.update(drawn.logits)
        yield Row(f"{prefix}Inception score", float(score.compute()[0]), count)
    precision, recall = coverage(real.features, drawn.features)
    yield Row(f"{prefix}precision", precision, count)
    yield Row(f"{prefix}recall", recall, len(real.features))


def coverage(real: Tensor, drawn: Tensor) -> tuple[float, float]:
    """Precision and recall of features [n, F] and [m, F], as `inside` has them."""
    return inside(drawn, real).double().mean().item(), inside(real, drawn).double().mean().item()


def clip_score(study: PaperStudy, scorer: ClipScorer, samples: Sequence[Path]) -> float:
    """100 times the mean likeness, at least 0, of drawn pictures to their prompts (Hessel et al. 2021)."""
    size, scores = study.sampler.size, []
    for i, path in enumerate(samples):
        scores.append(scorer.similarity(read_square(path, size), study.prompt(i) or ""))
    return 100 * float(torch.cat(scores).clamp_min(0).mean())


def draw_samples(study: PaperStudy) -> None:
    """Draws those of this process's samples that are not there."""
    for group in _missing(study, study.samples_drawn, study.sampler.batch if study.best_of == 1 else 1):
        if study.best_of == 1:
            drawn = study.sampler.generate([study.prompt(i) for i in group], study.seed + group[0])
        else:
            drawn = _best(study, group[0])
        for i, image in zip(group, images.to_images(drawn), strict=True):
            if not study.samples_drawn[i].is_file():
                images.save_image(image, study.samples_drawn[i])


def _missing(study: PaperStudy, paths: Sequence[Path], step: int) -> Iterator[range]:
    """The groups of so many files that are this process's to draw, and of which some are not there.

    They are always whole: a picture's last digits depend on those that are decoded beside it.
    """
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    for start in range(study.process * step, len(paths), study.processes * step):
        group = range(start, min(start + step, len(paths)))
        if not all(paths[i].is_file() for i in group):
            yield group


def _best(study: PaperStudy, i: int) -> Tensor:
    """Sample i: the best of several."""
    assert study.scorer is not None, "the best of several needs a scorer"
    prompt = study.prompt(i)
    drawn = study.sampler.generate([prompt] * study.best_of, study.seed + i * study.best_of)
    best = rank(study.scorer, drawn, prompt or "")[0]
    return drawn[best : best + 1]


def complete_upper_halves(study: PaperStudy) -> None:
    """Draws the upper halves of real pictures anew (Fig. 14, Table 3), those of this process that are not there."""
    size = study.sampler.size
    mask = np.arange(size)[:, None].repeat(size, 1) < size // 2
    for (i,) in _missing(study, study.completed, 1):
        after = study.sampler.edit(read_square(study.data[i], size), mask[None], [study.prompt(i)], study.seed + i)
        images.save_image(images.to_images(after)[0], study.completed[i])


def neighbours(study: PaperStudy) -> Image.Image:
    """Drawn pictures, and beside each the real ones nearest to it (Fig. 26, 27)."""
    samples = study.samples_drawn[:MOST_NEIGHBOURS]
    _, near = nearest(study.seen(samples).features, study.real.features, NEAREST)
    size = study.sampler.size
    sheet = Image.new("RGB", (size * (1 + NEAREST), size * len(samples)))
    for row, (path, found) in enumerate(zip(samples, near, strict=True)):
        for column, one in enumerate([path, *(study.data[i] for i in found.tolist())]):
            sheet.paste(images.to_images(read_square(one, size))[0], (column * size, row * size))
    return sheet


def read_square(path: Path, size: int) -> Tensor:
    """The middle square of a picture, float [1, 3, size, size] in [-1, 1]."""
    image = images.flatten(images.load_image(path))
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    middle = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.LANCZOS)
    return images.to_tensor(middle)


def pictures_in(folder: Path, most: int) -> tuple[Path, ...]:
    """The first pictures of a folder, by name. Raises InputError where there are none."""
    kinds = Image.registered_extensions()
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in kinds) if folder.is_dir() else []
    if not found:
        raise InputError(f"{folder} holds no pictures; choose a folder with those that the model was trained on.")
    return tuple(found[:most])


def asked_for(path: Path | None, model: ImageBART) -> tuple[str, ...]:
    """What to draw: a file's lines, or all classes of a class model; () for models that take neither."""
    if path is not None:
        return tuple(line for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    if model.conditioner.kind == "text":
        raise InputError("A text model takes prompts: name a file with one a line.")
    return model.conditioner.names if isinstance(model.conditioner, ClassConditioner) else ()


def rows_table(rows: Sequence[Row]) -> str:
    """The measures as a Markdown table."""
    lines = ["| measure | here | paper | pictures |", "|---|---:|---:|---:|"]
    for row in rows:
        paper = "–" if row.paper is None else f"{row.paper:.2f}"
        lines.append(f"| {row.name} | {row.value:.4g} | {paper} | {row.pictures:,} |")
    return "\n".join(lines)


def images_per_second(study: PaperStudy) -> dict[int, float]:
    """Images a second, a batch at a time, by T, the number of scales (ImageBART, Fig. 8, right).

    A model of T stages begins at each of them in turn, from noise.
    """
    model, batch = study.sampler.model, study.sampler.batch
    cond = model.conditioner.encode([study.prompt(0)] * batch).tokens if model.conditioner.length else None
    start = torch.randint(model.vocab_size, (batch, model.tokens), generator=torch.Generator().manual_seed(0))
    rates: dict[int, float] = {}
    for scales in range(1, len(model.stages) + 1) if model.stages else SCALES:
        own = model.about.sampling
        settings = replace(own, start=scales) if model.stages else replace(own, scales=scales)
        began = time.perf_counter()
        *_, last = model.stream(batch, cond, start, settings=settings, seed=0)
        model.first_stage.decode(last.tokens)
        rates[scales] = batch / (time.perf_counter() - began)
    return rates
