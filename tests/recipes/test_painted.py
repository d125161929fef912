"""Cases of masks as people paint them, and what counts as right, on images that are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagebart import Pipeline
from imagebart.worlds.things import ThingScorer
from recipes import generator
from recipes.avatars.artwork import render
from recipes.avatars.painted import SIZE, brush_case, others
from recipes.strokes import freehand, zigzag
from recipes.things.artwork import ARTWORK
from recipes.things.painted import KINDS, Case, half_painted, is_right, loose_removal

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
        assert change.attribute not in others(change) and not others(change) & change.prompt.claims.keys()


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


def _known(number: int) -> list[tuple[Case, Image.Image, Image.Image]]:
    """Cases, each with an image that is right, and one that is not."""
    half, removal = half_painted(number, 7), loose_removal(number, 7)
    assert removal.ground is not None
    return [(half, half.image, Image.new("RGB", half.image.size)), (removal, removal.ground, removal.image)]
