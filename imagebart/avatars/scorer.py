"""The scorer of avatars: what a prompt claims, whether an image shows it, and what an image shows, in words.

Linear heads on the text encoder's query tokens, one an attribute, read what a prompt claims; the reader says how likely
an image shows it. What an image shows is said in the model's own words: one plain phrase a thing, in an order that
never changes.
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
from imagebart.avatars.attributes import (
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
from imagebart.avatars.reader import Reader, load_reader
from imagebart.conditioning import Conditioner
from imagebart.errors import WeightsError
from imagebart.models.imagebart import ImageBARTModel
from imagebart.models.text_encoder import TextEncoder
from imagebart.weights.folder import checked_header

HEADS = "heads.safetensors"
LEAST = 0.25  # of the likeliest value's probability, from which a value is claimed as well
GROUPS = tuple(len(values) + 1 for values in VALUES.values())  # the values of each attribute, and nothing said


def claims_vector(claims: Claims) -> Tensor:
    """Of each attribute the values that a caption would be true of, and whether it says nothing: bool [sum(GROUPS)]."""
    flags = []
    for name, values in VALUES.items():
        allowed = claims.get(name, frozenset())
        flags += [value in allowed for value in values] + [not allowed]
    return torch.tensor(flags)


def read_claims(readings: Tensor) -> Claims:
    """What a caption claims, by logits [sum(GROUPS)]: nothing of an attribute where that is likeliest, else its values.

    A head learns to share its probability evenly among the values that a caption would be true of. With this share
    of the likeliest value's as the least, all was read right of 368 in 400 captions; with a half of it, of 340.
    """
    claims: Claims = {}
    for (name, values), logits in zip(VALUES.items(), readings.split(GROUPS), strict=True):
        shares = logits.float().softmax(0)
        if int(shares.argmax()) < len(values):
            likely = (shares > LEAST * shares.max()).tolist()
            claims[name] = frozenset(value for value, said in zip(values, likely, strict=False) if said)
    return claims


def with_showing(claims: Claims) -> Claims:
    """Claims with what has to be so for them to show: of a colour of hair, no hat; of a print, a shirt to print on.

    What claims say themselves comes first: a hat and blonde hair stay a hat and blonde hair.
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
    """Writes the heads beside their text encoder, for a run that teaches it more."""
    write_bytes(folder / HEADS, save(reader.heads.state_dict()))


def load_heads(reader: CaptionReader, folder: Path) -> None:
    """Takes the heads of a folder; raises ValueError where it has none."""
    if not (folder / HEADS).is_file():
        raise ValueError(f"{folder} has no {HEADS}; expected the folder of a captions run or a model")
    reader.heads.load_state_dict(load_file(checked_header(folder / HEADS)))


TOGETHER = tuple(
    frozenset({subject, *COLOUR_OF.get(subject, ())}) | ({"graphic"} if subject == "clothing" else set())
    for subject in SUBJECTS
)
"""The attributes that one phrase tells of."""


def verbalize(attributes: Attributes, names: Collection[str] = frozenset(VALUES)) -> str:
    """ "short brown hair, no beard, a blue hoodie, …": those of the named attributes of an avatar that show.

    A colour is named with what has it, or, where that is not named, with as little as can have it: "blue clothes". ""
    where nothing is named.
    """
    shown, values = attributes.visible() & set(names), attributes.as_dict()
    told = []
    for subject in SUBJECTS:
        thing = "graphic" if subject == "clothing" and "graphic" in shown else subject
        colour = next((name for name in COLOUR_OF.get(subject, ()) if name in shown), None)
        word = f"{colour_words(colour, values[colour])[0]} " if colour else ""
        if thing in shown:
            told.append(articled(_phrase(thing, values[thing]).replace("{c} ", word)))
        elif word:
            told += [articled(text.replace("{c} ", word)) for text in _least(subject, values[subject])]
    return ", ".join(told)


def _phrase(name: str, value: str) -> str:
    """The first noun that says this value and no other, with a place for its colour if there is such a one."""
    exact = [p.text for p in WORDINGS[name] if p.values == {value} and p.kind == "noun"]
    return next((text for text in exact if "{c}" in text), exact[0])


def _least(name: str, value: str) -> list[str]:
    """The first noun that says only that there is such a thing, with a place for its colour; [] without one."""
    return [p.text for p in COLOUR_ALONE[name] if value in p.values and p.kind == "noun"][:1]


SURE = 0.92  # the mean probability of what is read off a picture, from which it is of an avatar: others reach 0.91


@dataclass(frozen=True)
class AvatarScorer:
    """Scores pictures by the log-probability that the reader gives to what the prompt claims, and to its showing."""

    reader: Reader
    captions: CaptionReader
    conditioner: Conditioner

    @classmethod
    def load(cls, path: Path, model: ImageBARTModel) -> AvatarScorer:
        """The reader in a file, and a model's text encoder with the heads beside the file.

        Raises WeightsError naming what is damaged, or missing.
        """
        if model.text is None:
            raise WeightsError(f"{path} judges by prompts, but the model beside it has no text encoder to read them")
        try:
            captions = CaptionReader(model.text)
            load_heads(captions, path.parent)
            reader = load_reader(path)
        except (SafetensorError, KeyError, ValueError, RuntimeError, TypeError) as error:
            raise WeightsError(f"{path} cannot be used as a scorer: {error}") from error
        captions.heads.to(model.device, next(model.text.parameters()).dtype)
        return cls(reader, captions.eval().requires_grad_(False), model.conditioner)

    def claims(self, prompt: str) -> Claims:
        """What is read in a prompt; {} where it says nothing of avatars."""
        words = self.conditioner.encode([prompt]).tokens
        with torch.no_grad():
            readings, _ = self.captions(words.to(next(self.captions.parameters()).device))
        return read_claims(readings[0].cpu())

    def score(self, images: Tensor, prompt: str) -> Tensor:
        """See `imagebart.ranking.Scorer`. 0 at best, and for prompts that claim nothing."""
        with torch.no_grad():
            answers = self.reader(images.float().cpu())
        return log_likelihood(answers, self.claims(prompt))

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
        """The likeliest attributes of one image; None where they are not likely enough for one of an avatar."""
        answers = self.reader(image.float().cpu())
        best = {name: logits[0].softmax(0).max(0) for name, logits in answers.items()}
        attributes = Attributes(**{name: VALUES[name][int(found.indices)] for name, found in best.items()})
        shown = [float(best[name].values) for name in attributes.visible()]
        return attributes if sum(shown) / len(shown) >= SURE else None


def _changed(before: Attributes, claims: Claims) -> tuple[Attributes, frozenset[str]]:
    """An avatar as claims would have it, and the names of what can be told of it for sure.

    What hides a claim has to go, and what a claim hides is not told. What the claims leave open is not, either, nor a
    colour that they give it, nor what nobody saw before, nor a thing with its colour that they say already.
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
    told = shown & (sure | seen - wanted.keys()) - said
    clear = {name for name, allowed in claims.items() if len(allowed) == 1}
    return after, told.difference(*(phrase for phrase in TOGETHER if phrase & told <= clear))


def log_likelihood(answers: dict[str, Tensor], claims: Claims) -> Tensor:
    """The log-probability [B] that all that is claimed is so and shows, each attribute by itself.

    answers: logits [B, values] of each attribute.
    """
    total = torch.zeros(len(next(iter(answers.values()))))
    for name, allowed in with_showing(claims).items():
        claimed = torch.tensor([value in allowed for value in VALUES[name]])
        total += answers[name].float().log_softmax(1)[:, claimed].logsumexp(1)
    return total
