"""The page's actions, run on a tiny random model without a browser."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from types import GeneratorType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imagebart.masks import preset
from imagebart.testing import tiny_pipeline
from imagebart.ui import wording
from imagebart.ui.handlers import Controls, Frame, Handlers, Outcome
from imagebart.ui.picture import EditorValue, Picture, to_editor

NAMES = ["preview", "progress", "announcement", "messages", "strip", "comparison", "seed", "outcome"]
BUTTONS = ["edit", "generate", "vary", "cancel", "resume"]


@pytest.fixture(autouse=True)
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))


@pytest.fixture(scope="module")
def handlers() -> Handlers:
    return Handlers(tiny_pipeline())


@pytest.fixture
def picture() -> Picture:
    noise = np.random.default_rng(0).integers(0, 256, (50, 37, 3), dtype=np.uint8)
    return Picture.of(Image.fromarray(noise))


def settings(prompt: str = "hat", seed: float | None = 7, new_seed: bool = False, passes: int = 1) -> list[Any]:
    return [prompt, seed, new_seed, 1.0, 0, 1.0, 1.0, passes, 0]


def painted(picture: Picture) -> EditorValue:
    return to_editor(picture, preset("upper half", picture.image.size))


def opened(path: str) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


def told(updates: list[Any]) -> dict[str, Any]:
    """What a moment changes, by name; a thing left as it is, is left out."""
    named = dict(zip(NAMES + BUTTONS, updates, strict=True))
    unchanged = {"__type__": "update"}
    return {name: value for name, value in named.items() if value != unchanged}


def run(updates: Iterator[list[Any]]) -> list[dict[str, Any]]:
    return [told(update) for update in updates]


def test_an_edit_ends_with_a_result_whose_unpainted_pixels_are_the_upload_s(
    handlers: Handlers, picture: Picture
) -> None:
    moments = run(handlers.edit(painted(picture), picture, *settings()))
    result = moments[-1]["outcome"]
    assert opened(moments[-1]["preview"]) == result.image
    assert isinstance(result, Outcome) and result.seed == 7
    before, after = np.asarray(picture.image), np.asarray(result.image)
    assert after.shape == before.shape
    assert (after[27:] == before[27:]).all() and (after[:23] != before[:23]).any()


def test_an_edit_shows_noise_then_each_stage(handlers: Handlers, picture: Picture) -> None:
    moments = run(handlers.edit(painted(picture), picture, *settings()))
    assert [caption for _, caption in moments[-1]["strip"]] == ["noise", "coarse", "fine"]
    assert [Image.open(path).size for path, _ in moments[-1]["strip"]] == [picture.image.size] * 3
    before, after = (opened(path) for path in moments[-1]["comparison"])
    assert before == picture.image and after == moments[-1]["outcome"].image
    assert "Done" in moments[-1]["progress"] and "ready" in moments[-1]["announcement"]


def test_buttons_follow_the_run(handlers: Handlers, picture: Picture) -> None:
    moments = run(handlers.edit(painted(picture), picture, *settings()))
    assert not moments[0]["edit"]["interactive"] and moments[0]["cancel"]["interactive"]
    assert moments[-1]["edit"]["interactive"] and not moments[-1]["cancel"]["interactive"]
    assert moments[-1]["resume"]["interactive"] and "resume" not in moments[0]


def test_a_kept_seed_repeats_and_a_new_one_does_not(handlers: Handlers, picture: Picture) -> None:
    def result(**seed: Any) -> Outcome:
        return run(handlers.edit(painted(picture), picture, *settings(**seed)))[-1]["outcome"]

    fresh = result(new_seed=True)
    again = result(seed=float(fresh.seed))
    assert again.seed == fresh.seed and again.image == fresh.image
    assert result(new_seed=True).seed != fresh.seed


def test_unknown_words_are_told(handlers: Handlers, picture: Picture) -> None:
    moments = run(handlers.edit(painted(picture), picture, *settings("zebra hat")))
    assert "zebra" in moments[-1]["messages"]


def test_no_mask_is_said_and_offers_the_ready_masks(handlers: Handlers, picture: Picture) -> None:
    with pytest.warns(UserWarning, match="Nothing is painted"):
        moments = run(handlers.edit(to_editor(picture), picture, *settings()))
    assert len(moments) == 1 and "ready masks" in moments[0]["messages"]
    assert "outcome" not in moments[0] and "preview" not in moments[0]


def test_no_picture_is_said(handlers: Handlers) -> None:
    for updates in (handlers.edit(None, None, *settings()), handlers.vary(0.5, None, None, *settings())):
        with pytest.warns(UserWarning, match="no picture"):
            assert run(updates)[0]["messages"] == wording.problem_html(wording.NO_PICTURE)


def test_a_seed_out_of_range_is_said_and_the_page_is_ready_again(handlers: Handlers) -> None:
    with pytest.warns(UserWarning, match="seed"):
        moments = run(handlers.generate(*settings(seed=-1)))
    assert "seed is -1" in moments[-1]["messages"] and moments[-1]["edit"]["interactive"]


def test_generate_and_vary_give_results(handlers: Handlers, picture: Picture) -> None:
    generated = run(handlers.generate(*settings()))[-1]
    assert generated["outcome"].image.size == (32, 32) and "comparison" not in generated
    varied = run(handlers.vary(0.5, to_editor(picture), picture, *settings()))[-1]
    assert varied["outcome"].image.size == picture.image.size


def test_a_result_can_be_edited_further(handlers: Handlers) -> None:
    outcome = run(handlers.generate(*settings()))[-1]["outcome"]
    canvas, picture = handlers.resume(outcome)
    assert picture.image == outcome.image
    assert run(handlers.edit(painted(picture), picture, *settings()))[-1]["outcome"].image.size == (32, 32)


def test_closing_a_run_ends_the_model_s_work(handlers: Handlers, picture: Picture) -> None:
    updates = handlers.edit(painted(picture), picture, *settings())
    for _ in range(3):
        next(updates)
    assert working()
    updates.close()  # type: ignore[attr-defined]
    assert not working()


def working() -> list[str]:
    """Names of the pipeline's generators that are still alive."""
    return [
        found.__name__
        for found in gc.get_objects()
        if type(found) is GeneratorType and found.__qualname__ == "Pipeline._stream" and found.gi_frame is not None
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("words.png", b"not a picture", "can be read"),
        ("empty.png", b"", "empty"),
        ("cut.png", None, "damaged"),
    ],
)
def test_a_bad_upload_is_said_and_changes_nothing(
    handlers: Handlers, tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    path = tmp_path / name
    if content is None:
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        content = path.read_bytes()[:2000]
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=said):
        canvas, picture = handlers.upload(str(path))
    assert canvas == picture == {"__type__": "update"}


