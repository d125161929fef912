"""The avatars: endless, exactly described pictures, the model trained on them, and how good it is."""

from pathlib import Path

READER = Path(__file__).parent / "reader.safetensors"
"""The network that reads attributes off pictures for the evaluation."""
