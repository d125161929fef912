"""How good a model of avatars is: prompts, edits, completions, reconstruction, distance and diversity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from imagebart.avatars.attributes import Attributes
from imagebart.avatars.dataset import sample
from imagebart.avatars.reader import Reading
from imagebart.evaluation.cases import PromptCase, found, held_out_prompt, seen_prompt
from imagebart.evaluation.completions import completions
from imagebart.evaluation.diversity import OPEN, draw_claimed, free_entropy
from imagebart.evaluation.drawing import rendered
from imagebart.evaluation.edits import edits
from imagebart.evaluation.metrics import frechet_distance, jackknife, mean_of, psnr, replicates, share_of, ssim
from imagebart.evaluation.plain import plain_prompts
from imagebart.evaluation.report import Measure, by_attribute, in_all, measure
from imagebart.evaluation.sharpness import Sharpness
from imagebart.evaluation.study import FLOOR, REFERENCE, SHOWN, Study


def evaluate(study: Study) -> Iterator[Measure]:
    """All measures of a model, each as soon as it is known."""
    yield from reader_accuracy(study)
    yield from reconstruction(study)
    seen = _Answers(study, [seen_prompt(i, study.series) for i in range(study.samples)])
    yield seen.accuracy("prompts: named attributes found", "≥ 98 %")
    held_out = _Answers(study, [held_out_prompt(i, study.series) for i in range(study.samples)])
    yield held_out.accuracy("held-out pairs: named attributes found", "≥ 97 %")
    yield from plain_words(study)
    yield from edits(study)
    yield from completions(study)
    renders = Renders.of(study)
    yield renders.floor_measure(study)
    yield from distance(renders, seen.reading.features)
    yield diversity(study)
    yield from by_attribute(seen.found, "prompts, by attribute")


class _Answers:
    """Prompts, a picture of each, and what the reader finds in it."""

    def __init__(self, study: Study, cases: Sequence[PromptCase]) -> None:
        pictures = study.artist.generate([case.text for case in cases], study.seed)
        self.reading = study.reader.read(pictures)
        self.found = [found(a, case.claims) for a, case in zip(self.reading.attributes, cases, strict=True)]

    def accuracy(self, name: str, goal: str) -> Measure:
        return in_all(name, self.found, goal)


def prompt_accuracy(study: Study) -> tuple[Measure, Reading]:
    """The share of attributes named in captions of the training's kind that are found, and what was read."""
    answers = _Answers(study, [seen_prompt(i, study.series) for i in range(study.samples)])
    return answers.accuracy("prompts: named attributes found", "≥ 98 %"), answers.reading


def reader_accuracy(study: Study) -> Iterator[Measure]:
    """How often the reader is right on fresh renders of all combinations: what limits everything else."""
    count = 5 * study.samples
    truth = [sample(SHOWN + i, study.series, "all") for i in range(count)]
    read: list[Attributes] = []
    for start in range(0, count, 64):
        read += study.reader.read(rendered(truth[start : start + 64], study.artist.size)).attributes
    yield from _kept("reader right on renders", "≥ 99 %", truth, read, "reader, by attribute")


def reconstruction(study: Study) -> Iterator[Measure]:
    """Attributes kept through encode and decode, PSNR, SSIM and sharpness."""
    truth = study.avatars(SHOWN)
    images = rendered(truth, study.artist.size)
    decoded = study.artist.reconstruct(images)
    read = study.reader.read(decoded).attributes
    yield from _kept("reconstruction: attributes kept", "≥ 99.5 %", truth, read, "reconstruction, by attribute")
    yield measure("reconstruction: PSNR", mean_of(psnr(images, decoded).tolist()), len(truth), "dB")
    yield measure("reconstruction: SSIM", mean_of(ssim(images, decoded).tolist()), len(truth))
    sharpness = Sharpness.of(images, decoded)
    crisp, clean = (jackknife(replicates(f, len(truth))) for f in (sharpness.crispness, sharpness.cleanness))
    yield measure("reconstruction: crispness", crisp, len(truth), goal="≥ 0.85")
    yield measure("reconstruction: cleanness", clean, len(truth), "levels", "≤ 1")


def plain_words(study: Study) -> Iterator[Measure]:
    """Of the sixty plain prompts, the share of pictures that show all that their prompt says."""
    cases = plain_prompts()
    repeats = study.repeats
    answers = _Answers(study, [case for case in cases for _ in range(repeats)])
    understood = [all(f.values()) for f in answers.found]
    right = [sum(understood[i * repeats : (i + 1) * repeats]) for i in range(len(cases))]
    share = share_of(right, [repeats] * len(cases))
    yield measure("plain prompts understood", share, len(understood), "%", "≥ 97 %")
    for case, count in zip(cases, right, strict=True):
        yield measure(case.text, share_of([count], [repeats]), repeats, "%", group="plain prompts")


@dataclass(frozen=True)
class Renders:
    """Fresh renders to compare with: features [10 * samples, F], and the distance of `samples` others to them."""

    reference: Tensor
    floor: Tensor  # replicates

    @classmethod
    def of(cls, study: Study) -> Renders:
        reference = study.features(REFERENCE, 10 * study.samples)
        return cls(reference, _distances(study.features(FLOOR, study.samples), reference))

    def floor_measure(self, study: Study) -> Measure:
        return measure("distance of renders to renders, the floor", jackknife(self.floor), study.samples)


def distance(
    renders: Renders, features: Tensor, name: str = "distance to renders", goal: str = "≤ 3"
) -> Iterator[Measure]:
    """The Fréchet distance of pictures to fresh renders in the reader's features, and how many floors it is.

    The pictures are as many as those of the floor, so that both distances are equally too large.
    """
    own = _distances(features, renders.reference)
    yield measure(name, jackknife(own), len(features))
    yield measure(f"{name} over the floor", jackknife(own / renders.floor), len(features), goal=goal)


def _distances(features: Tensor, reference: Tensor) -> Tensor:
    return replicates(lambda rows: frechet_distance(features[rows], reference), len(features))


def diversity(study: Study) -> Measure:
    """The entropy of what prompts leave open, over that of as many renders of which the prompt is true."""
    cases = [case for case in OPEN for _ in range(study.variants)]
    read = study.reader.read(study.artist.generate([case.text for case in cases], study.seed)).attributes
    ratios = []
    for i, case in enumerate(OPEN):
        random = np.random.default_rng((study.series, i))
        renders = [draw_claimed(case.claims, random) for _ in range(study.variants)]
        own = free_entropy(read[i * study.variants : (i + 1) * study.variants], case.claims)
        ratios.append(own / free_entropy(renders, case.claims))
    return measure("diversity: entropy over that of renders", mean_of(ratios), len(cases), "%")


def _kept(
    name: str, goal: str, truth: Sequence[Attributes], read: Sequence[Attributes], group: str
) -> Iterator[Measure]:
    """The share of shown attributes that are read as they are, in all and by attribute."""
    right = []
    for avatar, reading in zip(truth, read, strict=True):
        values, seen = avatar.as_dict(), reading.as_dict()
        right.append({n: values[n] == seen[n] for n in avatar.visible()})
    yield in_all(name, right, goal)
    yield from by_attribute(right, group)