def test_an_uploaded_mask_of_another_shape_is_said(handlers: Handlers, picture: Picture, tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.new("L", (100, 20), 255).save(path)
    with pytest.warns(UserWarning, match="same shape"):
        canvas, _ = handlers.upload_mask(str(path), to_editor(picture), picture)
    assert canvas == {"__type__": "update"}


def test_an_upload_is_kept_as_it_is(handlers: Handlers, picture: Picture, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    picture.image.save(path)
    canvas, kept = handlers.upload(str(path))
    assert kept.image == picture.image and opened(canvas["background"]) == kept.view


def test_clearing_takes_the_paint_and_leaves_the_picture(handlers: Handlers, picture: Picture) -> None:
    canvas, kept = handlers.clear_mask(painted(picture), picture)
    assert canvas["layers"] == [] and kept is picture
    emptied: EditorValue = {"background": None, "layers": [], "composite": None}
    assert opened(handlers.clear_mask(emptied, picture)[0]["background"]) == picture.view


def test_the_sliders_ends_mean_off() -> None:
    sampling = Controls("", None, True, 1.0, 0, 1.0, 1.0, 1, 0).sampling()
    assert sampling.top_k is None and sampling.top_p is None
    sampling = Controls("", None, True, 0.8, 40, 0.9, 2.0, 2, 0).sampling()
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.guidance, sampling.passes) == (
        0.8,
        40,
        0.9,
        2.0,
        2,
    )


def test_a_frame_changes_only_what_it_names() -> None:
    assert told(Frame(progress="half").updates()) == {"progress": "half"}
