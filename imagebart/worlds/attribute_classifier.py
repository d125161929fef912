"""The attribute classifier of avatars, and the scorer of images that is built on it.

A small network classifies the attributes of an avatar in an image. It is trained on rendered avatars only
(`recipes.avatars.training`), never on a model's samples, which it evaluates. Linear heads on the text encoder's query
tokens, one an attribute, read what a prompt claims; the classifier gives the probability that an image shows it.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Tensor, nn

from imagebart.core.atomic_io import write_bytes
from imagebart.models.imagebart import ImageBARTModel
from imagebart.models.transformer import TextEncoder
from imagebart.text.conditioners import Conditioner
from imagebart.worlds import load_half, save_half
from imagebart.worlds.avatars import VALUES, Attributes, Claims, changed_by, verbalize, with_showing

SIZE = 128  # pixels a side of the network's input
CHANNELS = (48, 64, 96)  # at 32 x 32, 16 x 16 and 8 x 8
SQUEEZED = 32  # channels that are flattened
FEATURES = 192  # of the layer before the logits


class AttributeClassifier(nn.Module):
    """Pixels in squares of 4 x 4 to channels, convolutions at 32 x 32, 16 x 16 and 8 x 8, flattened.

    An avatar's parts are always at the same places: there is no pooling, and each position's coordinates are an input.
    """

    coordinates: Tensor

    def __init__(self) -> None:
        super().__init__()
        first, second, third = CHANNELS
        line = torch.linspace(-1, 1, SIZE // 4)
        self.register_buffer("coordinates", torch.stack(torch.meshgrid(line, line, indexing="xy")), persistent=False)
        self.body = nn.Sequential(
            _block(3 * 16 + 2, first),
            _block(first, second, stride=2),
            _block(second, second),
            _block(second, third, stride=2),
            _block(third, third),
            nn.Conv2d(third, SQUEEZED, 1),
            nn.Flatten(),
            nn.Linear(SQUEEZED * (SIZE // 16) ** 2, FEATURES),
            nn.ReLU(),
        )
        self.heads = nn.Linear(FEATURES, sum(map(len, VALUES.values())))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images float [B, 3, S, S] in [-1, 1], of any size -> logits [B, values] of each attribute of `VALUES`."""
        if images.shape[-1] != SIZE:
            images = F.interpolate(images, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
        patches = torch.cat([F.pixel_unshuffle(images, 4), self.coordinates.expand(len(images), -1, -1, -1)], 1)
        logits = self.heads(self.body(patches.to(memory_format=torch.channels_last)))
        return dict(zip(VALUES, logits.split([len(values) for values in VALUES.values()], 1), strict=True))


def _block(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out), nn.ReLU())


def likeliest(answers: dict[str, Tensor]) -> list[Attributes]:
    """The attributes of each image, by the classifier's logits; `Attributes.visible` says which of them show."""
    columns = [[VALUES[name][i] for i in logits.argmax(1).tolist()] for name, logits in answers.items()]
    return [Attributes(*values) for values in zip(*columns, strict=True)]


def save_classifier(classifier: AttributeClassifier, path: Path) -> None:
    """Writes the network, with the attributes' values in the file's header."""
    save_half(classifier, path, {"values": json.dumps(VALUES)})


def load_classifier(path: Path) -> AttributeClassifier:
    """The classifier in a file, ready to read. Raises ValueError where it was trained for other attributes."""
    about, tensors = load_half(path)
    if json.loads(about["values"]) != {name: list(values) for name, values in VALUES.items()}:
        raise ValueError(f"the classifier in {path} knows other attributes than avatars have now; train it again")
    classifier = AttributeClassifier()
    classifier.load_state_dict(tensors)
    return classifier.to(memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]


# What a prompt claims.

HEADS = "heads.safetensors"  # in a model's folder
MIN_SHARE = 0.25  # of the likeliest value's probability, from which another value is claimed too
GROUPS = tuple(len(values) + 1 for values in VALUES.values())  # of each attribute its values, and "not mentioned"


