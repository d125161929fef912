"""How long drawing takes on this machine, each row against the naive way in the same run."""

from imagebart.bench.measure import Row, images_per_second, measure
from imagebart.bench.models import Subject, published_size, shipped
from imagebart.bench.report import heading, plot, report, scales

__all__ = [
    "Row",
    "Subject",
    "heading",
    "images_per_second",
    "measure",
    "plot",
    "published_size",
    "report",
    "scales",
    "shipped",
]
