"""The recordings of the two benchmarks of review (alarms, corrections), and their counts."""

import csv
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from benchmarks.sides.field_sounds import KINDS, SPEECH, by_speaker, noise, paste
from benchmarks.sides.paste_sounds import RATE, rms

from benchmarks import correction_loop, false_alarms
from unfreeze.audio.decode import decode


@pytest.fixture
def animals(shared_data, tmp_path):
    """Twelve clips of two classes, so that nothing large is copied."""
    folder = tmp_path / "small"
    for label in ("cow", "dog"):
        (folder / label).mkdir(parents=True)
        for file in sorted((shared_data / "animal-sounds" / label).iterdir())[:6]:
            (folder / label / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.fixture
def digits(shared_data):
    return shared_data / "spoken-digits"


@pytest.mark.parametrize("kind", KINDS)
def test_noise_has_its_level_and_its_colour(kind):
    sound = noise(np.random.default_rng(1), 6, kind, 0.01)
    assert len(sound) == 6 * RATE
    assert rms(sound) == pytest.approx(0.01, rel=1e-3)
    power = np.abs(np.fft.rfft(sound)) ** 2
    low = power[: len(power) // 8].sum() / power.sum()
    assert (low > 0.5) == (kind in ("pink", "brown", "wind", "hum"))


def test_pasted_sounds_are_where_the_truth_says():
    tone = np.sin(np.arange(RATE) * 0.3).astype(np.float32)
    sounds = [(tone, "a"), (tone[:4000], "b"), (np.tile(tone, 20), "c")]
    field = np.zeros(30 * RATE, np.float32)
    truth = paste(field, sounds, np.random.default_rng(2))
    assert sorted(label for *_, label in truth) == ["a", "b", "c"]
    silent = np.ones(len(field), bool)
    for start, end, label in truth:
        inside = slice(round(start * RATE), round(end * RATE))
        silent[inside] = False
        assert 0.09 < np.abs(field[inside]).max() < 0.81
        # Cut to 8 s, and to the sound within whole frames of 10 ms.
        assert end - start == pytest.approx({"a": 1.0, "b": 0.25, "c": 8.0}[label], abs=0.011)
    assert not field[silent].any()
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(truth))


def test_the_recording_of_false_alarms(animals, digits, tmp_path):
    places = [tmp_path / "one", tmp_path / "two"]
    truths = []
    for place in places:
        place.mkdir()
        truths.append(false_alarms.make(animals, digits, place, minutes=1, phrases=3))
    assert truths[0] == truths[1]
    assert (places[0] / "field.wav").read_bytes() == (places[1] / "field.wav").read_bytes()
    with (places[0] / "animals" / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    test = sorted(row["label"] for row in rows if row["split"] == "test")
    assert sorted(label for *_, label in truths[0]) == sorted([*test, *[SPEECH] * 3])
    assert all(0 <= start < end <= 60 for start, end, _ in truths[0])
    assert len(decode(places[0] / "field.wav")) == 60 * RATE
    assert len(list((places[0] / "background").iterdir())) == 36
    assert len(list((places[0] / "negative").iterdir())) == 48


def test_speakers_of_the_recording_are_none_of_the_negatives(digits):
    speakers = by_speaker(digits)
    assert len(speakers) == 6
    assert len({file.stem.split("_")[1] for file in speakers[0]}) == 1
    assert not set(map(tuple, speakers[:4])) & set(map(tuple, speakers[4:]))


TRUTH = [(1.0, 3.0, "dog"), (10.0, 11.0, "cat"), (20.0, 22.0, SPEECH), (30.0, 31.0, "cow")]


@pytest.mark.parametrize(
    ("found", "recall", "alarms", "on_speech"),
    [
        ([], 0, 0, 0),
        ([(1.0, 2.0, "dog"), (10.5, 12.0, "cat"), (30.5, 40.0, "cow")], 1, 0, 0),
        # An animal of another class is no false alarm, and not found either.
        ([(1.0, 2.0, "cat")], 0, 0, 0),
        ([(2.0, 4.0, "dog"), (5.0, 6.0, "dog"), (21.0, 25.0, "cat")], 1 / 3, 4, 2),
    ],
)
def test_false_alarms_are_counted_by_the_hour(found, recall, alarms, on_speech):
    row = false_alarms.counted(TRUTH, found, 0.5)
    assert row == {"recall": recall, "false_alarms": alarms, "on_speech": on_speech}


def test_background_is_left_out_of_the_accuracy():
    scores = {
        "labels": ["background", "cat", "dog"],
        "confusion": [[9, 0, 0], [1, 2, 1], [0, 1, 3]],
    }
    assert false_alarms.accuracy_of_animals(scores) == 5 / 8


def test_the_field_of_the_loop_holds_what_the_first_run_has_not(animals, digits, tmp_path):
    truth = correction_loop.make(animals, digits, tmp_path, seed=0, recordings=2)
    with (tmp_path / "animals" / "manifest.csv").open() as file:
        trained = list(csv.DictReader(file))
    assert set(trained[0]) == {"path", "label", "group"}
    labels = [label for events in truth.values() for *_, label in events]
    assert len(trained) + sum(label != SPEECH for label in labels) == 12
    assert labels.count(SPEECH) == 2 * correction_loop.PHRASES
    assert sorted(truth) == sorted(file.name for file in (tmp_path / "field").iterdir())


@pytest.mark.parametrize(
    ("start", "end", "label"),
    [
        (0.0, 2.0, "dog"),
        (2.9, 4.9, "background"),
        (12.0, 14.0, "background"),
        (20.0, 22.0, "background"),
        (2.0, 10.5, None),
        (10.5, 21.0, None),
    ],
)
def test_a_person_hears_what_is_in_a_clip(start, end, label):
    assert correction_loop.heard(TRUTH, start, end) == label


def test_clips_are_moved_kept_and_deleted(tmp_path):
    (tmp_path / "dog").mkdir()
    times = {"right": (0, 2), "wrong": (30, 32), "speech": (20, 22), "two": (2, 12)}
    segments = []
    for name, (start, end) in times.items():
        (tmp_path / "dog" / name).touch()
        segments.append(
            SimpleNamespace(file=f"dog/{name}", source="x/f.wav", start=start, end=end, label="dog")
        )
    correction_loop.sort_clips(tmp_path, segments, {"f.wav": TRUTH})
    left = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert left == {"dog/right", "cow/wrong", "background/speech"}


def test_the_gain_of_the_animals_is_told_from_that_of_the_background():
    change = {"clips": 10, "before": {"accuracy": 0.5}}
    after = {
        "labels": ["background", "cat", "dog"],
        "confusion": [[2, 0, 0], [1, 2, 1], [0, 1, 3]],
    }
    row = correction_loop.animals_alone(change, after)
    assert row == {"clips": 8, "before": 5 / 8, "after": 5 / 8}
