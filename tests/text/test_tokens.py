"""Against ids recorded from open_clip 3.3.0's own tokenizer, padding removed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from imagebart.text.prompts import CONTEXT_LENGTH, END, START, pieces_of

RECORDED = json.loads((Path(__file__).parents[1] / "fixtures" / "clip_tokens.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("row", RECORDED, ids=range(len(RECORDED)))
def test_ids_equal_those_of_clip(row: dict) -> None:
    ids = [token for piece in pieces_of(row["prompt"]) for token in piece.ids]
    assert [START, *ids[: CONTEXT_LENGTH - 2], END] == row["ids"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A red-haired woman, 80s style!", ["a", "red", "haired", "woman", "80s", "style"]),
        ("don't", ["don"]),
        ("cool😎hat", ["cool", "😎", "hat"]),
        ("हिन्दी", ["हिन्दी"]),
        ("... -- !?", []),
        ("cafe\u0301", ["café"]),
        ("<|endoftext|>", ["endoftext"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert [piece.word for piece in pieces_of(text) if piece.word] == words


def test_text_is_as_typed() -> None:
    assert [piece.text for piece in pieces_of("A Zebra’s DON'T!")] == ["A", "Zebra’s", "’s", "DON'T", "'T", "!"]


@pytest.mark.parametrize("text", ["qz" * 5_000, "a!" * 5_000, "😎" * 10_000, "x" * 5_000_000])
def test_long_chunks_are_quick(text: str) -> None:
    list(pieces_of("warm up"))
    start = time.perf_counter()
    list(pieces_of(text))
    assert time.perf_counter() - start < 2


def test_lone_surrogates_are_replaced() -> None:
    """A page's JSON can hold them; two that make a character are that character."""
    assert list(pieces_of("a \ud83d\ude00 hat")) == list(pieces_of("a 😀 hat"))
    assert list(pieces_of("a \ud83d hat \udfff")) == list(pieces_of("a � hat �"))


FIRST_AT_ONCE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from imagebart.text.prompts import pieces_of

assert "transformers" not in sys.modules
together = Barrier(8)

def read(number):
    together.wait()
    return [piece.word for piece in pieces_of(f"word {number}")]

with ThreadPoolExecutor(8) as pool:
    print(list(pool.map(read, range(8))))
"""


def test_many_can_be_the_first_at_once() -> None:
    """As when two people open a page that has just started. Nothing slow is imported before."""
    done = subprocess.run([sys.executable, "-c", FIRST_AT_ONCE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([["word", str(number)] for number in range(8)])
