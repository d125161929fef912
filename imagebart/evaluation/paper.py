"""The paper's measures for one of its models, beside the paper's own figures (ImageBART, Tables 1 to 3).

FID and Inception score use the features of any network, but are comparable with the paper's only with the Inception
network of 2015. Samples are kept as PNG files, so that a run that was stopped goes on.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, ImageOps
from torch import Tensor

from imagebart.core.errors import InputError, reason_of
from imagebart.evaluation.image_sampler import ImageSampler
from imagebart.evaluation.metrics import Measure
from imagebart.imaging import files
from imagebart.imaging.figures import sheet
from imagebart.imaging.masks import preset_array
from imagebart.model import ImageBART
from imagebart.worlds.ranking import ClipScorer, Scorer, preprocessing

INCEPTION = "pt_inception-2015-12-05-6726825d.pth"
ADDRESS = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION}"
BATCH = 32  # images that the network sees at once
SHOWN, NEAREST = 8, 3  # samples of the figure, and real images beside each
MANIFOLD_NEIGHBORS = 3  # of precision and recall

# The paper's FIDs (Tables 1 and 2; Tables 5 and 6 say of which chains) by the number of samples of which one is kept.
PAPER = {
    "ffhq_2_scales_custom": {1: 9.57},
    "cats_3_scales": {1: 15.09},
    "churches_3_scales": {1: 7.32},
    "bedrooms_3_scales": {1: 5.51},
    "cin_5_scales_custom": {1: 21.19, 2: 13.12, 4: 9.77, 20: 7.44},
}
SCALES = (1, 2, 3, 4, 8)  # T, where it can be chosen


class NetworkOutput(NamedTuple):
    """Features [B, F] of images, and logits [B, classes]."""

    features: Tensor
    logits: Tensor


Network = Callable[[Tensor], NetworkOutput]  # of images float [B, 3, H, W] in [-1, 1]


def load_network(source: str) -> Network:
    """The network at a path: the file of Inception's weights, or a classifier's folder or Hub name."""
    return torch.no_grad()(_inception(Path(source)) if source.endswith(".pth") else _classifier(source))


def _inception(path: Path) -> Network:
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
    return lambda images: NetworkOutput(*network._torch_fidelity_forward(files.denormalize(images)))


def _classifier(source: str) -> Network:
    try:
        from transformers import AutoModelForImageClassification

        network = AutoModelForImageClassification.from_pretrained(source).eval().requires_grad_(False)
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"The network {source} cannot be loaded: {reason_of(error)}.") from error
    prepare = preprocessing(source)

    def run(images: Tensor) -> NetworkOutput:
        output = network(prepare(images), output_hidden_states=True)
        last = output.hidden_states[-1]
        return NetworkOutput(last.mean((2, 3)) if last.ndim == 4 else last.mean(1), output.logits)

    return run


def _measure(name: str, value: float, images: int, paper: float | None = None) -> Measure:
    return Measure(name, value, None, None, images, goal="" if paper is None else f"the paper: {paper:.2f}")


@dataclass
class PaperStudy:
    """A model, real images, the network that compares them with samples, and the folder for samples."""

    sampler: ImageSampler
    data: tuple[Path, ...]
    network: Network
    out: Path
    samples: int
    prompts: tuple[str, ...] = ()  # of the samples, in turn; () for models that take none
    best_of: int = 1  # so many are sampled for each that is kept, by the scorer
    scorer: Scorer | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        self.sample_paths = [self.out / "samples" / f"{i:06}.png" for i in range(self.samples)]
        self.completion_paths = [self.out / "upper-halves" / f"{i:06}.png" for i in range(len(self.data))]

    def prompt(self, i: int) -> str | None:
        return self.prompts[i % len(self.prompts)] if self.prompts else None

    @cached_property
    def real(self) -> NetworkOutput:
        return self.outputs(self.data)

    def outputs(self, paths: Sequence[Path]) -> NetworkOutput:
        size = self.sampler.size
        batches = [paths[i : i + BATCH] for i in range(0, len(paths), BATCH)]
        parts = [self.network(torch.cat([read_square(path, size) for path in batch])) for batch in batches]
        return NetworkOutput(*map(torch.cat, zip(*parts, strict=True)))


def generate_all(study: PaperStudy) -> None:
    """Generates the samples and the completed upper halves (Fig. 14, Table 3) whose files are missing."""
    sampler = study.sampler
    for group in _missing(study.sample_paths, sampler.batch if study.best_of == 1 else 1):
        prompts = [study.prompt(i) for i in group for _ in range(study.best_of)]
        sampled = sampler.generate(prompts, study.seed + group[0] * study.best_of)
        if study.best_of > 1:
            assert study.scorer is not None, "the best of several needs a scorer"
            best = int(study.scorer.score(sampled, prompts[0] or "").argmax())
            sampled = sampled[best : best + 1]
        for i, image in zip(group, files.to_images(sampled), strict=True):
            files.save_image(image, study.sample_paths[i])
    mask = preset_array("upper half", sampler.size)
    for (i,) in _missing(study.completion_paths, 1):
        after = sampler.edit(read_square(study.data[i], sampler.size), mask[None], [study.prompt(i)], study.seed + i)
        files.save_image(files.to_images(after)[0], study.completion_paths[i])


def _missing(paths: Sequence[Path], step: int) -> Iterator[range]:
    """The groups of `step` files of which some are missing. An image depends, in its last digits, on its group."""
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(paths), step):
        group = range(start, min(start + step, len(paths)))
        if not all(paths[i].is_file() for i in group):
            yield group


def evaluate_paper(study: PaperStudy) -> Iterator[Measure]:
    """All measures of what `generate_all` wrote, each as soon as it is known."""
    paper = PAPER.get(study.sampler.model.about.name, {}).get(study.best_of)
    yield _measure("acceptance rate", 1 / study.best_of, study.samples)
    yield from _fidelity(study.real, study.outputs(study.sample_paths), "", paper)
    if isinstance(study.scorer, ClipScorer):
        images = (read_square(path, study.sampler.size) for path in study.sample_paths)
        scores = [study.scorer.similarity(image, study.prompt(i) or "") for i, image in enumerate(images)]
        # Hessel et al. 2021, as torchmetrics' CLIPScore, which needs the files of CLIP's tokenizer.
        yield _measure("CLIP score", 100 * float(torch.cat(scores).clamp_min(0).mean()), study.samples)
    yield from _fidelity(study.real, study.outputs(study.completion_paths), "upper half completed: ")


def _fidelity(real: NetworkOutput, made: NetworkOutput, prefix: str, paper: float | None = None) -> Iterator[Measure]:
    """FID, Inception score, precision and recall of generated images; paper: its FID."""
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.inception import InceptionScore

    count, features = len(made.features), torch.nn.Identity()
    features.num_features = real.features.shape[1]  # type: ignore[assignment]
    distance = FrechetInceptionDistance(feature=features)
    distance.update(real.features, real=True)
    distance.update(made.features, real=False)
    yield _measure(f"{prefix}FID", float(distance.compute()), count, paper)
    score = InceptionScore(feature=torch.nn.Identity(), splits=10 if count >= 1000 else 1)
    score.update(made.logits)
    yield _measure(f"{prefix}Inception score", float(score.compute()[0]), count)
    for name, points, others in (("precision", made.features, real.features), ("recall", real.features, made.features)):
        yield _measure(f"{prefix}{name}", float(in_manifold(points, others).double().mean()), len(points))


def in_manifold(points: Tensor, others: Tensor) -> Tensor:
    """Which points [n, F] lie within the distance of any of others [m, F], m > 3, to its third neighbor: bool [n].

    Kynkäänniemi et al., Improved Precision and Recall Metric for Assessing Generative Models, 2019, eq. 1.
    """
    if len(others) <= MANIFOLD_NEIGHBORS:
        raise InputError(f"{len(others)} images are too few to compare with; there must be over {MANIFOLD_NEIGHBORS}.")
    others = others.double()
    radii = torch.cdist(others, others).sort(1).values[:, MANIFOLD_NEIGHBORS]  # the nearest is itself
    return (torch.cdist(points.double(), others) <= radii).any(1)


def nearest_images(study: PaperStudy) -> Image.Image:
    """Samples, and beside each the real images nearest to it (Fig. 26, 27)."""
    samples, size = study.sample_paths[:SHOWN], study.sampler.size
    distances = torch.cdist(study.outputs(samples).features.double(), study.real.features.double())
    nearest = distances.sort(stable=True, dim=1).indices[:, :NEAREST].tolist()
    shown = [[path, *(study.data[i] for i in row)] for path, row in zip(samples, nearest, strict=True)]
    rows = [[files.to_images(read_square(path, size))[0] for path in row] for row in shown]
    return sheet(rows, size, margin=0)


def read_square(path: Path, size: int) -> Tensor:
    """The middle square of an image file, float [1, 3, size, size] in [-1, 1]."""
    return files.to_tensor(ImageOps.fit(files.flatten(files.load_image(path)), (size, size), Image.Resampling.LANCZOS))


def images_in(folder: Path, most: int) -> tuple[Path, ...]:
    """The first image files of a folder, by name. Raises InputError where there are none."""
    kinds = Image.registered_extensions()
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in kinds) if folder.is_dir() else []
    if not paths:
        raise InputError(f"{folder} holds no images; choose a folder with those that the model was trained on.")
    return tuple(paths[:most])


def load_prompts(path: Path | None, model: ImageBART) -> tuple[str, ...]:
    """The lines of a file, or all classes of a class model; () for models that take neither."""
    if path is not None:
        return tuple(line for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    if model.conditioner.kind == "text":
        raise InputError("A text model takes prompts: name a file with one a line.")
    return model.classes


def images_per_second(study: PaperStudy) -> dict[int, float]:
    """Images a second, a batch at a time, by T, the number of scales (ImageBART, Fig. 8, right)."""
    sampler, rates = study.sampler, {}
    for scales in SCALES if sampler.model.denoiser is not None else (len(sampler.model.stages),):
        timed = ImageSampler(sampler.model, sampler.settings.replace(scales=scales), sampler.batch)
        began = time.perf_counter()
        timed.generate([study.prompt(0)] * sampler.batch, study.seed)
        rates[scales] = sampler.batch / (time.perf_counter() - began)
    return rates
