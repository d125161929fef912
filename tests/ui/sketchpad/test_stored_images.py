"""Images that the sketchpad asks for by their files' names, and their sizes on the way to the browser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from page_values import noise_image, open_image
from PIL import Image

from imagebart.imaging.masks import preset
from imagebart.imaging.metadata import Recipe, write_png
from imagebart.ui import messages
from imagebart.ui.files import publish
from imagebart.ui.sketchpad import stored_images
from imagebart.ui.sketchpad.component import scale_mask
from imagebart.ui.sketchpad.stored_images import downscaled, view_size

pytestmark = pytest.mark.usefixtures("own_files")


def test_an_upload_is_described_with_a_copy_that_any_browser_shows(tmp_path: Path) -> None:
    path = publish(noise_image((1500, 40)))
    image = stored_images.open_image(path)["image"]
    assert image["path"] == path and (image["width"], image["height"]) == (1500, 40)
    assert open_image(image["view"]).size == view_size((1500, 40))


def test_a_transparent_upload_is_shown_on_white() -> None:
    image = stored_images.open_image(publish(Image.new("RGBA", (60, 60), (10, 20, 30, 0))))["image"]
    assert open_image(image["view"]).getpixel((0, 0)) == (255, 255, 255)


def test_an_image_made_here_is_known_as_such() -> None:
    path = Path(publish(noise_image((32, 32))))
    assert not stored_images.open_image(str(path))["made"]
    write_png(noise_image((32, 32)), path, Recipe(model="tiny", task="generate", prompt="a hat", seed=3))
    assert stored_images.open_image(str(path))["made"]


@pytest.mark.parametrize(("content", "said"), [(b"not an image", "we can read"), (b"", "empty"), (None, "damaged")])
def test_a_bad_upload_is_said(content: bytes | None, said: str) -> None:
    path = Path(publish(noise_image((64, 64))))
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    assert said in stored_images.open_image(str(path))["error"]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_an_image_grows_by_what_its_edge_repeats_up_to_its_limits(mode: str) -> None:
    image = noise_image((60, 40)).convert(mode)
    path = publish(image)
    asked = {"path": path, "left": 5, "top": 0, "right": 0, "bottom": 7}
    grown = stored_images.expand(asked)["image"]
    found = np.asarray(open_image(grown["path"]))
    assert (grown["width"], grown["height"]) == (65, 47) and found.shape[2] == len(mode)
    for y in range(47):
        for x in range(65):
            assert tuple(found[y, x]) == image.getpixel((max(x - 5, 0), min(y, 39)))
    assert "can grow to at most" in stored_images.expand({**asked, "left": 90})["error"]
    assert "can grow to at most" in stored_images.expand({**asked, "left": 10_000, "top": 9_000})["error"]
    for wrong in ({**asked, "left": -1}, {**asked, "left": "wide"}, {"path": path}, {**asked, "top": 1e400}):
        assert stored_images.expand(wrong) == {"error": messages.STEP_UNREADABLE}
    assert stored_images.expand({**asked, "path": "gone.png"}) == {"error": messages.IMAGE_DELETED}


def test_nothing_outside_the_pages_folder_is_shown(tmp_path: Path) -> None:
    noise_image((32, 32)).save(tmp_path / "secret.png")
    inside = Path(publish(noise_image((32, 32)))).parent
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    for path in (
        tmp_path / "secret.png",
        inside / ".." / "secret.png",
        inside / "link.png",
        inside,
        inside / "gone.png",
    ):
        assert stored_images.open_image(str(path)) == {"error": messages.IMAGE_DELETED}
        assert stored_images.compose({"part": str(path)}) == {"error": messages.IMAGE_DELETED}
        assert stored_images.animate({"shown": [str(path)], "name": "x", "suffix": ".gif"}) == {
            "error": messages.IMAGE_DELETED
        }


def test_a_step_is_put_into_its_image() -> None:
    base, part = noise_image((40, 30)), noise_image((10, 8), 1)
    step = {"base": publish(base), "box": [5, 6, 15, 14], "part": publish(part)}
    whole = open_image(stored_images.compose(step)["image"]["path"])
    assert whole.crop((5, 6, 15, 14)).tobytes() == part.tobytes()
    base.paste(part, (5, 6))
    assert whole.convert("RGB").tobytes() == base.tobytes()


@pytest.mark.parametrize("suffix", [".webp", ".gif"])
def test_a_run_becomes_a_moving_image(suffix: str) -> None:
    frames = [noise_image((32, 24), seed) for seed in range(5)]
    run = {"shown": [publish(frame) for frame in frames], "name": "edit-7/../x", "suffix": suffix}
    path = stored_images.animate(run)["path"]
    with Image.open(path) as film:
        assert path.endswith(f"edit-7x{suffix}") and film.n_frames == 5 and film.size == (32, 24)


@pytest.mark.parametrize("asked", [{}, {"shown": [], "name": "a", "suffix": ".gif"}, {"shown": 3}])
def test_what_no_page_asks_for_is_refused(asked: dict) -> None:
    assert stored_images.animate(asked) == {"error": messages.STEP_UNREADABLE}
    assert stored_images.compose(asked) == {"error": messages.STEP_UNREADABLE}


SIZES = [(128, 128), (64, 100), (517, 389), (1024, 300), (2600, 1900), (3000, 40), (16, 16)]


@pytest.mark.parametrize("size", SIZES)
def test_what_is_painted_on_is_the_image_or_a_bounded_copy_of_its_shape(size: tuple[int, int]) -> None:
    width, height = view_size(size)
    assert (width, height) == size if max(size) <= 1024 else max(width, height) == 1024
    assert abs(width / height / (size[0] / size[1]) - 1) <= 0.5 / min(width, height) + 1e-9


@pytest.mark.parametrize("size", SIZES)
def test_a_mask_goes_there_and_back_to_where_it_was(size: tuple[int, int]) -> None:
    back = scale_mask(scale_mask(preset("right half", size), view_size(size)), size)
    values, slack = np.asarray(back), -(-size[0] // 1024)
    assert back.size == size and (values[:, size[0] // 2 + slack :] == 255).all()
    assert (values[:, : size[0] // 2 - slack - 1] == 0).all()


@pytest.mark.parametrize("size", [(16, 16), (128, 96), (2600, 1900)])
def test_the_thinnest_stroke_is_not_lost(size: tuple[int, int]) -> None:
    width, height = view_size(size)
    mask = Image.new("L", (width, height))
    mask.putpixel((width // 3, height // 3), 1)
    column, row = (width // 3) * size[0] // width, (height // 3) * size[1] // height
    assert np.asarray(scale_mask(mask, size))[row : row + 2, column : column + 2].any()


def test_reduced_leaves_small_images_alone() -> None:
    small, large = Image.new("RGB", (300, 200)), Image.new("RGB", (3000, 1000))
    assert downscaled(small, 512) is small and downscaled(large, 512).size == (512, 171)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("size", [(700, 130), (331, 1203), (513, 512), (300, 3000)])
def test_a_reduced_image_is_what_a_reader_of_all_of_it_sees(mode: str, size: tuple[int, int]) -> None:
    values = np.random.default_rng(0).integers(0, 256, (size[1] // 30 + 2, size[0] // 30 + 2, 4), np.uint8)
    image = Image.fromarray(values).resize(size, Image.Resampling.BICUBIC).convert(mode)
    got = np.asarray(downscaled(image, 128), int)
    want = np.asarray(image.resize(got.shape[1::-1], Image.Resampling.BILINEAR), int)
    if mode == "RGBA":  # colours count as much as they are seen
        for pixels in (got, want):
            pixels[..., :3] = pixels[..., :3] * pixels[..., 3:] / 255
    assert np.abs(got - want).mean() < 2 and np.abs(got - want).max() < 30
