import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unfreeze.detection.score_blocks import MedianOfThree, ScoreBlock, WindowMeans


def run(stage, scores, cuts):
    """All that a stage gives for patches 0.5 s apart that come in pieces."""
    starts = np.arange(len(scores)) * 0.5
    given = []
    for part in np.split(np.arange(len(scores)), sorted(min(c, len(scores)) for c in cuts)):
        if len(part):
            given.append(stage.push(ScoreBlock(starts[part], scores[part], starts[part] + 1)))
    rest = stage.finish()
    given += [] if rest is None else [rest]
    return [np.concatenate([getattr(b, n) for b in given]) for n in ("starts", "scores", "ends")]


columns = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30)
places = st.lists(st.integers(0, 30), max_size=8)


@settings(deadline=None)
@given(values=columns, cuts=places)
def test_the_median_is_of_a_patch_and_its_neighbours(values, cuts):
    scores = np.array(values, np.float32)[:, None]
    starts, smooth, ends = run(MedianOfThree(), scores, cuts)
    np.testing.assert_array_equal(starts, np.arange(len(values)) * 0.5)
    np.testing.assert_array_equal(ends, starts + 1)
    expected = [
        values[i] if i in (0, len(values) - 1) else sorted(values[i - 1 : i + 2])[1]
        for i in range(len(values))
    ]
    np.testing.assert_array_equal(smooth[:, 0], np.array(expected, np.float32))


@settings(deadline=None)
@given(values=columns, cuts=places, count=st.integers(1, 6))
def test_a_window_is_the_mean_of_its_patches(values, cuts, count):
    scores = np.array(values, np.float32)[:, None]
    starts, means, ends = run(WindowMeans(count), scores, cuts)
    windows = max(len(values) - count + 1, 1)
    expected = [np.mean(values[i : i + count]) for i in range(windows)]
    np.testing.assert_allclose(means[:, 0], expected, atol=1e-6)
    np.testing.assert_array_equal(starts, np.arange(windows) * 0.5)
    last = [min(i + count, len(values)) - 1 for i in range(windows)]
    np.testing.assert_array_equal(ends, np.array(last) * 0.5 + 1)


@pytest.mark.parametrize("stage", [MedianOfThree(), WindowMeans(3)])
def test_nothing_in_nothing_out(stage):
    assert stage.finish() is None
