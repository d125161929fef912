"""The public endpoints, called over HTTP as other programs do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from imagebart.testing import tiny_pipeline
from imagebart.ui.launch import launch_page
from imagebart.ui.page import build_page


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    page = build_page(tiny_pipeline())
    _, url, _ = launch_page(page, prevent_thread_lock=True, server_name="127.0.0.1", quiet=True)
    yield Client(url, verbose=False)
    page.close(verbose=False)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    pixels = np.random.default_rng(0).integers(0, 256, (45, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_only_edit_and_generate_are_public(client: Client) -> None:
    described = client.view_api(return_format="dict", print_info=False)
    assert set(described["named_endpoints"]) == {"/edit", "/generate"}
    assert not described["unnamed_endpoints"]
    names = [parameter["parameter_name"] for parameter in described["named_endpoints"]["/edit"]["parameters"]]
    assert names == ["image", "mask", "area", "prompt", "seed"]


def test_an_edit_streams_and_keeps_what_is_not_painted(client: Client, picture: Path) -> None:
    job = client.submit(
        image=handle_file(str(picture)), mask=None, area="lower half", prompt="hat", seed=3, api_name="/edit"
    )
    answers = list(job)
    assert len(answers) >= 3
    result, progress, seed = answers[-1]
    assert progress == "done" and seed == 3 and "Stage 1 of 2" in answers[0][1]
    before, after = pixels(picture), pixels(result)
    assert (after[:22] == before[:22]).all() and (after[22:] != before[22:]).any()


def test_a_mask_file_says_what_to_redraw(client: Client, picture: Path, tmp_path: Path) -> None:
    mask = Image.new("L", (60, 45))
    mask.paste(255, (10, 10, 30, 30))
    mask.save(tmp_path / "mask.png")
    result, _, _ = client.predict(
        image=handle_file(str(picture)),
        mask=handle_file(str(tmp_path / "mask.png")),
        area="everything",
        prompt="",
        seed=None,
        api_name="/edit",
    )
    changed = (pixels(result) != pixels(picture)).any(axis=-1)
    assert changed[10:30, 10:30].any()
    changed[10:30, 10:30] = False
    assert not changed.any()


def test_a_seed_repeats(client: Client) -> None:
    first, _, seed = client.predict(prompt="a hat", seed=None, api_name="/generate")
    again, _, same = client.predict(prompt="a hat", seed=seed, api_name="/generate")
    assert seed == same and (pixels(first) == pixels(again)).all()


def test_bad_input_is_one_sentence(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "words.png"
    path.write_text("not a picture")
    with pytest.raises(AppError, match="can be read"):
        client.predict(image=handle_file(str(path)), mask=None, area="centre", prompt="", seed=None, api_name="/edit")
