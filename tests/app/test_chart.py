import xml.etree.ElementTree as ElementTree

import pytest

from app.chart import HEIGHT, LEFT, MOST_POINTS, RIGHT, WIDTH, chart, ticks
from trainer.training.events import Validated


def points(line: ElementTree.Element) -> list[tuple[float, ...]]:
    return [tuple(map(float, point.split(","))) for point in (line.get("points") or "").split()]


@pytest.mark.parametrize("count", [2, 3, 250, 4000])
def test_the_chart_is_a_drawing_of_limited_size(count: int) -> None:
    drawing = ElementTree.fromstring(chart([(step, 1.0 / step, 2.0 / step) for step in range(1, count + 1)]))
    lines = drawing.findall(".//polyline")
    assert [line.get("class") for line in lines] == ["raw", "smoothed"]
    for places in map(points, lines):
        assert len(places) <= 2 * MOST_POINTS
        assert places[0][0] == pytest.approx(LEFT + (WIDTH - LEFT - RIGHT) / count, abs=0.06), "step 0 is at the left edge"
        assert places[-1][0] == WIDTH - RIGHT
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in places)
    assert len(drawing.findall(".//text")) <= 12


def test_what_was_measured_on_held_out_pictures_is_dots_on_the_chart() -> None:
    losses = [(step, 1.0, 1.0) for step in range(1, 100)]
    measured = [Validated(step=step, loss=0.5 if step == 100 else 1.0, best=100) for step in (0, 50, 100)]
    drawing = ElementTree.fromstring(chart(losses, measured))
    dots = [(float(dot.get("cx") or 0), float(dot.get("cy") or 0)) for dot in drawing.findall(".//circle")]
    ends = points(drawing.findall(".//polyline")[1])
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    assert [x for x, _ in dots] == [LEFT, middle, WIDTH - RIGHT], "the first was measured before any step"
    assert dots[1][1] == ends[0][1] < dots[2][1], "the same loss lies at the same height, a lower one below"
    assert ends[-1][0] < dots[2][0]


def test_the_legend_names_what_is_drawn() -> None:
    losses = [(1, 0.25, 0.75), (2, 0.125, 0.5)]

    def legend(*measured: Validated) -> list[tuple[str | None, str]]:
        spans = ElementTree.fromstring(chart(losses, measured)).findall(".//figcaption/span")
        return [(span.get("class"), "".join(span.itertext())) for span in spans]

    lines = [("raw", "loss 0.1250"), ("smoothed", "smoothed 0.5000")]
    assert legend() == lines
    held = ("held", "pictures held out 0.2500, best at step 2")
    assert legend(Validated(step=2, loss=0.25, best=2)) == [*lines, held]


@pytest.mark.parametrize(
    ("top", "most", "whole", "expected"),
    [
        (0.2, 4, False, [0, 0.05, 0.1, 0.15, 0.2]),
        (0.137, 4, False, [0, 0.05, 0.1, 0.15]),
        (3.1, 4, False, [0, 1, 2, 3, 4]),
        (1e-6, 4, False, [0, 5e-7, 1e-6]),
        (2, 5, True, [0, 1, 2]),
        (600, 5, True, [0, 200, 400, 600]),
        (1237, 5, True, [0, 500, 1000, 1500]),
    ],
)
def test_axes_are_marked_at_round_numbers(top: float, most: int, whole: bool, expected: list[float]) -> None:
    assert ticks(top, most, whole) == pytest.approx(expected)


def test_marks_of_steps_are_where_the_steps_are() -> None:
    marks = ElementTree.fromstring(chart([(step, 1.0, 1.0) for step in range(1, 1238)])).findall(".//text[@class='step']")
    assert [mark.text for mark in marks] == ["step 0", "500", "1000"]
    assert float(marks[2].get("x") or 0) == pytest.approx(LEFT + (WIDTH - LEFT - RIGHT) * 1000 / 1237, abs=0.06)


def test_there_is_no_chart_of_less_than_two_steps() -> None:
    assert chart([]) == chart([(1, 1.0, 1.0)]) == ""
