"""Ranking variants by how well they show the prompt: rejection sampling (ImageBART, Table 2, Fig. 3 and 20).

A shipped model's scorer is in its folder, and can also describe images. Class models are ranked by any image
classifier that transformers loads (timm's too where timm is installed), text models by CLIP.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor

from imagebart.core.errors import InputError, WeightsError, reason_of
from imagebart.models.imagebart import ImageBARTModel
from imagebart.text.conditioners import ClassConditioner, ClipTextConditioner
from imagebart.worlds.things import ThingScorer

DETECTOR, ATTRIBUTE_CLASSIFIER = "detector.safetensors", "attribute_classifier.safetensors"  # in a model's folder


class Scorer(Protocol):
    """Scores images by a prompt."""

    def score(self, images: Tensor, prompt: str) -> Tensor:
        """How well images, float [B, 3, H, W] in [-1, 1], show what a prompt says: float [B], more is better.

        All are equal where the prompt claims nothing that the scorer knows.
        """


@runtime_checkable
class Describer(Protocol):
    """A scorer that can also describe an image, float [1, 3, H, W] in [-1, 1], in words that its model knows."""

    def describe(self, image: Tensor) -> str | None:
        """What an image shows; None where the scorer is not sure."""

    def contrast(self, image: Tensor, prompt: str) -> tuple[str, str] | None:
        """The prompt with all else that the image shows, and what the image shows; None where the scorer is not sure.

        The two texts differ only in what the prompt would change.
        """


@runtime_checkable
class Checker(Protocol):
    """A scorer that can say whether images show what a prompt names."""

    def shows(self, squares: Tensor, prompt: str) -> list[bool]:
        """Of images, float [B, 3, H, W] in [-1, 1]; True where it cannot say."""


def bundled_scorer(folder: Path, model: ImageBARTModel) -> Scorer | None:
    """The scorer in a model's folder, if any. Raises WeightsError naming a file that cannot be used."""
    load: Callable[[Path, ImageBARTModel], Scorer]
    if (path := folder / DETECTOR).is_file():
        load = ThingScorer.load
    elif (path := folder / ATTRIBUTE_CLASSIFIER).is_file():
        from imagebart.worlds.attribute_classifier import AvatarScorer  # its module reads a long file of phrases

        load = AvatarScorer.load
    else:
        return None
    try:
        return load(path, model)
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise WeightsError(f"{path} cannot be used as a scorer: {error}") from error


def preprocessing(source: str) -> Callable[[Tensor], Tensor]:
    """From square images [B, 3, H, W] in [-1, 1] to a network's input, by its preprocessor_config.json.

    Where there is none, the input is 224 pixels a side, with ImageNet's mean and deviation of each color.
    """
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        config, _ = ImageProcessingMixin.get_image_processor_dict(source)
    except OSError:
        config = {}
    size = config.get("crop_size") or config.get("size") or 224
    side = int(size if isinstance(size, int) else size.get("height") or size.get("shortest_edge") or 224)
    mean = torch.tensor(config.get("image_mean", (0.485, 0.456, 0.406))).view(3, 1, 1)
    deviation = torch.tensor(config.get("image_std", (0.229, 0.224, 0.225))).view(3, 1, 1)

    def prepare(images: Tensor) -> Tensor:
        small = F.interpolate(images.float().cpu(), (side, side), mode="bicubic", antialias=True)
        return ((small.clamp(-1, 1) + 1) / 2 - mean) / deviation

    return prepare


@dataclass(frozen=True)
class ClassifierScorer:
    """A `Scorer` by the log-probability of the class that the prompt names."""

    network: Any  # takes images, gives .logits [B, classes]
    prepare: Callable[[Tensor], Tensor]
    conditioner: ClassConditioner

    @torch.no_grad()
    def score(self, images: Tensor, prompt: str) -> Tensor:
        if not prompt:
            return torch.zeros(len(images))
        logits: Tensor = self.network(self.prepare(images)).logits
        return logits.log_softmax(-1)[:, self._label(prompt)]

    def _label(self, prompt: str) -> int:
        """The classifier's index of a class: the model's where they have as many, else that of the same name."""
        names = self.network.config.id2label
        number = int(self.conditioner.encode([prompt]).tokens[0, 0]) - self.conditioner.offset
        if len(names) == len(self.conditioner.names):
            return number
        wanted = self.conditioner.names[number].strip().lower()
        for index, name in names.items():
            if wanted in (part.strip().lower() for part in name.split(",")):
                return int(index)
        raise InputError(f'The classifier knows no class "{wanted}": its {len(names)} classes are others.')


@dataclass(frozen=True)
class ClipScorer:
    """A `Scorer` by the similarity of image and prompt in CLIP."""

    network: Any  # a CLIPModel
    prepare: Callable[[Tensor], Tensor]

    def score(self, images: Tensor, prompt: str) -> Tensor:
        if not prompt:
            return torch.zeros(len(images))
        return self.similarity(images, prompt) * self.network.logit_scale.exp()

    @torch.no_grad()
    def similarity(self, images: Tensor, prompt: str) -> Tensor:
        """The cosine of the embeddings of images and of a prompt, [B]."""
        words = ClipTextConditioner().encode([prompt]).tokens
        output = self.network(input_ids=words, pixel_values=self.prepare(images))
        cosines: Tensor = (output.image_embeds @ output.text_embeds.T)[:, 0]
        return cosines


def load_scorer(source: str, model: ImageBARTModel) -> Scorer:
    """The scorer in a folder or of a Hub name: CLIP for a text model, an image classifier for one of classes.

    Raises InputError where the model takes no prompt, or the network is of another kind or cannot be loaded.
    """
    conditioner = model.conditioner
    if conditioner.kind == "none":
        raise InputError("This model takes neither prompt nor class: there is nothing that a scorer could look for.")
    try:
        from transformers import AutoConfig, AutoModelForImageClassification, CLIPModel

        if isinstance(conditioner, ClassConditioner):
            network = AutoModelForImageClassification.from_pretrained(source).eval().requires_grad_(False)
            return ClassifierScorer(network, preprocessing(source), conditioner)
        if AutoConfig.from_pretrained(source).model_type != "clip":
            raise ValueError("it is no CLIP model, which prompts in words need")
        return ClipScorer(CLIPModel.from_pretrained(source).eval().requires_grad_(False), preprocessing(source))
    except ImportError as error:
        raise InputError(f"Scorers need a package: pip install 'imagebart[eval]' ({reason_of(error)}).") from error
    except (OSError, KeyError, ValueError) as error:
        advice = "" if Path(source).is_dir() else " Download it where there is a network, and give its folder."
        raise InputError(f"The scorer {source} cannot be loaded: {reason_of(error)}.{advice}") from error
