"""The script that gets the still lifes, on archives like those that it downloads."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from typer import Typer
from typer.testing import CliRunner

from recipes.still_life.photographs import main


def photograph(middle: tuple[int, int, int], around: tuple[int, int, int], size: tuple[int, int]) -> bytes:
    pixels = np.full((size[1], size[0], 3), around, np.uint8)
    pixels[size[1] // 4 : -size[1] // 4, size[0] // 4 : -size[0] // 4] = middle
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


def test_archives_become_a_folder_with_captions_and_credits(tmp_path: Path) -> None:
    rose, daisy = photograph((200, 10, 10), (20, 140, 20), (600, 300)), photograph((250,) * 3, (9, 9, 9), (300, 400))
    licence = b"head\nroses/1.jpg CC-BY by Ann - Lee - https://www.flickr.com/photos/1/\n"
    with tarfile.open(tmp_path / "f.tgz", "w:gz") as files:
        named = {"roses/1.jpg": rose, "daisy/3.jpg": daisy, "LICENSE.txt": licence}
        for name, content in named.items():
            member = tarfile.TarInfo(f"flower_photos/{name}")
            member.size = len(content)
            files.addfile(member, io.BytesIO(content))
    with zipfile.ZipFile(tmp_path / "g.zip", "w") as archive:
        carrot = photograph((240, 120, 10), (120, 120, 120), (348, 348))
        archive.writestr("G-master/dataset/train/Vegetables/Carrots/Carrots_001.jpg", carrot)
        archive.writestr("G-master/dataset/iconic-images-and-descriptions/Fruit/Kiwi/Kiwi_Iconic.jpg", carrot)
        archive.writestr("G-master/dataset/train/Packages/Milk/Milk_001.jpg", carrot)
    given = [str(tmp_path / "out"), "--flowers", str(tmp_path / "f.tgz"), "--groceries", str(tmp_path / "g.zip")]
    app = Typer()
    app.command()(main)
    assert CliRunner().invoke(app, given).exit_code == 0
    rows = {row["text"]: row for row in map(json.loads, (tmp_path / "out" / "metadata.jsonl").read_text().splitlines())}
    assert set(rows) == {"red roses, green background", "white daisies, dark background", "carrots"}
    assert rows["red roses, green background"]["author"] == "Ann - Lee"
    sizes = {path.name: Image.open(path).size for path in (tmp_path / "out").rglob("*.webp")}
    assert sizes == {"flower-1.webp": (213, 160), "flower-3.webp": (160, 213), "produce-Carrots_001.webp": (160, 160)}
