"""Pictures that the sketchpad asks for by their files' names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagebart.imaging.masks import preset
from imagebart.imaging.metadata import Recipe, write_png
from imagebart.ui.examples import find_examples, scale_mask, view_size
from imagebart.ui.files import publish
from imagebart.ui.sketchpad import stored_images as shelf
from imagebart.ui.sketchpad.stored_images import unpack

pytestmark = pytest.mark.usefixtures("own_files")


def noise(size: tuple[int, int], seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def opened(path: str) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


def test_an_upload_is_described_with_a_copy_that_any_browser_shows(tmp_path: Path) -> None:
    path = publish(noise((1500, 40)))
    picture = shelf.take(path)["picture"]
    assert picture["path"] == path and (picture["width"], picture["height"]) == (1500, 40)
    assert opened(picture["view"]).size == view_size((1500, 40))


def test_a_transparent_upload_is_shown_on_white() -> None:
    picture = shelf.take(publish(Image.new("RGBA", (60, 60), (10, 20, 30, 0))))["picture"]
    assert opened(picture["view"]).getpixel((0, 0)) == (255, 255, 255)


def test_a_picture_made_here_is_known_as_such() -> None:
    path = Path(publish(noise((32, 32))))
    assert not shelf.take(str(path))["made"]
    write_png(noise((32, 32)), path, Recipe("tiny", "generate", "a hat", 3))
    assert shelf.take(str(path))["made"]


@pytest.mark.parametrize(("content", "said"), [(b"not a picture", "can be read"), (b"", "empty"), (None, "damaged")])
def test_a_bad_upload_is_said(content: bytes | None, said: str) -> None:
    path = Path(publish(noise((64, 64))))
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    assert said in shelf.take(str(path))["error"]


def test_nothing_outside_the_pages_folder_is_shown(tmp_path: Path) -> None:
    noise((32, 32)).save(tmp_path / "secret.png")
    inside = Path(publish(noise((32, 32)))).parent
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    for path in (
        tmp_path / "secret.png",
        inside / ".." / "secret.png",
        inside / "link.png",
        inside,
        inside / "gone.png",
    ):
        assert shelf.take(str(path)) == {"error": shelf.GONE}
        assert shelf.compose({"part": str(path)}) == {"error": shelf.GONE}
        assert shelf.film({"shown": [str(path)], "name": "x", "suffix": ".gif"}) == {"error": shelf.GONE}


def test_a_step_is_put_into_its_picture() -> None:
    base, part = noise((40, 30)), noise((10, 8), 1)
    step = {"base": publish(base), "box": [5, 6, 15, 14], "part": publish(part)}
    whole = opened(shelf.compose(step)["picture"]["path"])
    assert whole.crop((5, 6, 15, 14)).tobytes() == part.tobytes()
    base.paste(part, (5, 6))
    assert whole.convert("RGB").tobytes() == base.tobytes()


@pytest.mark.parametrize("suffix", [".webp", ".gif"])
def test_a_run_becomes_a_moving_picture(suffix: str) -> None:
    frames = [noise((32, 24), seed) for seed in range(5)]
    path = shelf.film({"shown": [publish(f) for f in frames], "name": "edit-7/../x", "suffix": suffix})["path"]
    with Image.open(path) as film:
        assert path.endswith(f"edit-7x{suffix}") and film.n_frames == 5 and film.size == (32, 24)


@pytest.mark.parametrize("asked", [{}, {"shown": [], "name": "a", "suffix": ".gif"}, {"shown": 3}])
def test_what_no_page_asks_for_is_refused(asked: dict) -> None:
    assert shelf.film(asked) == {"error": shelf.UNREADABLE}
    assert shelf.compose(asked) == {"error": shelf.UNREADABLE}


def test_an_example_keeps_its_names_and_its_mask(tmp_path: Path) -> None:
    noise((48, 40)).save(tmp_path / "1-blue-hat.png")
    preset("left half", (48, 40)).save(tmp_path / "1-blue-hat.mask.png")
    (tmp_path / "1-blue-hat.txt").write_text("a hat\n")
    (example,) = find_examples(tmp_path)
    first, again = shelf.describe_example(example), shelf.describe_example(example)
    assert first == again and first["prompt"] == "a hat" and first["caption"] == "Blue hat: a hat"
    mask = scale_mask(preset("left half", (48, 40)), view_size((48, 40)))
    assert unpack(first["mask"], (48, 40)).tobytes() == mask.tobytes()
    assert opened(first["picture"]["path"]).tobytes() == noise((48, 40)).tobytes()
