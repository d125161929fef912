"""The scorer of avatars: what a prompt claims, whether an image shows it, and descriptions of images.

Linear heads on the text encoder's query tokens, one an attribute, read what a prompt claims; the reader gives the
probability that an image shows it. A description has one plain phrase for each thing, in a fixed order.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from imagebart.atomic_io import write_bytes
from imagebart.errors import WeightsError
from imagebart.models.imagebart import ImageBARTModel
from imagebart.models.text_encoder import TextEncoder
from imagebart.text.conditioners import Conditioner
from imagebart.weights.folder import checked_header
from imagebart.worlds.attribute_classifier import Reader, load_reader
from imagebart.worlds.attributes import (
    COLOUR_ALONE,
    COLOUR_OF,
    PLAIN,
    SHOWING,
    SUBJECTS,
    VALUES,
    WORDINGS,
    Attributes,
    Claims,
    articled,
    colour_words,
)

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
    """Claims with what is needed for them to show: no hat for a colour of hair, a printed shirt for a print.

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
    frozenset({subject, *COLOUR_OF.get(subject, ())}) | ({"graphic"} if subject == "clothing" else set())
    for subject in SUBJECTS
)


def verbalize(attributes: Attributes, names: Collection[str] = frozenset(VALUES)) -> str:
    """ "short brown hair, no beard, a blue hoodie, …": those of the named attributes that show; "" for none.

    A colour is named with what has it, or, where that is not named, with as little as can have it: "blue clothes".
    """
    shown, values = attributes.visible() & set(names), attributes.as_dict()
    parts = []
    for subject in SUBJECTS:
        thing = "graphic" if subject == "clothing" and "graphic" in shown else subject
        colour = next((name for name in COLOUR_OF.get(subject, ()) if name in shown), None)
        word = f"{colour_words(colour, values[colour])[0]} " if colour else ""
        if thing in shown:
            exact = [p.text for p in WORDINGS[thing] if p.values == {values[thing]} and p.kind == "noun"]
            text = next((text for text in exact if "{c}" in text), exact[0])
            parts.append(articled(text.replace("{c} ", word)))
        elif word:
            nouns = [p.text for p in COLOUR_ALONE[subject] if values[subject] in p.values and p.kind == "noun"]
            parts += [articled(text.replace("{c} ", word)) for text in nouns[:1]]
    return ", ".join(parts)


MIN_PROBABILITY = 0.92  # mean over an avatar's attributes: other images reach 0.91


@dataclass(frozen=True)
class AvatarScorer:
    """Scores images by the log-probability, by the reader, that they show what the prompt claims."""

    reader: Reader
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
            reader = load_reader(path)
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
    said = {colour for thing in wanted.keys() - sure for colour in COLOUR_OF.get(thing, ()) if colour in claims}
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
