"""The model of avatars: its data, how it is trained, and how good it is."""

from pathlib import Path

READER = Path(__file__).parent / "reader.safetensors"
"""The network that reads attributes off images for the evaluation."""
