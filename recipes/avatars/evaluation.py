"""How good the model of avatars is: prompts, edits, completions, reconstruction, distance and diversity.

A small network, the reader, reads the attributes off what the model generates; `Study` holds the model, and how many
images each measure is of. `compare` measures less, for a table of several models: the paper's claim in small that more
scales see more of the image than a transformer that samples from left to right (ImageBART, Table 3 and Fig. 14).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from imagebart.evaluation.image_sampler import BASELINE, ImageSampler, left_to_right, sampling_parameters
from imagebart.evaluation.metrics import (
    Measure,
    frechet_distance,
    jackknife,
    mean_of,
    measure,
    replicates,
    share_of,
    ssim,
    wilson,
)
from imagebart.imaging.masks import preset_array
from imagebart.models.vqgan import psnr
from imagebart.worlds.attribute_classifier import AttributeClassifier, Reading
from imagebart.worlds.avatars import VALUES, Attributes, Claims
from recipes.avatars import data_file
from recipes.avatars.artwork import region_mask, rendered
from recipes.avatars.boundary_consistency import COLORS, boundary_consistency
from recipes.avatars.cases import (
    EDITED,
    SMALL,
    EditCase,
    PromptCase,
    changes,
    edit_case,
    found,
    held_out_prompt,
    plain_prompts,
    read_prompts,
    seen_prompt,
    share_within,
)
from recipes.avatars.dataset import sample, value_weights

SERIES = 900_000  # of avatars, plus the seed; training has other series
REFERENCE, FLOOR, SHOWN, COMPLETED = 10**8, 2 * 10**8, 3 * 10**8, 4 * 10**8  # where sets of renders begin
UPPER = "upper half"
SHARED = ("skin", "background")  # what both halves of every avatar show
LEAST = 0.1  # the share of an attribute in each half from which the halves have to agree about it
EDGE = 40.0  # levels of 255 a pixel over which a render has an edge
FLAT = 7  # the middle of a square of this side without any gradient is flat
SCALES = (1, 2, 3, 4, 8)
IMAGES_EACH = 3  # images that `compare` takes for each sample

OPEN = read_prompts(data_file("prompts_open.txt"))
"""Prompts that leave most attributes open, for the diversity."""

Answers = list[dict[str, bool]]  # of each image, whether attributes are as they should be


@dataclass(frozen=True)
class Study:
    """A model under study. Every measure takes about `samples` images (at least 20)."""

    sampler: ImageSampler
    reader: AttributeClassifier
    samples: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 20:
            raise ValueError(f"{self.samples} samples, expected 20 or more: intervals of fewer say nothing")
        kind = self.sampler.model.conditioner.kind
        if kind != "text":
            raise ValueError(f"the model's conditioning is {kind!r}; avatars are asked for by text")

    @property
    def series(self) -> int:
        return SERIES + self.seed

    @property
    def repeats(self) -> int:
        """Images of each plain prompt."""
        return max(1, self.samples // len(plain_prompts()))

    @property
    def variants(self) -> int:
        """Images of each open prompt."""
        return max(2, self.samples // len(OPEN))

    @property
    def images(self) -> int:
        """How many images `evaluate` takes, for a progress bar."""
        return 6 * self.samples + len(plain_prompts()) * self.repeats + len(OPEN) * self.variants

    def avatars(self, start: int, count: int | None = None) -> list[Attributes]:
        """Fresh avatars without held-out pairs, as many as there are samples."""
        return [sample(start + i, self.series, "train") for i in range(count or self.samples)]

    def read_renders(self, avatars: Sequence[Attributes]) -> Reading:
        """What the reader finds in renders of avatars."""
        parts = [avatars[i : i + 64] for i in range(0, len(avatars), 64)]
        readings = [self.reader.read(rendered(part, self.sampler.size)) for part in parts]
        attributes = [one for reading in readings for one in reading.attributes]
        return Reading(attributes, torch.cat([reading.features for reading in readings]))

    def answer(self, cases: Sequence[PromptCase]) -> tuple[Answers, Reading]:
        """Of an image of each prompt: which of its claims are found, and all that is read."""
        reading = self.reader.read(self.sampler.generate([case.text for case in cases], self.seed))
        return [found(a, case.claims) for a, case in zip(reading.attributes, cases, strict=True)], reading


def evaluate(study: Study) -> Iterator[Measure]:
    """All measures of a model, each as soon as it is known."""
    yield from reader_accuracy(study)
    yield from reconstruction(study)
    right, reading, accuracy = prompt_accuracy(study)
    yield accuracy
    held_out, _ = study.answer([held_out_prompt(i, study.series) for i in range(study.samples)])
    yield total("held-out pairs: named attributes found", held_out, "≥ 97 %")
    yield from plain_prompt_accuracy(study)
    yield from edits(study)
    yield new_backgrounds(study)
    yield from completions(study)
    renders = Renders.of(study)
    yield measure("distance of renders to renders, the floor", jackknife(renders.floor), study.samples)
    yield from distance(renders, reading.features)
    yield diversity(study)
    yield from by_attribute(right, "prompts, by attribute")


def comparison(study: Study, scales: Sequence[int] = SCALES, baseline: Study | None = None) -> dict[str, Study]:
    """The baseline, and a model with each number of scales in turn, by name.

    Raises ValueError for a model that was trained for one number of scales, and for a baseline that sees what follows.
    """
    if study.sampler.model.denoiser is None:
        stages = len(study.sampler.model.stages)
        raise ValueError(f"the model was trained for {stages} scales, expected one that any number can be chosen for")
    studies: dict[str, Study] = {}
    if baseline is not None:
        studies[BASELINE] = replace(baseline, sampler=left_to_right(baseline.sampler))
    for count in scales:
        settings = study.sampler.settings.replace(scales=count)
        studies[f"T = {count}"] = replace(study, sampler=replace(study.sampler, settings=settings))
    return studies


def compare(study: Study, renders: Renders) -> Iterator[Measure]:
    """Prompts, distance, completions of the upper half and edits of one model."""
    yield sampling_parameters(study.sampler)
    _, reading, accuracy = prompt_accuracy(study)
    yield accuracy
    yield from distance(renders, reading.features)
    yield from completions(study)
    yield from edits(study)


def prompt_accuracy(study: Study) -> tuple[Answers, Reading, Measure]:
    """Which attributes named in captions of the training's kind are found, all that is read, and the share."""
    right, reading = study.answer([seen_prompt(i, study.series) for i in range(study.samples)])
    return right, reading, total("prompts: named attributes found", right, "≥ 98 %")


