"""Detectors scored on annotated recordings: counts by hand, curves, what is left out."""

import json

import numpy as np
import pytest
import soundfile

import toy
from toy_detection import scene_samples
from unfreeze.audio.sources import Reading
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.detection.detector import all_events, make_detector
from unfreeze.detection.event_evaluation import THRESHOLDS, Sweep, Tally, summary
from unfreeze.detection.event_scoring import RULES, Rules, Truth, as_spans
from unfreeze.detection.events import DetectOptions, Event
from unfreeze.detection.score_blocks import ScoreBlock
from unfreeze.errors import DataError, UnfreezeError


def detector_of(labels, **options):
    return make_detector(FrontEnd(), labels, np.full(len(labels), 0.5), DetectOptions(**options))


def by_class(events):
    found = {}
    for event in events:
        found.setdefault(event.label, []).append((event.start, event.end))
    return {label: as_spans(spans) for label, spans in found.items()}


@pytest.mark.parametrize("options", [{}, {"smooth": True}, {"window": 1.92}])
def test_a_sweep_finds_at_each_threshold_what_a_detector_finds_there(options):
    rng, labels = np.random.default_rng(3), ["cat", "dog"]
    starts = np.arange(300) * 0.48
    scores = rng.uniform(size=(300, 2)) ** 3
    whole = ScoreBlock(starts, scores.astype(np.float32), starts + 0.96)
    blocks = [whole[part] for part in (slice(0, 1), slice(1, 130), slice(130, 300))]
    levels = [0.1, 0.5, 0.9]
    sweep = Sweep(detector_of(labels, **options), levels)
    for block in blocks:
        sweep.push(block)
    found = sweep.finish()
    assert sweep.seconds == pytest.approx(299 * 0.48 + 0.96)
    for level, events in zip(levels, found, strict=True):
        alone = all_events(detector_of(labels, **options, min_score=level), [whole])
        assert {label: spans.tolist() for label, spans in events.items()} == {
            label: spans.tolist() for label, spans in by_class(alone).items()
        }


def test_the_thresholds_are_even_in_the_odds_and_have_one_half():
    assert 0.5 in THRESHOLDS
    steps = np.diff(np.log(THRESHOLDS / (1 - THRESHOLDS)))
    assert steps == pytest.approx(0.25)
    assert (THRESHOLDS[0], THRESHOLDS[-1]) == pytest.approx((0.0009, 0.9999), abs=5e-5)


