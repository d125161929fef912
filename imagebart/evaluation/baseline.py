"""The model that others stand beside: one that draws from left to right, as VQGAN's transformer does."""

from __future__ import annotations

from imagebart.evaluation.drawing import Artist
from imagebart.evaluation.report import Measure

BASELINE = "left to right"


def left_to_right(artist: Artist) -> Artist:
    """The baseline. Raises ValueError for a model that sees what follows."""
    kinds = [stage.config.kind for stage in artist.model.stages]
    if kinds != ["decoder_only"]:
        raise ValueError(f"the baseline has stages of kind {kinds}, expected one decoder_only")
    return artist


def weights_that_draw(artist: Artist) -> Measure:
    """How large a model is; what encodes, decodes and reads prompts is the same for all, and draws nothing."""
    named = artist.model.named_parameters()
    counted = [w.numel() for name, w in named if not name.startswith("first_stage.") and ".text." not in name]
    millions = sum(counted) / 1e6
    return Measure("weights that draw, millions", millions, millions, millions, 0)
