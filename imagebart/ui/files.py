"""Pictures on their way to the browser.

Gradio names a picture's file by its content and writes it anew each time: when two things on the page, or two
people, are shown the same picture, one may be sent a file that is just being rewritten. Here each file is written
once.
"""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from gradio.utils import get_upload_folder
from PIL import Image

# The previews of a run are sent at once and soon forgotten: quick to write matters more than small.
COMPRESSION = 1


def publish(image: Image.Image) -> str:
    """Write a picture, losslessly, where the page may show it. Gradio deletes it when it is old."""
    folder = Path(get_upload_folder())
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"imagebart-{uuid4().hex[:12]}.png"
    image.save(path, compress_level=COMPRESSION)
    return str(path)