def test_the_summary_by_hand():
    labels = ("background", "cat", "dog")
    detector = detector_of(labels)
    tally = Tally.empty(labels[1:], 1 + len(THRESHOLDS))
    cats, dogs = as_spans([(1, 3), (10, 12)]), as_spans([])
    truths = {"cat": Truth(cats), "dog": Truth(dogs, others=cats)}
    right, late = Event(1, 3, "cat", 0.9), Event(10.6, 12, "cat", 0.8)
    wrong, nowhere = Event(10, 12, "dog", 0.7), Event(30, 31, "dog", 0.6)
    all_found = [right, wrong, late, nowhere]
    levels = [by_class(e for e in all_found if e.score >= level) for level in (0.5, *THRESHOLDS)]
    tally.add(truths, levels, 1800.0, Rules())
    tally.add({label: Truth(as_spans([])) for label in labels}, [{} for _ in levels], 1800, Rules())
    found = summary(tally, detector, Rules(), full=True)
    assert (found["recordings"], found["hours"]) == (2, 1.0)
    assert (found["true_events"], found["found_events"]) == (2, 4)
    assert found["false_alarms"] == {"count": 2, "per_hour": 2.0, "on_other_classes": 1}
    cat, dog = found["per_class"]["cat"], found["per_class"]["dog"]
    perfect = {"precision": 1.0, "recall": 1.0, "f1": 1.0, "average_precision": 1.0}
    assert {key: cat["overlap"][key] for key in perfect} == perfect
    assert {key: cat["iou"][key] for key in perfect} == perfect
    assert (cat["onset"]["precision"], cat["onset"]["recall"]) == (0.5, 0.5)
    # At a higher threshold the late one is not there.
    assert cat["onset"]["average_precision"] == 0.5
    assert cat["overlap"]["best_f1"]["f1"] == 1.0
    assert cat["overlap"]["best_f1"]["threshold"] < 0.8
    assert (dog["true_events"], dog["found_events"], dog["false_alarms_per_hour"]) == (0, 2, 2.0)
    assert dog["overlap"] == {
        "precision": 0.0,
        "recall": None,
        "f1": 0.0,
        "average_precision": None,
        "best_f1": None,
    }
    overall = found["overall"]["overlap"]
    assert (overall["precision"], overall["recall"]) == (0.5, 1.0)
    assert overall["f1"] == pytest.approx(2 / 3)
    # Means are of the classes that occur.
    assert (overall["macro_f1"], overall["mean_average_precision"]) == (1.0, 1.0)
    # No false alarm on cats; dogs, which are not there, do not count.
    assert found["psds"] == 1.0
    segments = found["per_class"]["cat"]["segments"]
    assert (segments["precision"], segments["recall"]) == (1.0, 1.0)
    curves = found["curves"]
    assert len(curves["thresholds"]) == len(THRESHOLDS)
    alarms = curves["per_class"]["dog"]["false_alarms_per_hour"]
    assert alarms == [2.0 * (t < 0.6) or 1.0 * (t <= 0.7) for t in THRESHOLDS]
    assert curves["overall"]["overlap"]["recall"][-1] == 0.0
    assert curves["overall"]["overlap"]["precision"][-1] is None
    json.dumps(found, allow_nan=False)
    # What is found where nothing is annotated is not known: no false alarms an hour.
    partly = summary(tally, detector, Rules(), full=False)
    assert partly["false_alarms"]["per_hour"] is None
    assert partly["psds"] is None
    assert partly["per_class"]["dog"]["false_alarms_per_hour"] is None


@pytest.fixture
def field(scene, tmp_path):
    """The toy recording, a recording of nothing but noise, and a table for both."""
    folder = tmp_path / "field"
    folder.mkdir()
    (folder / "scene.wav").write_bytes(scene.read_bytes())
    soundfile.write(folder / "noise.wav", scene_samples()[: 4 * toy.RATE], toy.RATE)
    table = tmp_path / "all.csv"
    rows = [
        (5, 8, "high"),
        (12, 14.5, "low"),
        (0, 5, "noise"),
        (8, 12, "noise"),
        (14.5, 20, "noise"),
    ]
    table.write_text(
        "path,start,end,label\n" + "".join(f"scene.wav,{s},{e},{label}\n" for s, e, label in rows)
    )
    return folder, table


@pytest.mark.on_each_backend
def test_a_classifier_is_scored_as_a_detector(classifier, field):
    recordings, table = field
    found = classifier.evaluate_events(recordings, table)
    assert found["recordings"] == 2
    assert found["hours"] == pytest.approx(24 / 3600)
    assert found["true_events"] == 5
    for label in ("high", "low"):
        row = found["per_class"][label]
        assert (row["true_events"], row["overlap"]["f1"], row["iou"]["f1"]) == (1, 1.0, 1.0)
        assert row["overlap"]["average_precision"] == 1.0
    # All of the other recording is one long event of noise, and that is a false alarm.
    noise = found["per_class"]["noise"]
    assert noise["overlap"]["recall"] == 1.0
    wrong = noise["found_events"] - round(noise["overlap"]["precision"] * noise["found_events"])
    assert wrong >= 1
    assert noise["false_alarms_per_hour"] == pytest.approx(wrong / (24 / 3600))
    assert found["false_alarms"]["count"] == wrong
    assert any("1 recording without a row" in note for note in found["notes"])
    assert found["problems"] == []
    assert list(found["overall"]) == list(RULES)
    assert found == classifier.evaluate_events(recordings, table)