class CaptionReader(nn.Module):
    """A text encoder with a linear head on each query token: [B, length] -> logits [B, sum(GROUPS)]."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        if encoder.config.query_tokens < len(GROUPS):
            raise ValueError(f"query_tokens is {encoder.config.query_tokens}, expected {len(GROUPS)}, one an attribute")
        self.encoder = encoder
        self.heads = nn.ModuleList(nn.Linear(encoder.config.transformer.width, count) for count in GROUPS)

    def forward(self, words: Tensor) -> Tensor:
        queries = self.encoder(words)[:, : len(GROUPS)].unbind(1)
        return torch.cat([head(query) for head, query in zip(self.heads, queries, strict=True)], 1)


def save_heads(reader: CaptionReader, folder: Path) -> None:
    write_bytes(folder / HEADS, save(reader.heads.state_dict()))


def claims_vector(claims: Claims) -> Tensor:
    """Of each attribute its values that make a caption true, and whether it is not mentioned: bool [sum(GROUPS)]."""
    flags = []
    for name in VALUES:
        flags += [_allowed(name, claims.get(name, frozenset())), torch.tensor([name not in claims])]
    return torch.cat(flags)


def _allowed(name: str, values: frozenset[str]) -> Tensor:
    """Which of an attribute's values are among these: bool [values of the attribute]."""
    return torch.tensor([value in values for value in VALUES[name]])


def read_claims(logits: Tensor) -> Claims:
    """What a caption claims, from logits [sum(GROUPS)].

    A head learns to share its probability evenly among the values that make a caption true. With MIN_SHARE, 368 of 400
    captions were read wholly right; with twice as much, 340.
    """
    claims: Claims = {}
    for (name, values), group in zip(VALUES.items(), logits.split(GROUPS), strict=True):
        shares = group.float().softmax(0)
        if int(shares.argmax()) < len(values):
            likely = (shares > MIN_SHARE * shares.max()).tolist()
            claims[name] = frozenset(value for value, said in zip(values, likely, strict=False) if said)
    return claims


# What an image shows.

MIN_PROBABILITY = 0.92  # mean over an avatar's attributes: other images reach 0.91


@dataclass(frozen=True)
class AvatarScorer:
    """Scores by the classifier's log-probability of what the prompt claims; a `ranking.Checker` and `Describer`."""

    classifier: AttributeClassifier
    captions: CaptionReader
    conditioner: Conditioner

    @classmethod
    def load(cls, path: Path, model: ImageBARTModel) -> "AvatarScorer":
        """The classifier in a file, and a model's text encoder with the heads beside the file."""
        if model.text is None:
            raise ValueError("it scores by prompts, but the model beside it has no text encoder to read them")
        captions, classifier = CaptionReader(model.text), load_classifier(path)
        captions.heads.load_state_dict(load_file(path.parent / HEADS))
        captions.heads.to(model.device, next(model.text.parameters()).dtype)
        return cls(classifier, captions.eval().requires_grad_(False), model.conditioner)

    @torch.no_grad()
    def claims(self, prompt: str) -> Claims:
        """What a prompt claims; {} where it mentions no attribute."""
        words = self.conditioner.encode([prompt]).tokens
        return read_claims(self.captions(words.to(next(self.captions.parameters()).device))[0].cpu())

    @torch.no_grad()
    def score(self, images: Tensor, prompt: str) -> Tensor:
        answers, total = self.classifier(images.float().cpu()), torch.zeros(len(images))
        for name, allowed in with_showing(self.claims(prompt)).items():
            total += answers[name].log_softmax(1)[:, _allowed(name, allowed)].logsumexp(1)
        return total

    @torch.no_grad()
    def shows(self, squares: Tensor, prompt: str) -> list[bool]:
        answers, shown = self.classifier(squares.float().cpu()), torch.ones(len(squares), dtype=torch.bool)
        for name, allowed in with_showing(self.claims(prompt)).items():
            shown &= _allowed(name, allowed)[answers[name].argmax(1)]
        return shown.tolist()

    def describe(self, image: Tensor) -> str | None:
        attributes = self._read(image)
        return None if attributes is None else verbalize(attributes)

    def contrast(self, image: Tensor, prompt: str) -> tuple[str, str] | None:
        attributes = self._read(image)
        if attributes is None:
            return None
        rest = verbalize(*changed_by(self.claims(prompt), attributes))
        return ", ".join(filter(None, (prompt, rest))), verbalize(attributes)

    @torch.no_grad()
    def _read(self, image: Tensor) -> Attributes | None:
        """The likeliest attributes of one image; None where it is unlikely to be an avatar."""
        answers = self.classifier(image.float().cpu())
        (attributes,) = likeliest(answers)
        probabilities = [float(answers[name].softmax(1).max()) for name in attributes.visible()]
        return attributes if sum(probabilities) / len(probabilities) >= MIN_PROBABILITY else None
