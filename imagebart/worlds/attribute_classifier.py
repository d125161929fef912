"""The attribute classifier of avatars, and the scorer of images that is built on it.

A small network classifies the attributes of an avatar in an image. It is trained on rendered avatars only
(`recipes.avatars.training`), never on a model's samples, which it evaluates. Linear heads on the text encoder's query
tokens, one an attribute, read what a prompt claims; the classifier gives the probability that an image shows it.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from imagebart.core.atomic_io import write_bytes
from imagebart.core.errors import WeightsError
from imagebart.core.settings import Settings
from imagebart.models.imagebart import ImageBARTModel
from imagebart.models.transformer import TextEncoder
from imagebart.text.conditioners import Conditioner
from imagebart.text.prompts import articled
from imagebart.worlds.avatars import (
    COLOR_ALONE,
    COLOR_OF,
    PLAIN,
    SHOWING,
    SUBJECTS,
    VALUES,
    WORDINGS,
    Attributes,
    Claims,
    color_words,
)

SIZE = 128  # pixels a side of the network's input
Size = Annotated[int, Field(ge=1, le=512)]  # of a layer: larger than here, and a few megabytes at most


class AttributeClassifierConfig(Settings):
    """Size of the network."""

    channels: tuple[Size, Size, Size] = (48, 64, 96)  # at 32 x 32, 16 x 16 and 8 x 8
    squeeze: Size = 32  # channels that are flattened
    features: Size = 192  # of the layer before the logits


class AttributeClassifier(nn.Module):
    """Pixels in squares of 4 x 4 to channels, convolutions at 32 x 32, 16 x 16 and 8 x 8, flattened.

    An avatar's parts are always at the same places: there is no pooling, and each position's coordinates are an input.
    """

    coordinates: Tensor

    def __init__(self, config: AttributeClassifierConfig | None = None) -> None:
        super().__init__()
        self.config = config or AttributeClassifierConfig()
        first, second, third = self.config.channels
        cells = SIZE // 4
        line = torch.linspace(-1, 1, cells)
        coordinates = torch.stack([line.expand(cells, cells), line[:, None].expand(cells, cells)])
        self.register_buffer("coordinates", coordinates, persistent=False)
        self.body = nn.Sequential(
            _block(3 * 16 + 2, first),
            _block(first, second, stride=2),
            _block(second, second),
            _block(second, third, stride=2),
            _block(third, third),
            nn.Conv2d(third, self.config.squeeze, 1),
            nn.Flatten(),
            nn.Linear(self.config.squeeze * (SIZE // 16) ** 2, self.config.features),
            nn.ReLU(),
        )
        self.heads = nn.Linear(self.config.features, sum(map(len, VALUES.values())))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images float [B, 3, S, S] in [-1, 1], of any size -> logits [B, values] of each attribute of `VALUES`."""
        if images.shape[-1] != SIZE:
            images = F.interpolate(images, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
        patches = torch.cat([F.pixel_unshuffle(images, 4), self.coordinates.expand(len(images), -1, -1, -1)], 1)
        logits = self.heads(self.body(patches.to(memory_format=torch.channels_last)))
        return dict(zip(VALUES, logits.split([len(values) for values in VALUES.values()], 1), strict=True))

    @torch.no_grad()
    def read(self, images: Tensor, batch: int = 64) -> list[Attributes]:
        """The attributes of each of the images, float [B, 3, S, S] in [-1, 1], `batch` at a time.

        An attribute that an image does not show has a value all the same; `Attributes.visible` says which show.
        """
        read: list[Attributes] = []
        for part in images.split(batch):
            chosen = {name: logits.argmax(1).tolist() for name, logits in self(part.float()).items()}
            columns = [[VALUES[name][number] for number in numbers] for name, numbers in chosen.items()]
            read += [Attributes(*values) for values in zip(*columns, strict=True)]
        return read


def _block(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(channels_out), nn.ReLU()
    )


def save_classifier(classifier: AttributeClassifier, path: Path) -> None:
    """Writes one safetensors file of 16-bit numbers, the network's size and the attributes' values in its header."""
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in classifier.state_dict().items()}
    about = {"config": classifier.config.model_dump_json(), "values": json.dumps(VALUES)}
    write_bytes(path, save({k: v.contiguous().cpu() for k, v in tensors.items()}, about))


