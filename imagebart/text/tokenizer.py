"""CLIP's byte-pair tokens of a text, word by word, from the tokenizer that ships with the package."""

from __future__ import annotations

import gzip
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from itertools import chain, groupby
from typing import TYPE_CHECKING, Literal

from imagebart.errors import whole_characters

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

START, END = 49406, 49407
VOCAB_SIZE = 49408
CONTEXT_LENGTH = 77  # tokens of a text, start and end included


@dataclass(frozen=True)
class Piece:
    """A word, or what stands between words."""

    text: str  # as typed (a word with its 's or 't)
    word: str  # in lower case; "" for punctuation and for a 's or 't, which are pieces of their own
    ids: tuple[int, ...]  # CLIP tokens


def pieces(text: str) -> Iterator[Piece]:
    """The words, emoji and punctuation of a text, in order. Their ids in a row are the text's CLIP tokens.

    Of a chunk without spaces, no more than 10,000 characters are read.
    """
    # Composed first, since the tokenizer's offsets lose accents that it has to compose itself.
    for chunk in unicodedata.normalize("NFC", whole_characters(text)).split():
        yield from _short_chunk_pieces(chunk) if len(chunk) <= 64 else _chunk_pieces(chunk[:10_000])


@lru_cache(maxsize=1)
def _tokenizer() -> Tokenizer:
    """CLIP's, which also straightens curly quotes, as CLIP's own cleaning does."""
    from tokenizers import Tokenizer  # `CLIPTokenizer` of `transformers` takes over a second to import

    packed = files("imagebart").joinpath("data/tokenizer.json.gz").read_bytes()
    return Tokenizer.from_buffer(gzip.decompress(packed))


# Byte pairs never cross whitespace, so chunks can be cached; only short ones are, to bound memory.
@lru_cache(maxsize=4096)
def _short_chunk_pieces(chunk: str) -> tuple[Piece, ...]:
    return tuple(_chunk_pieces(chunk))


def _chunk_pieces(chunk: str) -> list[Piece]:
    encoding = _tokenizer().encode(chunk, add_special_tokens=False)
    found: list[Piece] = []
    for kind, parts in groupby(_parts(chunk, encoding), key=lambda part: part[0]):
        _, starts, ends, ids = zip(*parts, strict=True)
        text = chunk[starts[0] : ends[-1]]
        if kind == "suffix" and found:
            found[-1] = replace(found[-1], text=found[-1].text + text)
        if kind == "symbol":
            text = "".join(c for c in text if unicodedata.category(c)[0] != "P")
        word = text.lower() if kind in ("word", "symbol") else ""
        found.append(Piece(text, word, tuple(chain.from_iterable(ids))))
    return found


Kind = Literal["word", "symbol", "suffix", "punctuation"]


def _parts(chunk: str, encoding: Encoding) -> Iterator[tuple[Kind, int, int, list[int]]]:
    """What the tokenizer splits a chunk into before byte pairs, as (kind, start, end, ids)."""
    tokens = zip(encoding.word_ids, encoding.offsets, encoding.ids, strict=True)
    for _, part in groupby(tokens, key=lambda token: token[0]):
        _, offsets, ids = zip(*part, strict=True)
        start, end = offsets[0][0], offsets[-1][1]
        yield _kind(chunk[start:end]), start, end, list(ids)


def _kind(part: str) -> Kind:
    if part[0] in "'’" and part[1:].isalpha():
        return "suffix"  # 's, 't, 're, …
    # Letters, digits and marks make words: CLIP splits "80s" and vowel signs of Indic scripts.
    if unicodedata.category(part[0])[0] in "LNM":
        return "word"
    return "symbol" if any(unicodedata.category(c) == "So" for c in part) else "punctuation"
