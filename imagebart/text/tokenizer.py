"""CLIP's byte-pair tokens of a text, word by word, from the vocabulary that ships with the package."""

from __future__ import annotations

import gzip
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from imagebart.errors import whole_characters

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

START, END = 49406, 49407
VOCAB_SIZE = 49408
CONTEXT_LENGTH = 77  # tokens of a text, start and end included
# CLIP's own pattern of what becomes byte pairs one by one; what stands between is left out.
WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


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


def vocabulary() -> list[str]:
    """CLIP's 49408 tokens by id: bytes, bytes that end a word, merged pairs, start and end of text."""
    symbols = _byte_symbols()
    merged = ["".join(pair) for pair in _merges()]
    return [*symbols, *(s + "</w>" for s in symbols), *merged, "<|startoftext|>", "<|endoftext|>"]


@lru_cache(maxsize=1)
def _tokenizer() -> Tokenizer:
    """What `CLIPTokenizer` of `transformers` makes, which takes over a second to import."""
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import BPE
    from tokenizers.normalizers import NFC, Lowercase, Replace
    from tokenizers.normalizers import Sequence as Normalizers
    from tokenizers.pre_tokenizers import ByteLevel, Split
    from tokenizers.pre_tokenizers import Sequence as Splits

    ids = {token: index for index, token in enumerate(vocabulary())}
    merges: Any = _merges()
    tokenizer = Tokenizer(BPE(vocab=ids, merges=merges, end_of_word_suffix="</w>"))
    # Phones type curly quotes; CLIP's own cleaning straightens them.
    straighten = [Replace(curly, straight) for curly, straight in zip("‘’“”", "''\"\"", strict=True)]
    tokenizer.normalizer = Normalizers([*straighten, NFC(), Lowercase()])
    tokenizer.pre_tokenizer = Splits([Split(Regex(WORDS), "removed", invert=True), ByteLevel(add_prefix_space=False)])
    return tokenizer


def _byte_symbols() -> list[str]:
    """One printable character for each byte, printable bytes first (the order of GPT-2 and CLIP)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(b) for b in printable] + [chr(0x100 + i) for i in range(256 - len(printable))]


@lru_cache(maxsize=1)
def _merges() -> list[tuple[str, str]]:
    packed = files("imagebart").joinpath("data/bpe_simple_vocab_16e6.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode("utf-8").split("\n")
    # The first line is a heading, and CLIP uses as many merges as its vocabulary has room for.
    pairs = (line.split() for line in lines[1 : 1 + VOCAB_SIZE - 2 * 256 - 2])
    return [(first, second) for first, second in pairs]


# Byte pairs never cross whitespace, so chunks can be cached; only short ones are, to bound memory.
@lru_cache(maxsize=4096)
def _short_chunk_pieces(chunk: str) -> tuple[Piece, ...]:
    return tuple(_chunk_pieces(chunk))


def _chunk_pieces(chunk: str) -> list[Piece]:
    encoding = _tokenizer().encode(chunk, add_special_tokens=False)
    found: list[Piece] = []
    for kind, group in groupby(_parts(chunk, encoding), key=lambda part: part[0]):
        members = list(group)
        start, end = members[0][1], members[-1][2]
        ids = tuple(i for member in members for i in member[3])
        if kind == "suffix" and found:
            found[-1] = replace(found[-1], text=found[-1].text + chunk[start:end])
        found.append(_piece(kind, chunk[start:end], ids))
    return found


Kind = Literal["word", "symbol", "suffix", "punctuation"]


def _parts(chunk: str, encoding: Encoding) -> Iterator[tuple[Kind, int, int, list[int]]]:
    """What the tokenizer splits a chunk into before byte pairs, as (kind, start, end, ids)."""
    rows = zip(encoding.word_ids, encoding.offsets, encoding.ids, strict=True)
    for _, group in groupby(rows, key=lambda row: row[0]):
        members = list(group)
        start, end = members[0][1][0], members[-1][1][1]
        yield _kind(chunk[start:end]), start, end, [member[2] for member in members]


def _kind(part: str) -> Kind:
    if part[0] in "'’" and part[1:].isalpha():
        return "suffix"  # 's, 't, 're, …
    # Letters, digits and marks make words: CLIP splits "80s" and vowel signs of Indic scripts.
    if unicodedata.category(part[0])[0] in "LNM":
        return "word"
    return "symbol" if any(unicodedata.category(c) == "So" for c in part) else "punctuation"


def _piece(kind: Kind, text: str, ids: tuple[int, ...]) -> Piece:
    if kind == "symbol":
        text = "".join(c for c in text if unicodedata.category(c)[0] != "P")
    word = text.lower() if kind in ("word", "symbol") else ""
    return Piece(text, word, ids)
