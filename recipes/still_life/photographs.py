"""Gets photographs of flowers, fruit and vegetables from their public sources and makes a folder to train on.

    python -m recipes.still_life.photographs still-life

The sources: TensorFlow's flower_photos (CC BY 2.0, photographs on Flickr, credits in its LICENSE.txt) and the Grocery
Store Dataset of Klasson, Zhang and Kjellström (MIT, Copyright (c) 2019 Marcus Klasson). Archives that were downloaded
before can be given instead: `--flowers flower_photos.tgz --groceries GroceryStoreDataset.zip`.
"""

import io
import json
import re
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated
from urllib.request import urlretrieve

import numpy as np
import typer
from PIL import Image, ImageOps

FLOWERS = "https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz"
GROCERIES = "https://codeload.github.com/marcusklasson/GroceryStoreDataset/zip/refs/heads/master"
SHORT, WIDEST = 160, 4 / 3  # pixels of the short side; the long side over it
HUES = {"red": 0.04, "orange": 0.11, "yellow": 0.19, "green": 0.45, "blue": 0.7, "purple": 0.82, "pink": 0.95}
NAMES = {  # of folders, as captions have them; others take an s
    "daisy": "daisies", "roses": "roses", "sunflowers": "sunflowers", "tulips": "tulips", "Carrots": "carrots",
    "Satsumas": "mandarins", "Brown-Cap-Mushroom": "mushrooms", "Red-Beet": "beetroots",
    "Red-Grapefruit": "grapefruits", "Zucchini": "courgettes", "Mango": "mangoes", "Tomato": "tomatoes",
    "Potato": "potatoes", "Peach": "peaches", "Garlic": "garlic", "Ginger": "ginger", "Asparagus": "asparagus",
}  # fmt: skip
MANY_COLORS = ["apples", "melons", "pears", "peppers", "plums", "mangoes", "cabbages", "daisies", "roses", "tulips"]
Photograph = tuple[str, bytes, str, dict[str, str]]  # its name, its file, what it shows in the plural, the credit


def main(
    out: Annotated[Path, typer.Argument(help="The folder to make.")],
    flowers: Annotated[Path | None, typer.Option(help="flower_photos.tgz, where it is here already.")] = None,
    groceries: Annotated[Path | None, typer.Option(help="The groceries' ZIP, where it is here already.")] = None,
) -> None:
    """Gets photographs of flowers, fruit and vegetables and makes a folder to train on."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            roses = flowers or Path(urlretrieve(FLOWERS, Path(folder) / "flowers.tgz")[0])
            carrots = groceries or Path(urlretrieve(GROCERIES, Path(folder) / "groceries.zip")[0])
        except OSError as error:
            raise SystemExit(f"The photographs cannot be fetched ({error}); get them by hand, see --help.") from error
        out.mkdir(parents=True, exist_ok=True)
        rows = []
        for file, content, things, credit in chain(flower_photos(roses), grocery_photos(carrots)):
            image, name = small(content), Path(file).with_suffix(".webp").name
            image.save(out / name, quality=85)
            rows.append({"file_name": name, "text": caption(things, image), **credit})
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (out / "metadata.jsonl").write_text(lines, encoding="utf-8")
    print(f"{len(rows):,} photographs in {out}")


def flower_photos(archive: Path) -> Iterator[Photograph]:
    """Flowers with their photographers, as LICENSE.txt names them: "daisy/1.jpg CC-BY by mario - https://…"."""
    with tarfile.open(archive) as files:
        contents = {member.name: files.extractfile(member).read() for member in files if member.isfile()}  # type: ignore[union-attr]
    license = next(content for name, content in contents.items() if name.endswith("LICENSE.txt"))
    line = r"^(\S+\.jpg) CC-BY by (.*) - (https?://\S+)\s*$"
    credited = re.findall(line, license.decode("utf-8", "replace"), re.MULTILINE)
    credits = {file: {"author": author.strip(), "source": source} for file, author, source in credited}
    for name in sorted(name for name in contents if name.endswith(".jpg")):
        folder, file = name.split("/")[-2:]
        yield f"flower-{file}", contents[name], NAMES.get(folder, f"{folder}s"), credits.get(f"{folder}/{file}", {})


def grocery_photos(archive: Path) -> Iterator[Photograph]:
    """Fruit and vegetables; packages and the shop's own images of its goods are left out."""
    with zipfile.ZipFile(archive) as files:
        for name in sorted(files.namelist()):
            parts = name.split("/")
            kind = next((kind for kind in ("Fruit", "Vegetables") if kind in parts), None)
            if kind and name.endswith(".jpg") and not any(part.startswith("iconic") for part in parts):
                folder = parts[parts.index(kind) + 1]
                things = NAMES.get(folder, f"{folder.replace('-', ' ').lower()}s")
                things = "watermelons" if "Watermelon" in parts else things
                yield f"produce-{parts[-1]}", files.read(name), things, {}


def small(content: bytes) -> Image.Image:
    """A photograph upright, at most 4:3, its short side of SHORT pixels."""
    with Image.open(io.BytesIO(content)) as file:
        image = ImageOps.exif_transpose(file).convert("RGB")
    width, height = image.size
    wide = min(max(width / height, 1 / WIDEST), WIDEST)
    size = (round(SHORT * max(wide, 1)), round(SHORT / min(wide, 1)))
    return ImageOps.fit(image, size, Image.Resampling.LANCZOS)


def caption(things: str, image: Image.Image) -> str:
    """Such as "red roses, green background": colors are those of the middle, where kinds differ in it, and the rim."""
    pixels = np.asarray(image.convert("HSV"), np.float32) / 255
    height, width = pixels.shape[:2]
    middle = pixels[height // 3 : -height // 3, width // 3 : -width // 3].reshape(-1, 3)
    rim = np.concatenate([pixels[: height // 8].reshape(-1, 3), pixels[-height // 8 :].reshape(-1, 3)])
    color = f"{color_of(middle)} " if things in MANY_COLORS and color_of(middle) else ""
    around = color_of(rim)
    background = f", {around} background" if around in ("green", "dark", "white", "blue") else ""
    return f"{color}{things}{background}"


def color_of(pixels: np.ndarray) -> str:
    """The color that most of HSV pixels [n, 3], 0 to 1, have; "" where there is none."""
    hue, saturation, value = pixels.T
    names = np.select([value < 0.2, (saturation < 0.2) & (value > 0.7), saturation < 0.2], ["dark", "white", ""], "hue")
    hues = np.array([*HUES, "red"])[np.searchsorted(list(HUES.values()), hue)]
    found, counts = np.unique(np.where(names == "hue", hues, names), return_counts=True)
    return str(found[counts.argmax()]) if counts.max() > 0.5 * len(pixels) else ""


if __name__ == "__main__":
    typer.run(main)