def test_its_events_are_those_of_detect(classifier, field, tmp_path):
    recordings, table = field
    options = {"hop": 0.24, "min_score": 0.8, "smooth": True}
    events = classifier.detect(recordings / "scene.wav", **options)
    found = classifier.evaluate_events(
        recordings / "scene.wav", table, DetectOptions(**options, merge=False)
    )
    assert found["found_events"] == len(events)
    assert found["settings"]["hop"] == 0.24
    assert found["settings"]["smooth"]
    assert set(found["settings"]["thresholds"].values()) == {0.8}
    # What it finds itself is the truth of a perfect detector, at its threshold.
    rows = [f"scene.wav,{e.start!r},{e.end!r},{e.label}" for e in events]
    (tmp_path / "own.csv").write_text("\n".join(["path,start,end,label", *rows]))
    own = classifier.evaluate_events(
        recordings / "scene.wav", tmp_path / "own.csv", DetectOptions(**options)
    )
    for rule in RULES:
        assert own["overall"][rule]["f1"] == 1.0, rule
    assert own["false_alarms"]["count"] == 0


def test_classes_that_the_model_does_not_know_are_no_misses(classifier, field, tmp_path):
    recordings, table = field
    before = classifier.evaluate_events(recordings, table)
    table.write_text(f"{table.read_text()}scene.wav,16,17,fox\n")
    found = classifier.evaluate_events(recordings, table)
    assert found["unknown_classes"] == {"fox": 1}
    assert any("does not know these annotated classes, not counted: fox (1)" in note
               for note in found["notes"])  # fmt: skip
    assert found["overall"] == before["overall"]
    table.write_text("path,start,end,label\nscene.wav,16,17,fox\n")
    with pytest.raises(DataError, match="none of the annotated classes, fox"):
        classifier.evaluate_events(recordings, table)


def test_an_incomplete_annotation_is_judged_where_it_is(classifier, field):
    recordings, table = field
    table.write_text("path,start,end,label\nscene.wav,5,8,high\nscene.wav,12,14.5,low\n")
    full = classifier.evaluate_events(recordings, table)
    partly = classifier.evaluate_events(recordings, table, how=Reading(full=False))
    assert full["overall"]["overlap"]["precision"] < 1
    assert partly["overall"]["overlap"]["precision"] == 1
    assert partly["overall"]["overlap"]["recall"] == 1
    assert (partly["recordings"], partly["annotated"]) == (1, "partly")
    assert partly["false_alarms"] == {"count": 0, "per_hour": None, "on_other_classes": 0}
    assert [problem["path"] for problem in partly["problems"]] == [str(recordings / "noise.wav")]
    with pytest.raises(
        DataError, match=r"strict allows none.*noise\.wav: no table of sounds names it"
    ):
        classifier.evaluate_events(recordings, table, how=Reading(full=False), strict=True)


def test_recordings_that_cannot_be_read_are_left_out(classifier, field):
    recordings, table = field
    (recordings / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"1 of the recordings .*more than the 10 % allowed"):
        classifier.evaluate_events(recordings, table)
    found = classifier.evaluate_events(recordings, table, max_bad=0.5)
    assert found["recordings"] == 2
    (problem,) = found["problems"]
    assert problem["path"].endswith("broken.wav")
    assert "broken.wav" not in problem["cause"]
    with pytest.raises(DataError, match="strict allows none"):
        classifier.evaluate_events(recordings, table, max_bad=0.5, strict=True)


def test_progress_is_told_in_bytes_and_settings_are_checked_first(classifier, field):
    recordings, table = field
    told = []
    classifier.evaluate_events(recordings, table, progress=lambda *x: told.append(x))
    total = sum(file.stat().st_size for file in recordings.iterdir())
    assert told[-1] == (total, total)
    assert {whole for _, whole in told} == {total}
    with pytest.raises(UnfreezeError, match=r"hop of 5 s cannot be used"):
        classifier.evaluate_events(recordings / "nowhere", table, DetectOptions(hop=5))
