"""As much of a prompt as CLIP reads, and sentences for the person who wrote it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from imagebart.conditioning import tokenizer as clip
from imagebart.conditioning.spelling import Correction
from imagebart.errors import InputError
from imagebart.settings import shown

Prompt = str | int | None  # words, a class's name or number; None: without
Asked = Prompt | Sequence[Prompt]  # the same of all variants, or one each
MOST = 10  # words that a sentence names


def one_each(asked: Asked, variants: int, most: int) -> list[Prompt]:
    """The prompt of each variant: one for all, or a list with one for each, whose length `variants` need not repeat.

    Raises InputError for over `most`, for none, and for a list of another length.
    """
    listed = list(asked) if isinstance(asked, Sequence) and not isinstance(asked, str) else [asked]
    for count in (variants, len(listed)):
        if type(count) is not int or not 1 <= count <= most:
            raise InputError(f"{shown(count)} variants were asked for; there can be 1 to {most}.")
    if len(listed) == 1:
        return listed * variants
    if variants not in (1, len(listed)):
        raise InputError(f"There are {len(listed)} prompts for {variants} variants; there must be one for each.")
    return listed


def within_context(text: str, notes: list[str]) -> Iterator[clip.Piece]:
    """The pieces that fit into CLIP's 77 tokens, start and end included; adds a note if some do not."""
    left = clip.CONTEXT_LENGTH - 2
    for piece in clip.pieces(text):
        left -= len(piece.ids)
        if left < 0:
            notes.append(cut_note(clip.CONTEXT_LENGTH, piece))
            return
        yield piece


def cut_note(length: int, piece: clip.Piece) -> str:
    return f'The prompt was cut at {length} tokens: from "{short(piece.text)}" on it was ignored.'


def unknown_note(unknown: Iterable[str]) -> list[str]:
    """One sentence on the words left out, each named once whatever its case; none if there are none."""
    first_typed: dict[str, str] = {}
    for word in unknown:
        first_typed.setdefault(word.lower(), word)
    words = list(first_typed.values())
    if not words:
        return []
    named = ", ".join(f'"{short(word)}"' for word in words[:MOST])
    more = f" and {len(words) - MOST} more" if len(words) > MOST else ""
    was = "It was" if len(words) == 1 else "They were"
    return [f"This model does not know: {named}{more}. {was} ignored."]


def corrected_note(corrections: Sequence[Correction]) -> list[str]:
    """One sentence on the words that were taken for others, each named once; none if there are none."""
    meant = list(dict.fromkeys((one.typed.lower(), one.meant) for one in corrections))
    if not meant:
        return []
    named = ", ".join(
        f'"{short(typed)}" {"was read " if i == 0 else ""}as "{by}"' for i, (typed, by) in enumerate(meant[:MOST])
    )
    more = f", and {len(meant) - MOST} more likewise" if len(meant) > MOST else ""
    return [f"{named}{more}."]


def short(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
