"""The attribute classifier of avatars, and the scorer of images that is built on it.

A small network classifies the attributes of an avatar in an image. It is trained on rendered avatars only
(`recipes.avatars.training`), never on a model's samples, which it evaluates. Linear heads on the text encoder's query
tokens, one an attribute, read what a prompt claims; the classifier gives the probability that an image shows it. A
description has one plain phrase for each thing, in a fixed order.
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

from imagebart.atomic_io import write_bytes
from imagebart.errors import WeightsError
from imagebart.models.imagebart import ImageBARTModel
from imagebart.models.text_encoder import TextEncoder
from imagebart.settings import Settings
from imagebart.text.conditioners import Conditioner
from imagebart.weights.folder import checked_header
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
    articled,
    color_words,
)

SIZE = 128  # pixels a side of the network's input
Size = Annotated[int, Field(ge=1, le=512)]  # of a layer: larger than here, and a few megabytes at most


class AttributeClassifierConfig(Settings):
    """Size of the network."""

    channels: tuple[Size, Size, Size] = (48, 64, 96)  # at 32 x 32, 16 x 16 and 8 x 8
    squeeze: Size = 32  # channels that are flattened
    features: Size = 192  # of the layer before the logits, the space of the Fréchet distance


@dataclass(frozen=True)
class Reading:
    """The attributes of each of B images, and their features, float [B, F]."""

    attributes: list[Attributes]
    features: Tensor


class AttributeClassifier(nn.Module):
    """Pixels in squares of 4 x 4 to channels, convolutions at 32 x 32, 16 x 16 and 8 x 8, flattened.

    An avatar's parts are always at the same places: there is no pooling, and each position's coordinates are an input.
    """

    where: Tensor

    def __init__(self, config: AttributeClassifierConfig | None = None) -> None:
        super().__init__()
        self.config = config or AttributeClassifierConfig()
        first, second, third = self.config.channels
        cells = SIZE // 4
        line = torch.linspace(-1, 1, cells)
        where = torch.stack([line.expand(cells, cells), line[:, None].expand(cells, cells)])
        self.register_buffer("where", where, persistent=False)
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

    def features(self, images: Tensor) -> Tensor:
        """Images float [B, 3, H, W] in [-1, 1], square and of any size -> features [B, F], 0 or more."""
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
            raise ValueError(f"images have shape {list(images.shape)}, expected [B, 3, size, size]")
        if images.shape[-1] != SIZE:
            images = F.interpolate(images, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
        folded = F.pixel_unshuffle(images, 4)
        folded = torch.cat([folded, self.where.expand(len(images), -1, -1, -1)], 1)
        features: Tensor = self.body(folded.to(memory_format=torch.channels_last))
        return features

    def answers(self, features: Tensor) -> dict[str, Tensor]:
        """Logits [B, number of values] of each attribute of `VALUES`."""
        parts = self.heads(features).split([len(values) for values in VALUES.values()], 1)
        return dict(zip(VALUES, parts, strict=True))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.answers(self.features(images))

    @torch.no_grad()
    def read(self, images: Tensor, batch: int = 64) -> Reading:
        """Reads images float [B, 3, H, W] in [-1, 1], `batch` at a time.

        An attribute that an image does not show has a value all the same; `Attributes.visible` says which show.
        """
        features = torch.cat([self.features(part.float()) for part in images.split(batch)])
        columns = {name: logits.argmax(1).tolist() for name, logits in self.answers(features).items()}
        chosen = [{name: VALUES[name][column[i]] for name, column in columns.items()} for i in range(len(images))]
        return Reading([Attributes(**values) for values in chosen], features)


def _block(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(channels_out), nn.ReLU()
    )


def save_classifier(reader: AttributeClassifier, path: Path) -> None:
    """Writes a reader as one safetensors file of 16-bit numbers, its size and values in the header."""
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in reader.state_dict().items()}
    about = {"config": reader.config.model_dump_json(), "values": json.dumps(VALUES)}
    write_bytes(path, save({k: v.contiguous().cpu() for k, v in tensors.items()}, about))


def load_classifier(path: Path) -> AttributeClassifier:
    """The reader in a file, ready to read. Raises ValueError where it was trained for other attributes."""
    if not path.is_file():
        raise ValueError(f"{path} is missing; `python -m recipes.avatars train reader` makes it")
    with safe_open(checked_header(path), "pt") as file:
        about, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if json.loads(about["values"]) != {name: list(values) for name, values in VALUES.items()}:
        raise ValueError(f"the reader in {path} knows other attributes than avatars have now; train it again")
    reader = AttributeClassifier(AttributeClassifierConfig.from_json(about["config"]))
    reader.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    return reader.to(memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]


HEADS = "heads.safetensors"
MIN_SHARE = 0.25  # of the likeliest value's probability, from which another value is claimed too
GROUPS = tuple(len(values) + 1 for values in VALUES.values())  # of each attribute its values, and "not mentioned"


def claims_vector(claims: Claims) -> Tensor:
    """Of each attribute its values that make a caption true, and whether it is not mentioned: bool [sum(GROUPS)]."""
    flags = []
    for name, values in VALUES.items():
        allowed = claims.get(name, frozenset())
        flags += [value in allowed for value in values] + [not allowed]
    return torch.tensor(flags)


def read_claims(readings: Tensor) -> Claims:
    """What a caption claims, from logits [sum(GROUPS)].

    A head learns to share its probability evenly among the values that make a caption true. With MIN_SHARE, 368 of 400
    captions were read wholly right; with twice as much, 340.
    """
    claims: Claims = {}
    for (name, values), logits in zip(VALUES.items(), readings.split(GROUPS), strict=True):
        shares = logits.float().softmax(0)
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
        for other, shown in _showing(name).items():
            wider[other] = (wider.get(other, shown) & shown) or wider[other]
    return wider


@cache
def _showing(name: str) -> Claims:
    """Of each attribute that can hide another, the values that do not hide this one."""
    base = replace(PLAIN, **SHOWING.get(name, {}))
    found: Claims = {}
    for other in ("top", "facial_hair", "accessory", "clothing"):
        shown = frozenset(v for v in VALUES[other] if name in replace(base, **{other: v}).visible())
        if other != name and len(shown) < len(VALUES[other]):
            found[other] = shown
    return found


class CaptionReader(nn.Module):
    """A text encoder with a linear head on each query token.

    [B, length] -> logits [B, sum(groups)] and query tokens [B, len(groups), width].
    """

    def __init__(self, encoder: TextEncoder, groups: tuple[int, ...] = GROUPS) -> None:
        super().__init__()
        if encoder.config.query_tokens < len(groups):
            raise ValueError(
                f"query_tokens is {encoder.config.query_tokens}, expected {len(groups)}, one an attribute, or more"
            )
        self.encoder = encoder
        self.heads = nn.ModuleList(nn.Linear(encoder.config.transformer.width, count) for count in groups)

    def forward(self, words: Tensor) -> tuple[Tensor, Tensor]:
        queries = self.encoder(words)[:, : len(self.heads)]
        return torch.cat([head(query) for head, query in zip(self.heads, queries.unbind(1), strict=True)], 1), queries


def save_heads(reader: CaptionReader, folder: Path) -> None:
    """Writes the heads beside their text encoder."""
    write_bytes(folder / HEADS, save(reader.heads.state_dict()))


def load_heads(reader: CaptionReader, folder: Path) -> None:
    """Loads the heads of a folder; raises ValueError where it has none."""
    if not (folder / HEADS).is_file():
        raise ValueError(f"{folder} has no {HEADS}; expected the folder of a captions run or a model")
    reader.heads.load_state_dict(load_file(checked_header(folder / HEADS)))


# The attributes in one phrase of a description.
PHRASES = tuple(
    frozenset({subject, *COLOR_OF.get(subject, ())}) | ({"graphic"} if subject == "clothing" else set())
    for subject in SUBJECTS
)


def verbalize(attributes: Attributes, names: Collection[str] = frozenset(VALUES)) -> str:
    """ "short brown hair, no beard, a blue hoodie, …": those of the named attributes that show; "" for none.

    A color is named with what has it, or, where that is not named, with as little as can have it: "blue clothes".
    """
    shown, values = attributes.visible() & set(names), attributes.as_dict()
    parts = []
    for subject in SUBJECTS:
        thing = "graphic" if subject == "clothing" and "graphic" in shown else subject
        color = next((name for name in COLOR_OF.get(subject, ()) if name in shown), None)
        word = f"{color_words(color, values[color])[0]} " if color else ""
        if thing in shown:
            exact = [p.text for p in WORDINGS[thing] if p.values == {values[thing]} and p.kind == "noun"]
            text = next((text for text in exact if "{c}" in text), exact[0])
            parts.append(articled(text.replace("{c} ", word)))
        elif word:
            nouns = [p.text for p in COLOR_ALONE[subject] if values[subject] in p.values and p.kind == "noun"]
            parts += [articled(text.replace("{c} ", word)) for text in nouns[:1]]
    return ", ".join(parts)


MIN_PROBABILITY = 0.92  # mean over an avatar's attributes: other images reach 0.91


@dataclass(frozen=True)
class AvatarScorer:
    """Scores images by the log-probability, by the reader, that they show what the prompt claims."""

    reader: AttributeClassifier
    captions: CaptionReader
    conditioner: Conditioner

    @classmethod
    def load(cls, path: Path, model: ImageBARTModel) -> AvatarScorer:
        """The reader in a file, and a model's text encoder with the heads beside the file.

        Raises WeightsError naming what is damaged, or missing.
        """
        if model.text is None:
            raise WeightsError(f"{path} scores by prompts, but the model beside it has no text encoder to read them")
        try:
            captions = CaptionReader(model.text)
            load_heads(captions, path.parent)
            reader = load_classifier(path)
        except (SafetensorError, KeyError, ValueError, RuntimeError, TypeError) as error:
            raise WeightsError(f"{path} cannot be used as a scorer: {error}") from error
        captions.heads.to(model.device, next(model.text.parameters()).dtype)
        return cls(reader, captions.eval().requires_grad_(False), model.conditioner)

    def claims(self, prompt: str) -> Claims:
        """What a prompt claims; {} where it mentions no attribute."""
        words = self.conditioner.encode([prompt]).tokens
        with torch.no_grad():
            readings, _ = self.captions(words.to(next(self.captions.parameters()).device))
        return read_claims(readings[0].cpu())

    def score(self, images: Tensor, prompt: str) -> Tensor:
        """See `imagebart.ranking.Scorer`. 0 at best, and for prompts that claim nothing."""
        with torch.no_grad():
            answers = self.reader(images.float().cpu())
        return log_likelihood(answers, self.claims(prompt))

    @torch.no_grad()
    def shows(self, squares: Tensor, prompt: str) -> list[bool]:
        """See `imagebart.ranking.Checker`."""
        answers, claims = self.reader(squares.float().cpu()), with_showing(self.claims(prompt))
        read = {name: [VALUES[name][value] for value in answers[name].argmax(1).tolist()] for name in claims}
        return [all(read[name][row] in allowed for name, allowed in claims.items()) for row in range(len(squares))]

    def describe(self, image: Tensor) -> str | None:
        """See `imagebart.ranking.Describer`."""
        attributes = self._read(image)
        return None if attributes is None else verbalize(attributes)

    def contrast(self, image: Tensor, prompt: str) -> tuple[str, str] | None:
        """See `imagebart.ranking.Describer`."""
        attributes = self._read(image)
        if attributes is None:
            return None
        asked = verbalize(*_changed(attributes, self.claims(prompt)))
        return ", ".join(text for text in (prompt, asked) if text), verbalize(attributes)

    @torch.no_grad()
    def _read(self, image: Tensor) -> Attributes | None:
        """The likeliest attributes of one image; None where it is unlikely to be an avatar."""
        answers = self.reader(image.float().cpu())
        best = {name: logits[0].softmax(0).max(0) for name, logits in answers.items()}
        attributes = Attributes(**{name: VALUES[name][int(found.indices)] for name, found in best.items()})
        shown = [float(best[name].values) for name in attributes.visible()]
        return attributes if sum(shown) / len(shown) >= MIN_PROBABILITY else None


def _changed(before: Attributes, claims: Claims) -> tuple[Attributes, frozenset[str]]:
    """An avatar as claims would have it, and the names of its attributes that are sure and not said by the claims.

    What hides a claim is removed. Not sure is what a claim hides, what the claims leave open, and what did not show
    before.
    """
    seen, values = before.visible(), before.as_dict()
    wanted = {
        name: allowed
        for name, allowed in with_showing(claims).items()
        if name not in seen or values[name] not in allowed
    }
    after = replace(before, **{name: min(allowed) for name, allowed in wanted.items()})
    ways = (replace(after, **{name: value}) for name, allowed in wanted.items() for value in allowed)
    shown = frozenset.intersection(after.visible(), *(way.visible() for way in ways))
    sure = {name for name, allowed in wanted.items() if len(allowed) == 1}
    said = {color for thing in wanted.keys() - sure for color in COLOR_OF.get(thing, ()) if color in claims}
    known = shown & (sure | seen - wanted.keys()) - said
    clear = {name for name, allowed in claims.items() if len(allowed) == 1}
    return after, known.difference(*(phrase for phrase in PHRASES if phrase & known <= clear))


def log_likelihood(answers: dict[str, Tensor], claims: Claims) -> Tensor:
    """The log-probability [B] that all claims are true and show; answers: logits [B, values] of each attribute."""
    total = torch.zeros(len(next(iter(answers.values()))))
    for name, allowed in with_showing(claims).items():
        claimed = torch.tensor([value in allowed for value in VALUES[name]])
        total += answers[name].float().log_softmax(1)[:, claimed].logsumexp(1)
    return total