def reader_accuracy(study: Study) -> Iterator[Measure]:
    """How often the reader is right on fresh renders of all combinations, which limits everything else."""
    truth = [sample(SHOWN + i, study.series, "all") for i in range(5 * study.samples)]
    read = study.read_renders(truth).attributes
    yield from _kept("reader right on renders", "≥ 99 %", truth, read, "reader, by attribute")


def reconstruction(study: Study) -> Iterator[Measure]:
    """Attributes kept through encode and decode, PSNR, SSIM and sharpness."""
    truth = study.avatars(SHOWN)
    images = rendered(truth, study.sampler.size)
    decoded = study.sampler.reconstruct(images)
    read = study.reader.read(decoded).attributes
    yield from _kept("reconstruction: attributes kept", "≥ 99.5 %", truth, read, "reconstruction, by attribute")
    yield measure("reconstruction: PSNR", mean_of(psnr(images, decoded).tolist()), len(truth), "dB")
    yield measure("reconstruction: SSIM", mean_of(ssim(images, decoded).tolist()), len(truth))
    sharpness = Sharpness.of(images, decoded)
    crisp, clean = (jackknife(replicates(f, len(truth))) for f in (sharpness.crispness, sharpness.cleanness))
    yield measure("reconstruction: crispness", crisp, len(truth), goal="≥ 0.85")
    yield measure("reconstruction: cleanness", clean, len(truth), "levels", "≤ 1")


