"""The picture of accuracy against seconds is drawn from the records of the studies."""

import pytest
from benchmarks.evidence import DATA
from benchmarks.evidence_depths import BASELINE
from benchmarks.evidence_picture import HERE, SHOWN, draw, rows_of
from PIL import Image


@pytest.mark.parametrize("name", DATA)
def test_its_points_are_those_of_the_studies(name):
    rows = rows_of(name, HERE / "evidence")
    assert list(rows) == list(SHOWN)
    expected = {
        "spoken-digits": {
            "probe_tune": 0.8325,
            "probe": 0.793,
            "two_stage": 0.640,
            BASELINE: 0.263,
        },
        "animal-sounds": {"probe_tune": 0.943, "probe": 0.933, "two_stage": 0.913, BASELINE: 0.887},
    }[name]
    for strategy, accuracy in expected.items():
        score = rows[strategy].scores["test"]
        assert score.accuracy == pytest.approx(accuracy, abs=6e-4)
        assert score.interval[0] < score.accuracy < score.interval[1]
        assert rows[strategy].seconds > 0


def test_it_is_drawn(tmp_path):
    draw(HERE / "evidence", tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.width > 800
