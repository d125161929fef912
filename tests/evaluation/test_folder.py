"""Which pictures a model is measured on."""

from __future__ import annotations

import pytest

from imagebart.evaluation.folder import spread


@pytest.mark.parametrize(("count", "most"), [(362, 100), (362, 200), (6718, 2000), (7, 7), (7, 3), (1, 5), (0, 5)])
def test_every_part_of_a_folder_is_measured_alike(count: int, most: int) -> None:
    """Of each run of a tenth of the pictures, in their order, a tenth of those chosen, to one more or less."""
    chosen = spread(list(range(count)), most)
    assert len(chosen) == min(most, count) and chosen == sorted(set(chosen))
    for part in range(10):
        there = range(part * count // 10, (part + 1) * count // 10)
        assert abs(len(set(chosen) & set(there)) - len(chosen) * len(there) / max(1, count)) <= 1
