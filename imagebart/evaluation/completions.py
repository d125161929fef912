"""Pictures completed from a half, without a prompt: whether the drawn half fits the given one.

ImageBART, Fig. 14: given the lower half of a picture, a left-to-right model has to write the upper half blindly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from imagebart.avatars.attributes import VALUES, Attributes
from imagebart.evaluation.cases import SMALL, found, share_within
from imagebart.evaluation.drawing import rendered
from imagebart.evaluation.fit import fits
from imagebart.evaluation.report import Measure, fit_measures, in_all
from imagebart.evaluation.study import COMPLETED, Study
from imagebart.imaging.masks import ready

UPPER = "upper half"
SHARED = ("skin", "background")  # what both halves of every avatar show
LEAST = 0.1  # the share of an attribute in each half from which the halves have to agree about it


def completions(study: Study) -> Iterator[Measure]:
    """Of upper halves drawn anew: whether their colours are the lower half's, and what the reader says of the whole."""
    avatars = study.avatars(COMPLETED)
    images = complete(study, avatars)
    masks = np.stack([ready(UPPER, study.artist.size)] * len(avatars))
    readings = study.reader.read(images).attributes
    fit = fits(images, masks, avatars, readings, [SHARED] * len(avatars))
    yield from fit_measures("completions: inside = outside", fit, "completions, inside = outside")
    yield agreement(avatars, readings)


def agreement(avatars: Sequence[Attributes], readings: Sequence[Attributes]) -> Measure:
    """Of what both halves show a good part, the share that the reader finds in completed pictures of these avatars."""
    pairs = zip(avatars, readings, strict=True)
    answers = [found(reading, avatar.values_of(must_agree(avatar))) for avatar, reading in pairs]
    return in_all("completions: reader agrees with the given half", answers)


def complete(study: Study, avatars: Sequence[Attributes]) -> Tensor:
    """Renders with their upper half drawn anew: [B, 3, size, size]."""
    masks = np.stack([ready(UPPER, study.artist.size)] * len(avatars))
    return study.artist.edit(rendered(avatars, study.artist.size), masks, [None] * len(avatars), study.seed)


def must_agree(avatar: Attributes) -> list[str]:
    """The attributes of which both halves of the picture show a good part, so that the lower one tells the upper."""
    upper = ready(UPPER, SMALL)
    shares = {name: share_within(avatar, name, upper) for name in VALUES if name in avatar.visible()}
    return [name for name, (least, most) in shares.items() if least >= LEAST and most <= 1 - LEAST]
