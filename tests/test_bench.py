"""The benchmark runs what it says it runs."""

from imagebart.bench import measure, report
from imagebart.testing import tiny_model


def test_rows_count_passes_and_compare_with_naive() -> None:
    model = tiny_model("none")
    rows = measure(model, repeats=1)
    assert len(rows) == 2 * 4 * 3
    for row in rows:
        assert row.passes == (round(64 * row.share) if row.method == "known tokens skipped" else 64)
        assert row.ratio == 1.0 or row.method != "naive"
    table = report(rows)
    assert table.count("\n| ") == 2 * 4 * 3 + 1
    assert "| 2 | 25% | known tokens skipped |" in table