def plain_prompt_accuracy(study: Study) -> Iterator[Measure]:
    """Of the sixty plain prompts, the share of images that show all that their prompt says; then of each prompt."""
    cases, repeats = plain_prompts(), study.repeats
    answers, _ = study.answer([case for case in cases for _ in range(repeats)])
    understood = [all(answer.values()) for answer in answers]
    right = [sum(understood[i * repeats : (i + 1) * repeats]) for i in range(len(cases))]
    share = share_of(right, [repeats] * len(cases))
    yield measure("plain prompts understood", share, len(understood), "%", "≥ 97 %")
    for case, count in zip(cases, right, strict=True):  # images of one prompt are independent of each other
        yield measure(case.text, wilson(count / repeats, repeats), repeats, "%", group="plain prompts")


def edits(study: Study) -> Iterator[Measure]:
    """Whether edits show what was asked for, what lies outside the mask stays, and both sides of the mask agree."""
    cases, masks, after = edited_cases(study)
    avatars, read = [case.before for case in cases], study.reader.read(after).attributes
    pairs = list(zip(read, cases, strict=True))
    changed = [{case.attribute: all(found(a, case.prompt.claims).values())} for a, case in pairs]
    yield total("edits: changed as asked", changed, "≥ 97 %")
    yield total("edits: others stayed", [found(a, case.before.values_of(case.outside)) for a, case in pairs], "≥ 99 %")
    silent = [[name for name in COLORS if name not in case.prompt.claims] for case in cases]
    consistent = boundary_consistency(after, masks, avatars, read, silent)
    name = "edits: inside = outside where the prompt is silent"
    yield from _consistency(name, consistent, "edits, inside = outside")
    yield from by_attribute(changed, "edits, by attribute", EDITED)


def edited_cases(study: Study) -> tuple[list[EditCase], np.ndarray, Tensor]:
    """Edits of the attributes of `EDITED` in turn: the cases, their masks [B, size, size], the images."""
    cases = [edit_case(i, study.series, study.sampler.size) for i in range(study.samples)]
    cases.sort(key=lambda case: EDITED[case.attribute])  # a batch generates what any of its masks holds
    before, masks = rendered([case.before for case in cases], study.sampler.size), np.stack([c.mask for c in cases])
    return cases, masks, study.sampler.edit(before, masks, [case.prompt.text for case in cases], study.seed)


def new_backgrounds(study: Study) -> Measure:
    """Edits by prompts for another background, where slivers of the old one around the head contradict them."""
    attributes = tuple(EDITED)
    turns = [i * len(attributes) + attributes.index("background") for i in range(study.samples)]
    cases = [next(changes(turn, study.series, 3)) for turn in turns]
    before, size = rendered([case.before for case in cases], study.sampler.size), study.sampler.size
    masks = np.stack([region_mask("background", size)] * len(cases))  # of any avatar: it leaves some around this head
    images = study.sampler.edit(before, masks, [case.prompt.text for case in cases], study.seed)
    read = study.reader.read(images).attributes
    answers = [found(one, case.prompt.claims) for one, case in zip(read, cases, strict=True)]
    return total("edits: another background, with slivers of the old one", answers, "≥ 94 %")


def completions(study: Study) -> Iterator[Measure]:
    """Of upper halves generated without a prompt: whether their colors, and the whole as read, fit the lower half.

    ImageBART, Fig. 14: a model that samples from left to right has to generate upper halves without the lower one.
    """
    avatars = study.avatars(COMPLETED)
    masks, images = complete(study, avatars)
    readings = study.reader.read(images).attributes
    consistent = boundary_consistency(images, masks, avatars, readings, [SHARED] * len(avatars))
    yield from _consistency("completions: inside = outside", consistent, "completions, inside = outside")
    pairs = zip(avatars, readings, strict=True)
    answers = [found(reading, avatar.values_of(must_agree(avatar))) for avatar, reading in pairs]
    yield total("completions: reader agrees with the given half", answers)


