"""The artwork: Microsoft's Fluent emoji, and the things that they show.

They are the 3D ones (MIT, Copyright (c) Microsoft Corporation) as the npm package `@lobehub/fluent-emoji-3d` has them:
256 pixels a side, with opacity.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from imagebart.core.errors import InputError

PACKAGE = "@lobehub/fluent-emoji-3d@1.1.0"
ARTWORK = Path("runs/things/artwork.tgz")  # where the package is kept
GROUNDS = {
    "white": (248, 248, 248), "grey": (180, 184, 190), "black": (44, 46, 54), "red": (226, 92, 82),
    "orange": (243, 158, 82), "yellow": (247, 217, 105), "green": (130, 200, 134), "blue": (120, 182, 243),
    "purple": (173, 145, 226), "pink": (247, 181, 202), "brown": (166, 122, 93), "beige": (235, 221, 197),
}  # fmt: skip


@dataclass(frozen=True)
class Noun:
    """A kind of thing. color: of the artwork, where others may be asked for; own_color: where the name fixes it."""

    name: str
    plural: str
    groups: tuple[str, ...]
    code: str  # of the emoji: its file's name
    synonyms: tuple[str, ...]
    color: str
    own_color: str

    @classmethod
    def of(cls, row: str) -> "Noun":
        """A line of the table of nouns."""
        name, plural, groups, code, synonyms, *colors = row.split("|")
        return cls(name, plural, tuple(groups.split()), code, tuple(filter(None, synonyms.split(","))), *colors)


def fetch(path: Path = ARTWORK) -> Path:
    """Gets the package with npm, unless it is there. Raises InputError with one sentence where that fails."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(["npm", "pack", PACKAGE], cwd=path.parent, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise InputError(f"The artwork is fetched with `npm pack {PACKAGE}`, which failed: {error}") from error
        (path.parent / "lobehub-fluent-emoji-3d-1.1.0.tgz").rename(path)  # as npm calls it
    return path
