"""How good a model of avatars is: prompts, edits, reconstruction, distance and diversity, read off its pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from imagebart.avatars.attributes import VALUES, Attributes
from imagebart.avatars.split import sample
from imagebart.evaluation.cases import EDITED, PromptCase, edit_case, found, held_out_prompt, seen_prompt
from imagebart.evaluation.distance import frechet_distance, psnr, ssim
from imagebart.evaluation.diversity import OPEN, draw_claimed, free_entropy
from imagebart.evaluation.drawing import Artist, rendered
from imagebart.evaluation.intervals import jackknife, mean_of, replicates, share_of
from imagebart.evaluation.plain import plain_prompts
from imagebart.evaluation.reader import Reader, Reading
from imagebart.evaluation.report import Measure, measure
from imagebart.evaluation.sharpness import Sharpness

SERIES = 900_000  # of avatars, plus the seed; training draws from other series
REFERENCE, FLOOR, SHOWN = 10**8, 2 * 10**8, 3 * 10**8  # first numbers of sets of renders in a series


@dataclass(frozen=True)
class Study:
    """A model under study. Every measure takes about `samples` pictures (at least 20)."""

    artist: Artist
    reader: Reader
    samples: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 20:
            raise ValueError(f"{self.samples} samples, expected 20 or more: intervals of fewer say nothing")
        if self.artist.model.conditioner.kind != "text":
            kind = self.artist.model.conditioner.kind
            raise ValueError(f"the model's conditioning is {kind!r}; avatars are asked for by text")

    @property
    def series(self) -> int:
        return SERIES + self.seed

    @property
    def pictures(self) -> int:
        """How many pictures `evaluate` has the model draw, for a progress bar."""
        plain, variants = len(plain_prompts()) * self.repeats, len(OPEN) * self.variants
        return 4 * self.samples + plain + variants

    @property
    def repeats(self) -> int:
        """Pictures of each plain prompt."""
        return max(1, self.samples // len(plain_prompts()))

    @property
    def variants(self) -> int:
        """Pictures of each open prompt."""
        return max(2, self.samples // len(OPEN))

    def avatars(self, start: int, count: int | None = None) -> list[Attributes]:
        """Fresh avatars without held-out pairs, as many as there are samples."""
        return [sample(start + i, self.series, "train") for i in range(count or self.samples)]

    def features(self, start: int, count: int) -> Tensor:
        """The reader's features of fresh renders: [count, F]."""
        avatars = self.avatars(start, count)
        parts = [rendered(avatars[i : i + 64], self.artist.size) for i in range(0, count, 64)]
        return torch.cat([self.reader.read(part).features for part in parts])


def evaluate(study: Study) -> Iterator[Measure]:
    """All measures of a model, each as soon as it is known."""
    yield from reader_accuracy(study)
    yield from reconstruction(study)
    seen = _Answers(study, [seen_prompt(i, study.series) for i in range(study.samples)])
    yield seen.accuracy("prompts: named attributes found", "≥ 97 %")
    held_out = _Answers(study, [held_out_prompt(i, study.series) for i in range(study.samples)])
    yield held_out.accuracy("held-out pairs: named attributes found", "≥ 95 %")
    yield from plain_words(study)
    yield from edits(study)
    renders = Renders.of(study)
    yield renders.floor_measure(study)
    yield from distance(renders, seen.reading.features)
    yield diversity(study)
    yield from seen.by_attribute("prompts, by attribute")


class _Answers:
    """Prompts, a picture of each, and what the reader finds in it."""

    def __init__(self, study: Study, cases: Sequence[PromptCase]) -> None:
        pictures = study.artist.generate([case.text for case in cases], study.seed)
        self.reading = study.reader.read(pictures)
        self.found = [found(a, case.claims) for a, case in zip(self.reading.attributes, cases, strict=True)]

    def accuracy(self, name: str, goal: str) -> Measure:
        right, asked = [sum(f.values()) for f in self.found], [len(f) for f in self.found]
        return measure(name, share_of(right, asked), len(asked), "%", goal)

    def by_attribute(self, group: str) -> Iterator[Measure]:
        for name in VALUES:
            answers = [f[name] for f in self.found if name in f]
            if answers:
                yield measure(_plainly(name), share_of(answers, [1] * len(answers)), len(answers), "%", group=group)


def prompt_accuracy(study: Study) -> tuple[Measure, Reading]:
    """The share of attributes named in captions of the training's kind that are found, and what was read."""
    answers = _Answers(study, [seen_prompt(i, study.series) for i in range(study.samples)])
    return answers.accuracy("prompts: named attributes found", "≥ 97 %"), answers.reading


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
    yield from _kept("reconstruction: attributes kept", "≥ 99 %", truth, read, "reconstruction, by attribute")
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
    yield measure("plain prompts understood", share, len(understood), "%", "≥ 90 %")
    for case, count in zip(cases, right, strict=True):
        yield measure(case.text, share_of([count], [repeats]), repeats, "%", group="plain prompts")


def edits(study: Study) -> Iterator[Measure]:
    """Masked edits: whether what was asked for appears, and what lies outside the mask stays."""
    cases = [edit_case(i, study.series, study.artist.size) for i in range(study.samples)]
    cases.sort(key=lambda case: EDITED[case.attribute])  # a batch draws what any of its masks paints
    before = rendered([case.before for case in cases], study.artist.size)
    prompts = [case.prompt.text for case in cases]
    after = study.artist.edit(before, np.stack([case.mask for case in cases]), prompts, study.seed)
    read = study.reader.read(after).attributes
    changed = [all(found(a, case.prompt.claims).values()) for a, case in zip(read, cases, strict=True)]
    stayed, others = [], []
    for attributes, case in zip(read, cases, strict=True):
        values = case.before.as_dict()
        kept = found(attributes, {name: frozenset({values[name]}) for name in case.outside})
        stayed.append(sum(kept.values()))
        others.append(len(kept))
    yield measure("edits: changed as asked", share_of(changed, [1] * len(cases)), len(cases), "%", "≥ 97 %")
    yield measure("edits: others stayed", share_of(stayed, others), len(cases), "%", "≥ 99 %")
    for name in EDITED:
        answers = [c for c, case in zip(changed, cases, strict=True) if case.attribute == name]
        if answers:
            share = share_of(answers, [1] * len(answers))
            yield measure(_plainly(name), share, len(answers), "%", group="edits, by attribute")


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
    yield measure(name, share_of([sum(r.values()) for r in right], [len(r) for r in right]), len(right), "%", goal)
    for attribute in VALUES:
        answers = [r[attribute] for r in right if attribute in r]
        if answers:
            share = share_of(answers, [1] * len(answers))
            yield measure(_plainly(attribute), share, len(answers), "%", group=group)


def _plainly(attribute: str) -> str:
    return attribute.replace("_", " ")
