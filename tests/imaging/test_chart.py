"""Lines over an axis: points stand where they should."""

from PIL import Image, ImageColor

from imagebart.imaging.figures import COLOURS, MARGIN, SIZE, chart

RIGHT, BOTTOM = SIZE[0] - MARGIN, SIZE[1] - MARGIN


def colour_at(picture: Image.Image, x: float, y: float) -> object:
    return picture.getpixel((round(x), round(y)))


def test_points_stand_where_they_should() -> None:
    picture = chart({"up": [(0.0, 0.0), (10.0, 5.0)], "flat": [(5.0, 1.0)]}, "tokens", "seconds")
    assert picture.size == SIZE
    first, second = map(ImageColor.getrgb, COLOURS[:2])
    assert [colour_at(picture, *place) for place in ((MARGIN, BOTTOM), (RIGHT, MARGIN))] == [first] * 2
    assert colour_at(picture, (MARGIN + RIGHT) / 2, BOTTOM - (BOTTOM - MARGIN) / 5) == second


def test_a_line_may_begin_at_its_least_value() -> None:
    picture = chart({"": [(0.0, 3.0), (2.0, 1.0), (4.0, 2.0)]}, "hours", "loss", bottom=None)
    colour = ImageColor.getrgb(COLOURS[0])
    assert colour_at(picture, MARGIN, MARGIN) == colour_at(picture, (MARGIN + RIGHT) / 2, BOTTOM) == colour
    assert colour_at(picture, RIGHT, (MARGIN + BOTTOM) / 2) == colour


def test_without_points_there_is_an_empty_frame() -> None:
    assert chart({}, "hours", "loss").size == SIZE
