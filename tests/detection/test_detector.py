import numpy as np
import pytest
import soundfile

import toy
from unfreeze.audio.entries import is_of_silence
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.detection.detector import all_events, hop_steps, make_detector
from unfreeze.detection.events import DetectOptions, Event
from unfreeze.detection.score_blocks import ScoreBlock
from unfreeze.errors import UnfreezeError

FRONT = FrontEnd()


def make(**options):
    return make_detector(FRONT, ["cat"], np.array([0.5]), DetectOptions(**options))


@pytest.mark.parametrize(("hop", "frames"), [(None, 48), (0.48, 48), (0.01, 1), (0.96, 96)])
def test_a_hop_is_whole_frames(hop, frames):
    assert hop_steps(FRONT, hop) == frames


@pytest.mark.parametrize("hop", [0, -0.48, 0.005, 0.485, 0.97, float("nan"), float("inf")])
def test_other_hops_are_refused(hop):
    with pytest.raises(UnfreezeError, match=r"multiple of 0\.01 s, from 0\.01 to 0\.96"):
        hop_steps(FRONT, hop)


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
    starts = np.arange(12) * 0.48
    scores = np.isin(np.arange(12), (5, 6))[:, None] * 0.9
    found = all_events(
        make(window=1.92, min_score=0.59), [ScoreBlock(starts, scores, starts + 0.96)]
    )
    # Windows of three patches score 0, 0.3, 0.6, 0.6, 0.3 and 0, from 0.96 s on.
    assert [(round(e.start, 2), round(e.end, 2)) for e in found] == [(2.98, 3.26)]
    assert found[0].score == pytest.approx(0.6)


def test_smoothing_and_windows_work_together():
    starts = np.arange(40) * 0.48
    scores = np.zeros((40, 1))
    scores[10] = 1.0
    block = ScoreBlock(starts, scores, starts + 0.96)
    assert len(all_events(make(), [block])) == 1
    assert all_events(make(smooth=True), [block]) == []
    assert all_events(make(window=1.92, smooth=True), [block]) == []


def test_nothing_is_heard_in_digital_silence(classifier, tmp_path):
    silence = np.zeros(toy.RATE, np.float32)
    tone = 0.3 * np.sin(6.283 * 250 * np.arange(2 * toy.RATE) / toy.RATE).astype(np.float32)
    wave = np.concatenate([np.tile(silence, 5), tone, np.tile(silence, 5)])
    soundfile.write(tmp_path / "gap.wav", wave, toy.RATE)
    soundfile.write(tmp_path / "nothing.wav", np.tile(silence, 3), toy.RATE)
    # The network itself has a favourite for silence.
    favourite = classifier.predict(tmp_path / "nothing.wav").argmax()
    assert classifier.thresholds[favourite] < classifier.predict(tmp_path / "nothing.wav").max()
    assert classifier.detect(tmp_path / "nothing.wav") == []
    events = classifier.detect(tmp_path / "gap.wav")
    assert events
    assert all(event.start > 4 and event.end < 8 for event in events)
    live = classifier.live()
    found = [event for at in range(0, len(wave), 4000) for event in live.push(wave[at : at + 4000])]
    found = [event for event in [*found, *live.finish()] if isinstance(event, Event)]
    assert found
    assert all(event.start > 4 and event.end < 8 for event in found)
    assert classifier.is_silent(tmp_path / "nothing.wav")
    assert not classifier.is_silent(tmp_path / "gap.wav")
    chances = classifier.predict(tmp_path / "nothing.wav")
    assert classifier.heard(chances) == (classifier.labels[favourite],)
    assert classifier.heard(chances, silent=True) == ()


def test_a_class_of_silence_is_heard_in_silence():
    scores = np.array([[0.9, 0.8], [0.9, 0.8]], np.float32)
    block = ScoreBlock(np.arange(2.0), scores, np.arange(2.0) + 1, np.array([True, False]))
    exempt = np.array([is_of_silence(label) for label in ("cat", "Silence")])
    assert block.without_silence(exempt).scores.tolist() == [[0, np.float32(0.8)], list(scores[1])]
