"""What a training of someone's own pictures takes over from a finished model: its first stage, or all that it knows."""

from __future__ import annotations

from pathlib import Path

from imagebart.conditioning import Conditioner, TextConditioner
from imagebart.errors import InputError
from imagebart.models.denoiser import Denoiser
from imagebart.models.first_stage import FirstStage
from imagebart.models.imagebart import ImageBART
from imagebart.training.config import StageShape
from imagebart.training.parts import first_stage_of, taught_more
from imagebart.training.plan import ModelRun

SAID = {"text": "captions", "class": "classes", "none": "neither captions nor classes"}


def given_first_stage(run: ModelRun) -> FirstStage | None:
    """The first stage that is taken over, None where one is trained. Raises InputError where there is none."""
    return None if run.given is None else first_stage_of(Path(run.given))


def given_shape(run: ModelRun, wanted: Conditioner) -> StageShape | None:
    """The sizes of the denoiser that is trained on; None where one is begun. Raises as `given_denoiser`."""
    if run.begin_from is None:
        return None
    network = given_denoiser(run.begin_from, wanted)[0].config
    decoder, text = network.decoder, network.text
    slots = (text.slots, text.phrase) if text is not None else (StageShape.slots, StageShape.phrase)
    return StageShape(decoder.width, decoder.depth, decoder.heads, decoder.head_size, network.encoder.depth, *slots)


def given_denoiser(begin_from: str, wanted: Conditioner) -> tuple[Denoiser, Conditioner]:
    """A model's denoiser, to be trained on, and what it is told: words of the captions that `wanted` knows.

    Of words that it knew it keeps what it knew. Raises InputError where it was trained with other conditioning.
    """
    network, known = _given_denoiser(begin_from)
    if known.kind != wanted.kind:
        raise InputError(
            f"The model in {begin_from} was trained with {SAID[known.kind]}, the pictures have {SAID[wanted.kind]}; "
            "give it as --first-stage, then the denoiser begins anew."
        )
    if isinstance(known, TextConditioner) and isinstance(wanted, TextConditioner) and network.text is not None:
        if wanted.length > known.length:
            raise InputError(
                f"The captions take up to {wanted.length} tokens, and the model in {begin_from} reads {known.length}; "
                "shorten them, or give it as --first-stage, then the denoiser begins anew."
            )
        told = TextConditioner(wanted.tokens, wanted.words, known.length)
        network.read_with(taught_more(network.text, known, told))
        return network.requires_grad_(True), told
    if known.to_config() != wanted.to_config():
        raise InputError(
            f"The model in {begin_from} was told of other {SAID[known.kind]} than the pictures have; "
            "give it as --first-stage, then the denoiser begins anew."
        )
    return network.requires_grad_(True), known


def _given_denoiser(begin_from: str) -> tuple[Denoiser, Conditioner]:
    try:
        model = ImageBART.from_pretrained(begin_from)
    except ValueError as error:
        raise InputError(f"No model can be gone on from in {begin_from}: {error}") from error
    if model.denoiser is None:
        raise InputError(
            f"The model in {begin_from} has stages, and one with a denoiser is expected; give it as --first-stage."
        )
    return model.denoiser, model.conditioner
