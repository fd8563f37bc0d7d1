import numpy as np
import pytest

from unfreeze.backbones.frontend import FrontEnd
from unfreeze.detection.detector import all_events, hop_frames, make_detector
from unfreeze.detection.events import DetectOptions, ScoreBlock
from unfreeze.errors import UnfreezeError

FRONT = FrontEnd()


def make(**options):
    return make_detector(FRONT, ["cat"], np.array([0.5]), DetectOptions(**options))


@pytest.mark.parametrize(("hop", "frames"), [(None, 48), (0.48, 48), (0.01, 1), (0.96, 96)])
def test_a_hop_is_whole_frames(hop, frames):
    assert hop_frames(FRONT, hop) == frames


@pytest.mark.parametrize("hop", [0, -0.48, 0.005, 0.485, 0.97, float("nan"), float("inf")])
def test_other_hops_are_refused(hop):
    with pytest.raises(UnfreezeError, match=r"multiple of 0\.01 s, from 0\.01 to 0\.96"):
        hop_frames(FRONT, hop)


@pytest.mark.parametrize("window", [0, 0.48, 1.0, 1.44, -0.96, float("nan")])
def test_a_window_that_the_network_cannot_take_is_refused(window):
    with pytest.raises(UnfreezeError, match=r"give 0\.96 or a multiple"):
        make(window=window)


@pytest.mark.parametrize("score", [0, -1, 1.01, float("nan")])
def test_a_score_that_is_no_probability_is_refused(score):
    with pytest.raises(UnfreezeError, match="above 0 and at most 1"):
        make(min_score=score)


def test_a_longer_window_averages_the_patches_within():
    assert (make(window=1.92).patches, make(window=1.92, hop=0.96).patches) == (3, 2)
    starts = np.arange(6) * 0.48
    block = ScoreBlock(starts, np.array([[0], [0], [0.9], [0.9], [0], [0]]), starts + 0.96)
    found = all_events(make(window=1.92, min_score=0.59), [block])
    # Windows of three patches score 0.3, 0.6, 0.6 and 0.3: all at or above half of 0.59.
    assert [(round(e.start, 2), round(e.end, 2)) for e in found] == [(0.96, 3.36)]
    assert found[0].score == pytest.approx(0.6)


def test_smoothing_and_windows_work_together():
    starts = np.arange(40) * 0.48
    scores = np.zeros((40, 1))
    scores[10] = 1.0
    block = ScoreBlock(starts, scores, starts + 0.96)
    assert len(all_events(make(), [block])) == 1
    assert all_events(make(smooth=True), [block]) == []
    assert all_events(make(window=1.92, smooth=True), [block]) == []
