"""A model's card: what somebody wrote, or what it says where nobody did."""

from __future__ import annotations

from pathlib import Path

from imagebart.weights.folder import ModelConfig
from imagebart.weights.registry import MODELS

HEAD = "---\nlibrary_name: imagebart\ntags:\n  - imagebart\n  - inpainting\n---\n"  # what the Hub reads
LONGEST = 200_000  # bytes of a card


def read_card(folder: Path) -> str:
    """What somebody wrote of a model in its folder, in README.md: its first LONGEST bytes, whatever they are."""
    path = folder / "README.md"
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return file.read(LONGEST).decode("utf-8", errors="replace")


def without_head(text: str) -> str:
    """A card's text after its YAML header."""
    if text.startswith("---\n") and "\n---\n" in text[4:]:
        return text[4:].split("\n---\n", 1)[1].lstrip()
    return text


def default_card(config: ModelConfig) -> str:
    """README.md of a model: where it is from, what it draws and how large; in its own words, as far as known."""
    about, side = config.about, config.first_stage.resolution
    made = "as CompVis published them in 2021, as safetensors" if about.name in MODELS else "of its own"
    ways = f"{len(config.stages)} scales" if config.stages else "one denoiser for every noise rate"
    lines = [f"{HEAD}\n# {about.name}\n", f"Weights of ImageBART {made}: {ways}, {side} × {side} pixels.\n"]
    if about.knows:
        lines.append(
            f"It draws {about.knows} at {side} × {side} pixels and nothing else: other pictures can be edited, but "
            f"only into these, and what is redrawn of a larger one has no more than {side} pixels a side of detail.\n"
        )
    return "\n".join(lines)