def complete(study: Study, avatars: Sequence[Attributes]) -> tuple[np.ndarray, Tensor]:
    """Renders with a new upper half: their masks [B, size, size], and the images."""
    before = rendered(avatars, study.sampler.size)
    masks = np.stack([preset_array(UPPER, study.sampler.size)] * len(avatars))
    return masks, study.sampler.edit(before, masks, [None] * len(avatars), study.seed)


@lru_cache(maxsize=512)  # several studies have the same avatars
def must_agree(avatar: Attributes) -> tuple[str, ...]:
    """The attributes of which both halves of the image show a good part, so that the lower one determines the upper."""
    upper = preset_array(UPPER, SMALL)
    shares = {name: share_within(avatar, name, upper) for name in VALUES if name in avatar.visible()}
    return tuple(name for name, (least, most) in shares.items() if least >= LEAST and most <= 1 - LEAST)


@dataclass(frozen=True)
class Renders:
    """Fresh renders to compare with: features [10 * samples, F], and the distance of `samples` others to them."""

    reference: Tensor
    floor: Tensor  # replicates

    @classmethod
    def of(cls, study: Study) -> Renders:
        reference = study.read_renders(study.avatars(REFERENCE, 10 * study.samples)).features
        return cls(reference, _distances(study.read_renders(study.avatars(FLOOR)).features, reference))


def distance(renders: Renders, features: Tensor) -> Iterator[Measure]:
    """The Fréchet distance of images to fresh renders in the reader's features, and how many floors it is.

    The images are as many as those of the floor, so that both distances are equally too large.
    """
    own = _distances(features, renders.reference)
    yield measure("distance to renders", jackknife(own), len(features))
    yield measure("distance to renders over the floor", jackknife(own / renders.floor), len(features), goal="≤ 3")


def _distances(features: Tensor, reference: Tensor) -> Tensor:
    return replicates(lambda rows: frechet_distance(features[rows], reference), len(features))


def diversity(study: Study) -> Measure:
    """The entropy of what prompts leave open, over that of as many renders of which the prompt is true."""
    _, reading = study.answer([case for case in OPEN for _ in range(study.variants)])
    ratios = []
    for i, case in enumerate(OPEN):
        random = np.random.default_rng((study.series, i))
        renders = [sample_claimed(case.claims, random) for _ in range(study.variants)]
        own = free_entropy(reading.attributes[i * study.variants : (i + 1) * study.variants], case.claims)
        ratios.append(own / free_entropy(renders, case.claims))
    return measure("diversity: entropy over that of renders", mean_of(ratios), len(reading.attributes), "%")


def free_entropy(avatars: Sequence[Attributes], claims: Claims) -> float:
    """The mean Shannon entropy, in bits, of the attributes that nothing is claimed of; not showing counts as a value.

    Few images give too small an entropy, so that it is compared only with that of as many others.
    """
    free, total_bits = [name for name in VALUES if name not in claims], 0.0
    shown = [avatar.visible() for avatar in avatars]
    for name in free:
        values = [getattr(avatar, name) if name in seen else None for avatar, seen in zip(avatars, shown, strict=True)]
        total_bits += entropy(values)
    return total_bits / len(free)


def entropy(values: Sequence[str | None]) -> float:
    """Shannon entropy in bits of the values' frequencies."""
    count = len(values)
    return -sum(n / count * math.log2(n / count) for n in Counter(values).values())


def sample_claimed(claims: Claims, random: np.random.Generator) -> Attributes:
    """An avatar of which claims are true, its values as frequent among the allowed as among all avatars."""
    chosen = {}
    for name, values in VALUES.items():
        allowed = [value for value in values if value in claims.get(name, values)]
        weights = value_weights(name, allowed)
        chosen[name] = allowed[random.choice(len(allowed), p=weights / weights.sum())]
    return Attributes(**chosen)


