"""What the recipes' evaluations count as right, on images that are known; and both commands, on tiny random models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from model_with_scorer import save_model_with_scorer
from PIL import Image

from imagebart import Pipeline
from imagebart.worlds.avatars import PLAIN
from imagebart.worlds.things import Box, Found, ThingScorer
from recipes import generator
from recipes.avatars.__main__ import main
from recipes.avatars.artwork import render
from recipes.avatars.cases import SIZE
from recipes.avatars.evaluation import brush_case, has_patch
from recipes.evaluation import freehand, zigzag
from recipes.things.artwork import ARTWORK
from recipes.things.evaluation import KINDS, ThingCase, half_painted, is_right, loose_removal, shows
from recipes.things.scenes import Caption, Mention

HERE = Path(__file__).parent.parent.parent


def test_strokes_are_the_same_again_and_of_their_radius() -> None:
    for draw in (
        lambda random: zigzag((40, 50, 150, 120), 9, (200, 180), random),
        lambda random: freehand(90, 80, 50, 30, (200, 180), random),
    ):
        one, again, other = (np.asarray(draw(generator(number, 3, 1))) > 0 for number in (1, 1, 2))
        assert (one == again).all() and (one != other).any()
        rows, columns = np.flatnonzero(one.any(1)), np.flatnonzero(one.any(0))
        assert rows[0] < 70 and rows[-1] > 100 and columns[0] < 60 and columns[-1] > 120


def test_a_brush_case_paints_over_what_is_to_change() -> None:
    for number in range(13):
        case = brush_case(number, 5)
        change = case.change
        differs = np.abs(render(change.before, SIZE).astype(int) - render(change.after, SIZE)).sum(2) > 30
        assert differs[np.asarray(case.mask) > 0].sum() > 0.2 * differs.sum()
        assert change.attribute not in change.kept and not change.kept.keys() & change.prompt.claims.keys()


@pytest.mark.parametrize(
    ("height", "width", "levels", "patch"),
    [
        (10, 12, 100, True),
        (8, 12, 49, True),
        (10, 12, 48, False),  # not different enough
        (8, 11, 100, False),  # too small
        (3, 100, 100, False),  # a line is thinner than the opening
    ],
)
def test_a_patch_of_another_color_is_seen_where_it_is_masked(height: int, width: int, levels: int, patch: bool) -> None:
    reference = render(PLAIN, SIZE)
    image, mask = reference.copy(), np.ones((SIZE, SIZE), bool)
    image[8 : 8 + height, 8 : 8 + width, 1] -= np.uint8(levels)
    assert has_patch(image, reference, mask) == patch
    mask[:16] = False
    assert not has_patch(image, reference, mask)


def test_avatars_are_measured_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out, grids = tmp_path / "model", tmp_path / "deep" / "figures.json", tmp_path / "grids"
    save_model_with_scorer(model)
    options = ["--model", str(model), "--samples", "6", "--out", str(out), "--grids", str(grids)]
    assert main(["evaluate", *options]) == 0
    assert "| strokes: as asked |" in capsys.readouterr().out
    measured = {m["name"]: m for m in json.loads(out.read_text())["measures"]}
    assert all(m["low"] <= m["value"] <= m["high"] for m in measured.values())
    assert measured["no pixel changed outside the mask"]["value"] == 1
    assert {"whole images, captions: named attributes found", "places by words: IoU, median"} <= measured.keys()
    assert {path.name for path in grids.iterdir()} == {"painted.webp", "prompts.webp"}


def test_the_shipped_examples_are_written(tmp_path: Path) -> None:
    assert main(["examples", "--out", str(tmp_path)]) == 0
    shipped = sorted((HERE / "checkpoints/avatars/examples").iterdir())
    assert [path.name for path in sorted(tmp_path.iterdir())] == [path.name for path in shipped]
    for path in shipped:
        made = tmp_path / path.name
        if path.suffix == ".txt":
            assert made.read_text() == path.read_text()
        else:
            assert (np.asarray(Image.open(made)) == np.asarray(Image.open(path))).all()


def test_bad_input_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given, said in (
        (["evaluate", "--samples", "3"], "Invalid value for '--samples'"),
        (["train", "nose", "--run", str(tmp_path)], "There is no part 'nose'; there are first-stage"),
        (["train", "classifier", "--run", str(tmp_path)], "--config is missing"),
        (["train", "classifier"], "Missing option '--run'"),
    ):
        assert main(given) == 2
        assert said in capsys.readouterr().err


def test_what_an_image_shows_answers_what_a_caption_says() -> None:
    cat, dog = Found(3, 0, Box(4, 0, 4)), Found(5, 1, Box(4, 8, 4))
    said = Caption("", (Mention(3, "", 1), Mention(5, "", 1)))
    assert shows([cat, dog], said) == (True, True)
    assert shows([cat], said) == (False, False)
    assert shows([cat, cat, dog], said) == (True, False)


@pytest.mark.shipped
@pytest.mark.skipif(not (HERE / ARTWORK).is_file(), reason="the artwork of things is fetched by `make things`")
def test_what_is_right_is_told_from_what_is_not() -> None:
    scorer = Pipeline.from_pretrained(HERE / "checkpoints" / "things").scorer
    assert isinstance(scorer, ThingScorer)
    right = {"half-painted": 0, "removals": 0}
    for number in range(12):
        for case, ideal, wrong in _known(number):
            name = "removals" if case.remove else "half-painted"
            right[name] += is_right(scorer, case, ideal)
            assert not is_right(scorer, case, wrong)
    assert min(right.values()) >= 11 and set(right) < set(KINDS)


def _known(number: int) -> list[tuple[ThingCase, Image.Image, Image.Image]]:
    """Cases, each with an image that is right, and one that is not."""
    half, removal = half_painted(number, 7), loose_removal(number, 7)
    assert removal.ground is not None
    return [(half, half.image, Image.new("RGB", half.image.size)), (removal, removal.ground, removal.image)]