def load_classifier(path: Path) -> AttributeClassifier:
    """The classifier in a file, ready to read. Raises ValueError where it was trained for other attributes."""
    if not path.is_file():
        raise ValueError(f"{path} is missing; `python -m recipes.avatars train classifier` makes it")
    with safe_open(path, "pt") as file:
        about, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if json.loads(about["values"]) != {name: list(values) for name, values in VALUES.items()}:
        raise ValueError(f"the classifier in {path} knows other attributes than avatars have now; train it again")
    classifier = AttributeClassifier(AttributeClassifierConfig.from_json(about["config"]))
    classifier.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    return classifier.to(memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]


# What a prompt claims.

HEADS = "heads.safetensors"  # in a model's folder
MIN_SHARE = 0.25  # of the likeliest value's probability, from which another value is claimed too
GROUPS = tuple(len(values) + 1 for values in VALUES.values())  # of each attribute its values, and "not mentioned"


class CaptionReader(nn.Module):
    """A text encoder with a linear head on each query token: [B, length] -> logits [B, sum(groups)]."""

    def __init__(self, encoder: TextEncoder, groups: tuple[int, ...] = GROUPS) -> None:
        super().__init__()
        if encoder.config.query_tokens < len(groups):
            raise ValueError(f"query_tokens is {encoder.config.query_tokens}, expected {len(groups)}, one an attribute")
        self.encoder = encoder
        self.heads = nn.ModuleList(nn.Linear(encoder.config.transformer.width, count) for count in groups)

    def forward(self, words: Tensor) -> Tensor:
        queries = self.encoder(words)[:, : len(self.heads)].unbind(1)
        return torch.cat([head(query) for head, query in zip(self.heads, queries, strict=True)], 1)


def save_heads(reader: CaptionReader, folder: Path) -> None:
    """Writes the heads beside their text encoder."""
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


def with_showing(claims: Claims) -> Claims:
    """Claims with what is needed for them to show: no hat for a color of hair, a printed shirt for a print.

    The claims themselves come first: a hat and blonde hair stay a hat and blonde hair.
    """
    wider = dict(claims)
    for name in claims:
        for hiding, harmless in _harmless(name).items():
            wider[hiding] = (wider.get(hiding, harmless) & harmless) or wider[hiding]
    return wider


@cache
def _harmless(name: str) -> Claims:
    """Of each attribute that can hide another, the values that do not."""
    base = replace(PLAIN, **SHOWING.get(name, {}))
    harmless: Claims = {}
    for hiding in ("top", "facial_hair", "accessory", "clothing"):
        values = frozenset(v for v in VALUES[hiding] if name in replace(base, **{hiding: v}).visible())
        if hiding != name and len(values) < len(VALUES[hiding]):
            harmless[hiding] = values
    return harmless


# What an image shows.

# The attributes in one phrase of a description.
PHRASES = tuple(
    frozenset({subject, *COLOR_OF.get(subject, ())}) | ({"graphic"} if subject == "clothing" else set())
    for subject in SUBJECTS
)
MIN_PROBABILITY = 0.92  # mean over an avatar's attributes: other images reach 0.91


def verbalize(attributes: Attributes, names: Collection[str] = frozenset(VALUES)) -> str:
    """ "short brown hair, no beard, a blue hoodie, …": those of the named attributes that show; "" for none.

    A color is named with what has it, or, where that is not named, with as little as can have it: "blue clothes".
    """
    shown, values = attributes.visible() & set(names), attributes.as_dict()
    texts = []
    for subject in SUBJECTS:
        thing = "graphic" if subject == "clothing" and "graphic" in shown else subject
        color = next((name for name in COLOR_OF.get(subject, ()) if name in shown), None)
        text = None
        if thing in shown:
            nouns = [p for p in WORDINGS[thing] if p.kind == "noun" and p.values == {values[thing]}]
            text = next((p.text for p in nouns if p.colored), nouns[0].text)
        elif color:
            nouns = [p for p in COLOR_ALONE[subject] if p.kind == "noun" and values[subject] in p.values]
            text = nouns[0].text if nouns else None
        if text:
            texts.append(articled(text.replace("{c} ", f"{color_words(color, values[color])[0]} " if color else "")))
    return ", ".join(texts)


def log_likelihood(answers: dict[str, Tensor], claims: Claims) -> Tensor:
    """The log-probability [B] that all claims are true and show; answers: logits [B, values] of each attribute."""
    total = torch.zeros(len(next(iter(answers.values()))))
    for name, allowed in with_showing(claims).items():
        total += answers[name].float().log_softmax(1)[:, _allowed(name, allowed)].logsumexp(1)
    return total


