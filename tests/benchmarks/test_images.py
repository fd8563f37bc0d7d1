"""How `benchmarks.images` divides pictures, reads them, and sums up; on made-up results."""

import io

import numpy as np
import pytest
from benchmarks.images import METHODS, PARTS, STYLES, folds, picture, report
from PIL import Image

CLASSES = np.repeat([0, 1, 2], [22, 40, 66])


def test_each_style_is_tested_once_and_nothing_is_on_both_sides():
    found = list(folds(CLASSES))
    new_styles = []
    for fold in found:
        styles, things = ([set(part[:, at].tolist()) for part in sides(fold)] for at in (0, 1))
        assert np.bincount(CLASSES[fold.train[:, 1]]).tolist() == [20, 20, 20]
        assert np.bincount(CLASSES[fold.validation[:, 1]]).tolist() == [4, 4, 4]
        assert np.bincount(CLASSES[fold.tests[PARTS[0]][:, 1]]).tolist() == [8, 20, 20]
        train, held, both, known, unknown = range(5)
        assert styles[both] == styles[known]
        assert styles[unknown] == styles[train]
        for one, other in [(train, held), (train, both), (held, both)]:
            assert not styles[one] & styles[other]
            assert not things[one] & things[other]
        assert things[known] == things[train]
        assert things[unknown] == things[both]
        new_styles += styles[both]
    assert sorted(new_styles) == [0, 1, 2, 3]
    assert set(found[0].train[:, 1]) != set(found[1].train[:, 1])


def sides(fold):
    return [fold.train, fold.validation, *(fold.tests[part] for part in PARTS)]


def test_what_is_transparent_is_white():
    drawn = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    drawn.paste((255, 0, 0, 255), (32, 0, 64, 64))
    file = io.BytesIO()
    drawn.save(file, "PNG")
    found = picture(file.getvalue())
    assert (found.shape, found.dtype) == ((96, 96, 3), np.float32)
    np.testing.assert_array_equal(found[40, 5], [1, 1, 1])
    np.testing.assert_array_equal(found[40, 90], [1, -1, -1])


def test_the_report_is_paired_with_the_first_way(capsys):
    """The first is right on every second thing, the second also on every fourth."""
    records = [
        {"method": name, "fold": fold, "seconds": 1.0 + number, "hits": dict.fromkeys(PARTS, hits)}
        for number, name in enumerate(METHODS)
        for fold in range(len(STYLES))
        for hits in [
            [[thing, int(thing % 2 == 0 or (number and thing % 4 == 1))] for thing in range(80)]
        ]
    ]
    report(records)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "new style, new things, 320 pictures in 4 folds"
    assert "scikit-learn): 0.500 [" in lines[2]
    assert "1 s (apple 0.500" in lines[2]
    assert "0.750 [" in lines[3]
    assert ", +25.0 [" in lines[3]
    low, high = map(float, lines[3].split("+25.0 [")[1].split("]")[0].split(", "))
    # 20 of 80 things differ: the standard error is 4.8 points.
    assert (low, high) == (pytest.approx(15.5, abs=1.5), pytest.approx(34.5, abs=1.5))
