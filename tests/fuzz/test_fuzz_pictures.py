"""Pictures of every format and kind, damaged: each is read within bounds, or refused in a sentence."""

from __future__ import annotations

from io import BytesIO
from random import Random

import numpy as np
from effort import Effort, bounded, mutated
from PIL import Image

from imagebart.errors import InputError
from imagebart.imaging.files import FORMATS, MAX_PIXELS, MIN_SIDE, load_image

MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("L", "P", "RGB"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "LAB"),
}


def picture(chance: Random) -> bytes:
    """A sound file of any format and kind, sometimes of several frames, or of a size that unpacks to much."""
    kind = chance.choice(FORMATS)
    mode = chance.choice(MODES[kind])
    size = chance.choice([(16, 16), (37, 50), (200, 17), (300, 300)])
    if chance.random() < 0.03:
        size = chance.choice([(1, 1), (6000, 6600), (6400, 6400), (40_000, 20)])
    pixels = np.random.default_rng(chance.randrange(2**32)).integers(
        0, 256, (size[1] // 8 + 1, size[0] // 8 + 1), np.uint8
    )
    image = Image.fromarray(pixels).resize(size)
    image = image.convert("L").convert(mode) if mode not in ("LAB", "CMYK") else Image.new(mode, size)
    more = (
        {"save_all": True, "append_images": [image]}
        if kind in ("GIF", "TIFF", "WEBP") and max(size) < 1000 and chance.random() < 0.1
        else {}
    )
    file = BytesIO()
    try:
        image.save(file, kind, **more)
    except (OSError, ValueError, RuntimeError):  # a size that this format does not know
        file = BytesIO()
        image.resize((32, 32)).save(file, kind)
    return file.getvalue()


def test_a_picture_is_read_or_refused(effort: Effort) -> None:
    read = 0
    for case, chance in effort.cases(40, 4500):
        sound = picture(chance)
        content = mutated(sound, chance) if chance.random() < 0.9 else sound
        try:
            with bounded(case):
                image = load_image(content)
        except InputError as error:
            said = str(error)
            assert said.startswith("The picture") and said.endswith(".") and len(said) < 300, (case, said)
        else:
            read += 1
            assert image.mode in ("RGB", "RGBA") and min(image.size) >= MIN_SIDE, case
            assert image.width * image.height <= MAX_PIXELS, case
    assert read, "none was sound"