@dataclass(frozen=True)
class AvatarScorer:
    """Scores images by the log-probability, by the classifier, that they show what the prompt claims."""

    classifier: AttributeClassifier
    captions: CaptionReader
    conditioner: Conditioner

    @classmethod
    def load(cls, path: Path, model: ImageBARTModel) -> AvatarScorer:
        """The classifier in a file, and a model's text encoder with the heads beside the file.

        Raises WeightsError naming what is damaged, or missing.
        """
        if model.text is None:
            raise WeightsError(f"{path} scores by prompts, but the model beside it has no text encoder to read them")
        try:
            captions, classifier = CaptionReader(model.text), load_classifier(path)
            captions.heads.load_state_dict(load_file(path.parent / HEADS))
        except (SafetensorError, OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
            raise WeightsError(f"{path} cannot be used as a scorer: {error}") from error
        captions.heads.to(model.device, next(model.text.parameters()).dtype)
        return cls(classifier, captions.eval().requires_grad_(False), model.conditioner)

    @torch.no_grad()
    def claims(self, prompt: str) -> Claims:
        """What a prompt claims; {} where it mentions no attribute."""
        words = self.conditioner.encode([prompt]).tokens
        return read_claims(self.captions(words.to(next(self.captions.parameters()).device))[0].cpu())

    @torch.no_grad()
    def score(self, images: Tensor, prompt: str) -> Tensor:
        """See `imagebart.worlds.ranking.Scorer`. 0 at best, and for prompts that claim nothing."""
        return log_likelihood(self.classifier(images.float().cpu()), self.claims(prompt))

    @torch.no_grad()
    def shows(self, squares: Tensor, prompt: str) -> list[bool]:
        """See `imagebart.worlds.ranking.Checker`."""
        answers, shown = self.classifier(squares.float().cpu()), torch.ones(len(squares), dtype=torch.bool)
        for name, allowed in with_showing(self.claims(prompt)).items():
            shown &= _allowed(name, allowed)[answers[name].argmax(1)]
        return shown.tolist()

    def describe(self, image: Tensor) -> str | None:
        """See `imagebart.worlds.ranking.Describer`."""
        attributes = self._read(image)
        return None if attributes is None else verbalize(attributes)

    def contrast(self, image: Tensor, prompt: str) -> tuple[str, str] | None:
        """See `imagebart.worlds.ranking.Describer`."""
        attributes = self._read(image)
        if attributes is None:
            return None
        rest = verbalize(*_changed(attributes, self.claims(prompt)))
        return ", ".join(text for text in (prompt, rest) if text), verbalize(attributes)

    @torch.no_grad()
    def _read(self, image: Tensor) -> Attributes | None:
        """The likeliest attributes of one image; None where it is unlikely to be an avatar."""
        answers = self.classifier(image.float().cpu())
        best = {name: logits[0].softmax(0).max(0) for name, logits in answers.items()}
        attributes = Attributes(**{name: VALUES[name][int(value)] for name, (_, value) in best.items()})
        probabilities = [float(best[name].values) for name in attributes.visible()]
        return attributes if sum(probabilities) / len(probabilities) >= MIN_PROBABILITY else None


def _changed(original: Attributes, claims: Claims) -> tuple[Attributes, set[str]]:
    """An avatar as claims would have it, and the names of its attributes that the claims leave unsaid but sure.

    What hides a claim is removed. Not sure is what a claim hides, what the claims leave open, and what did not show.
    """
    seen, values = original.visible(), original.as_dict()
    changes = {
        name: allowed
        for name, allowed in with_showing(claims).items()
        if name not in seen or values[name] not in allowed
    }
    changed = replace(original, **{name: min(allowed) for name, allowed in changes.items()})
    sure = {name for name in changed.visible() if (len(changes[name]) == 1 if name in changes else name in seen)}
    for name, allowed in changes.items():
        for value in allowed:
            sure &= replace(changed, **{name: value}).visible()
        if len(allowed) > 1:  # what is left open takes its claimed color from the prompt's words
            sure -= {color for color in COLOR_OF.get(name, ()) if color in claims}
    clear = {name for name, allowed in claims.items() if len(allowed) == 1}
    for phrase in PHRASES:
        if phrase & sure <= clear:  # the prompt says all of it
            sure -= phrase
    return changed, sure
