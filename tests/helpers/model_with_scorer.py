"""A tiny random model with a scorer beside it: heads that say anything, and the reader of avatars."""

from pathlib import Path
from shutil import copy

import torch
from tiny_models import tiny_model

from imagebart.model import ImageBART
from imagebart.worlds.attribute_classifier import CaptionReader, save_heads
from imagebart.worlds.avatars import VALUES
from imagebart.worlds.ranking import ATTRIBUTE_CLASSIFIER
from recipes.avatars import CLASSIFIER


def save_model_with_scorer(folder: Path) -> ImageBART:
    """Writes the model, its heads and its scorer to a folder."""
    model = tiny_model(query_tokens=len(VALUES))
    assert model.text is not None
    model.save_pretrained(folder)
    torch.manual_seed(0)
    save_heads(CaptionReader(model.text), folder)
    copy(CLASSIFIER, folder / ATTRIBUTE_CLASSIFIER)
    return model