def gradient(images: Tensor) -> Tensor:
    """How much colors change from pixel to pixel, in levels of 255: [B, 3, H, W] in [-1, 1] -> [B, H - 1, W - 1].

    The Euclidean norm of six numbers: red, green and blue of the pixel to the right and of the one below, less its own.
    """
    if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < 2:
        raise ValueError(f"images have shape {tuple(images.shape)}, expected [B, 3, H, W], 2 pixels a side or more")
    levels = images * 127.5
    here = levels[..., :-1, :-1]
    across, down = levels[..., :-1, 1:] - here, levels[..., 1:, :-1] - here
    return (across.square() + down.square()).sum(1).sqrt()


@dataclass(frozen=True)
class Sharpness:
    """Of each of B images, float64 [B]: gradients summed over the original's edges and flat areas."""

    edges: Tensor
    originals: Tensor  # the originals' own at their edges
    flats: Tensor
    flat_pixels: Tensor

    @classmethod
    def of(cls, originals: Tensor, images: Tensor) -> Sharpness:
        """Images [B, 3, H, W] beside what they should be, in [-1, 1]. Raises ValueError where shapes differ."""
        if originals.shape != images.shape:
            raise ValueError(f"images have shape {tuple(images.shape)}, expected {tuple(originals.shape)}")
        own, given = gradient(originals).double(), gradient(images).double()
        edge = own > EDGE
        # Half a level: whole levels are not quite equal in floating-point numbers.
        flat = F.max_pool2d(own[:, None], FLAT, 1, FLAT // 2)[:, 0] < 0.5
        return cls(*(values.flatten(1).sum(1) for values in (given * edge, own * edge, given * flat, flat.double())))

    def crispness(self, rows: Tensor | slice = slice(None)) -> float:
        """Mean gradient of these images at the originals' edges, over the originals' own there; 1 is as crisp."""
        return float(self.edges[rows].sum() / self.originals[rows].sum())

    def cleanness(self, rows: Tensor | slice = slice(None)) -> float:
        """Mean gradient of these images where the originals are flat, in levels of 255; 0 is as clean."""
        return float(self.flats[rows].sum() / self.flat_pixels[rows].sum())


def total(name: str, answers: Sequence[Mapping[str, bool]], goal: str = "") -> Measure:
    """The share of answers that are yes, given those of each image by attribute; not all images need to have some."""
    right, asked = [sum(row.values()) for row in answers], [len(row) for row in answers]
    return measure(name, share_of(right, asked), sum(map(bool, asked)), "%", goal)


def by_attribute(answers: Sequence[Mapping[str, bool]], group: str, names: Iterable[str] = VALUES) -> Iterator[Measure]:
    """The same of each attribute, as far as there are answers."""
    for name in names:
        own = [row[name] for row in answers if name in row]
        if own:
            yield measure(in_words(name), share_of(own), len(own), "%", group=group)


def in_words(attribute: str) -> str:
    """An attribute's name in words."""
    return attribute.replace("_", " ")


def _consistency(name: str, answers: Sequence[Mapping[str, bool]], group: str) -> Iterator[Measure]:
    """Boundary consistency in all and by attribute; nothing where no image has an answer."""
    if any(answers):
        yield total(name, answers, "≥ 97 %")
    yield from by_attribute(answers, group)


def _kept(
    name: str, goal: str, truth: Sequence[Attributes], read: Sequence[Attributes], group: str
) -> Iterator[Measure]:
    """The share of shown attributes that are read as they are, in all and by attribute."""
    pairs = zip(truth, read, strict=True)
    right = [{n: getattr(avatar, n) == getattr(seen, n) for n in avatar.visible()} for avatar, seen in pairs]
    yield total(name, right, goal)
    yield from by_attribute(right, group)
