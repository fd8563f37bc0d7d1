"""Charts: every number is where it belongs, and within the picture."""

import re

import numpy as np
import pytest

from unfreeze.report.svg_charts import (
    Curves,
    curves_chart,
    depths_chart,
    interval_line,
    score_scale,
    share_bar,
)

NAN = float("nan")


def points(svg):
    return [
        [tuple(map(float, pair.split(","))) for pair in line.split()]
        for line in re.findall(r"points='([^']+)'", svg)
    ]


def chart(lines, stages, kept=(), share=False):
    given = {name: np.array(line) for name, line in lines.items()}
    return curves_chart(Curves("Loss & more", given, stages, kept, share))


def test_lines_rise_to_the_right_and_gaps_stay():
    svg = chart({"a": [1.0, 0.5, NAN, 0.25, 0.0]}, [("head", 2), ("all", 3)], [4])
    # Nor do lines cross from stage to stage.
    assert len(points(chart({"a": [1.0, 0.5, 0.4, 0.3]}, [("head", 2), ("all", 2)]))) == 2
    first, second = points(svg)
    assert len(first) == len(second) == 2
    xs = [x for x, _ in (*first, *second)]
    assert xs == sorted(xs)
    # A lower loss is further down.
    assert first[0][1] < first[1][1] < second[1][1]
    assert "aria-label='Loss &amp; more'" in svg
    assert svg.count("class='ring'") == 1
    assert ">head<" in svg
    assert ">epoch 5<" in svg
    numbers = [float(n) for n in re.findall(r"c[xy]='([\d.]+)'", svg)]
    assert all(0 <= n <= 380 for n in numbers)


def test_a_constant_share_is_at_the_top_of_a_tenth():
    svg = chart({"right": [1.0, 1.0]}, [("head", 2)], share=True)
    assert ">100 %<" in svg
    assert ">90 %<" in svg
    assert "105" not in re.sub(r"'[^']*'", "", svg)


@pytest.mark.parametrize("lines", [{"a": [0.0]}, {"a": [3e-7, 1e6]}, {"a": [2.0], "b": [NAN]}])
def test_odd_ranges_are_drawn(lines):
    count = len(lines["a"])
    assert "<circle" in chart(lines, [("a stage with a very long name", count)])


def test_depths_have_a_bar_each_and_a_peak():
    svg = depths_chart("said", ["conv1", "block<10>"], [0.25, 0.5], 1, 0.1)
    widths = [float(w) for w in re.findall(r"width='([\d.]+)' height='12'", svg)]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.2)
    assert "class='end strong'>block&lt;10&gt;<" in svg


def test_an_interval_is_drawn_in_its_scale():
    svg = interval_line(0.5, (0.25, 1.0))
    left, width = (float(re.search(rf"range' .*?{k}='([\d.]+)'", svg)[1]) for k in ("x", "width"))
    dot = float(re.search(r"cx='([\d.]+)'", svg)[1])
    assert (left, dot) == (pytest.approx(4 + 107 / 4, abs=0.1), pytest.approx(4 + 107 / 2))
    assert left + width == pytest.approx(111, abs=0.1)
    assert interval_line(None, None) == ""
    assert "range" not in interval_line(0.5, None)


def test_the_headlines_scale_shows_guessing():
    svg = score_scale(0.9, (0.8, 1.0), 0.1)
    assert "cx='90.0%'" in svg
    assert "x='80.0%' y='6' width='20.0%'" in svg
    assert "x1='10.0%'" in svg
    assert "guessing" not in score_scale(0.9, None, None)
    assert "width='100.0'" in share_bar(3.0)
