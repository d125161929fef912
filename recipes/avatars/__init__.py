"""The model of avatars: its data, how it is trained, and how good it is."""

from pathlib import Path

from imagebart.worlds.ranking import ATTRIBUTE_CLASSIFIER

CLASSIFIER = Path(__file__).parent / ATTRIBUTE_CLASSIFIER
"""The network that reads attributes off images for the evaluation."""


def data_file(name: str) -> str:
    """A text of the recipe's data."""
    return (Path(__file__).parent / "data" / name).read_text(encoding="utf-8")
