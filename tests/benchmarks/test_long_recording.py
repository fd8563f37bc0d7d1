"""Real clips that the model never heard, pasted into noise, are found again where they are."""

import numpy as np
import pytest
from benchmarks.event_scores import event_scores, false_alarms
from benchmarks.long_recording import clips_of
from benchmarks.sides.paste_sounds import RATE, trimmed, truth_of, write_recording

import unfreeze
from unfreeze.audio.decode import decode


@pytest.mark.slow
def test_clips_pasted_into_noise_are_found(shared_data, yamnet_weights, tmp_path):
    data = shared_data / "animal-sounds"
    classifier = unfreeze.SoundClassifier.train(data, "head_only", tmp_path / "run", epochs=10)
    clips = clips_of(data, tmp_path / "run", "test")
    truth = write_recording(tmp_path / "long.wav", clips, minutes=6, seed=0)
    events = classifier.detect(tmp_path / "long.wav")
    found = [(e.start, e.end, e.label) for e in events]
    scores = event_scores(truth, found)
    # Far below the numbers of docs/detection.md: a head of ten epochs, 20 events.
    assert scores["overlap"]["recall"] >= 0.65
    assert scores["onset"]["recall"] >= 0.35
    assert all(0 <= e.start < e.end <= 360 for e in events)


@pytest.fixture
def clips(shared_data):
    return [(path, "dog") for path in sorted((shared_data / "animal-sounds" / "dog").iterdir())[:5]]


def test_the_truth_says_where_the_sound_is(clips, tmp_path):
    path = tmp_path / "a.wav"
    truth = write_recording(path, clips, minutes=2, seed=3)
    again = write_recording(tmp_path / "b.wav", clips, minutes=2, seed=3)
    assert truth == again
    assert path.read_bytes() == (tmp_path / "b.wav").read_bytes()
    sound = decode(path)
    assert len(sound) == 120 * RATE
    assert len(truth_of(path).read_text().splitlines()) == len(truth) + 1
    quiet = np.ones(len(sound), bool)
    for start, end, _ in truth:
        inside = slice(int(start * RATE), int(end * RATE))
        quiet[inside] = False
        assert np.sqrt(np.mean(sound[inside] ** 2)) > 0.02
    assert np.sqrt(np.mean(sound[quiet] ** 2)) == pytest.approx(0.003, rel=0.1)


def test_a_clip_is_trimmed_to_its_sound():
    quiet, loud = np.zeros(1600), np.ones(3200)
    assert len(trimmed(np.concatenate([quiet, loud, quiet]))) == 3200


TRUTH = [(1.0, 3.0, "dog"), (10.0, 11.0, "cat")]


@pytest.mark.parametrize(
    ("found", "overlap", "iou", "onset"),
    [
        ([], (0, 0), (0, 0), (0, 0)),
        ([(1.0, 3.0, "dog"), (10.0, 11.0, "cat")], (1, 1), (1, 1), (1, 1)),
        # Two events for one: both right by overlap, one of them by the others.
        ([(1.0, 2.1, "dog"), (2.2, 3.0, "dog")], (0.5, 1), (0.5, 0.5), (0.5, 0.5)),
        ([(1.6, 3.0, "dog")], (0.5, 1), (0.5, 1), (0, 0)),
        ([(1.0, 3.0, "cat"), (10.9, 20.0, "cat")], (0.5, 0.5), (0, 0), (0, 0)),
    ],
)
def test_events_are_matched_by_each_rule(found, overlap, iou, onset):
    scores = event_scores(TRUTH, found)
    for rule, expected in (("overlap", overlap), ("iou", iou), ("onset", onset)):
        assert (scores[rule]["recall"], scores[rule]["precision"]) == expected, rule


def test_false_alarms_are_told_apart():
    found = [(1.0, 2.0, "dog"), (2.0, 4.0, "cat"), (5.0, 6.0, "cat")]
    assert false_alarms(TRUTH, found) == (1, 1)
