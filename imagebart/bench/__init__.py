"""How long drawing takes on this machine, each row against the naive way in the same run."""

from imagebart.bench.measure import Row, images_per_second, measure
from imagebart.bench.models import Subject, published_size, shipped
from imagebart.bench.profile import Share, shares
from imagebart.bench.report import heading, pass_report, plot, report, scales

__all__ = [
    "Row",
    "Share",
    "Subject",
    "heading",
    "images_per_second",
    "measure",
    "pass_report",
    "plot",
    "published_size",
    "report",
    "scales",
    "shares",
    "shipped",
]
