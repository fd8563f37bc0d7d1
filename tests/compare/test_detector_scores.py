"""Strategies ranked as detectors: scores by hand, intervals, real runs, what is refused."""

import json

import numpy as np
import pytest

import toy
from comparing import record
from unfreeze.audio.rules import content_hash
from unfreeze.audio.segments_file import SEGMENTS_NAME, Segment, SegmentsFile, write_segments
from unfreeze.compare.comparison import compare, write_report
from unfreeze.compare.detector_scores import Found, detection_scores, read_found
from unfreeze.compare.strategies import CompareOptions
from unfreeze.compare.summary import summarize, verdict
from unfreeze.errors import DataError, RunError
from unfreeze.pipeline.train_options import TrainOptions
from unfreeze.planning import event_judge

STRATEGY = "probe"


def found_of(rights, wrongs, true=4):
    """One class; in each recording so many events right and wrong, at two levels alike."""
    pairs = zip(rights, wrongs, strict=True)
    rows = [[[[true, right + wrong, right, right]] * 2] for right, wrong in pairs]
    names = tuple(f"r{n}.wav" for n in range(len(rights)))
    return Found(("cat",), names, (1800.0,) * len(names), np.array(rows))


def detected(strategy, seed, rights, wrongs):
    made = record(strategy, seed, right=[1, 0])
    return made | {"detection": found_of(rights, wrongs).as_plain()}


def test_counts_are_kept_as_they_are():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 2, (3, 2, 9, 4)) * rng.integers(0, 2, (3, 2, 1, 1))
    found = Found(("cat", "dog"), ("a", "b", "c"), (1.0, 2.5, 3.0), counts)
    again = read_found(json.loads(json.dumps(found.as_plain())))
    np.testing.assert_array_equal(again.counts, counts)
    assert (again.labels, again.recordings) == (found.labels, found.recordings)
    assert again.seconds == found.seconds


def test_scores_by_hand():
    # 6 of 8 sounds are found; 2 of 8 events are wrong, in an hour.
    scores = detection_scores([[detected("a", 0, [4, 2], [1, 1])]])
    assert scores.means["f1"] == pytest.approx(0.75)
    assert scores.means["false_alarms_per_hour"] == pytest.approx(2.0)
    assert scores.means["mean_average_precision"] == pytest.approx(0.75 * 0.75)
    two = detection_scores([[detected("a", 0, [4, 2], [1, 1]), detected("a", 1, [4, 4], [0, 0])]])
    assert two.means["mean_average_precision"] == pytest.approx((0.75 * 0.75 + 1) / 2)


def test_recordings_and_seeds_are_drawn_and_differences_are_paired():
    rng = np.random.default_rng(1)
    hard = rng.integers(0, 3, 12)
    runs = [
        [detected(name, seed, 4 - hard + better - 1, [0] * 12) for seed in range(3)]
        for name, better in (("good", 1), ("poor", 0))
    ]
    found = detection_scores(runs)
    draws = found.draws["mean_average_precision"]
    assert draws.shape == (2, 2000)
    assert draws[0].std() > 0.03
    # Each recording is a sound better: draws of hard ones are hard for both.
    assert (draws[0] - draws[1]).std() < 1e-9
    assert (draws[0] - draws[1]).mean() == pytest.approx(0.25)


def test_strategies_are_ranked_by_the_recordings(tmp_path):
    records = [
        detected(name, seed, rights, [0] * 6) | ({"scores": record(name, right=hits)["scores"]})
        for name, rights, hits in (("poor", [2] * 6, [1, 1]), ("good", [3] * 6, [1, 0]))
        for seed in range(3)
    ]
    found = summarize(records, ["poor", "good"], grouped=False, planned=6)
    assert (found.ranked_by, found.recordings) == ("recordings", 6)
    assert [row.strategy for row in found.rows] == ["good", "poor"]
    assert found.rows[0].scores["recordings"].accuracy == pytest.approx(0.75)
    assert found.rows[0].detection["f1"].accuracy == pytest.approx(6 / 7)
    assert verdict(found)[0].startswith(
        "good is better than poor by 25.0 points of mean average precision [25.0, 25.0] in the "
        "annotated recordings; on held-out clips "
    )
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "one.json").write_text(json.dumps(records[0]))
    write_report(tmp_path, found, records)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "good has the highest mean average precision in the annotated recordings" in page
    assert "mean AP of events" in page
    assert "6 annotated recordings" in page
    assert "| good | 0.750 [0.750, 0.750] |" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "detection.png").is_file()
    one = summarize(
        [detected(name, 0, rights, [0]) for name, rights in (("a", [2]), ("b", [3]))],
        ["a", "b"], grouped=False, planned=2,
    )  # fmt: skip
    assert not one.differences[0].told_apart
    assert any("a single annotated recording" in note for note in one.notes)
    assert "(+25.0 points of mean average precision)" in verdict(one)[0]
    json.dumps(one.as_plain(), allow_nan=False)


@pytest.fixture
def field(tmp_path):
    """Two annotated recordings that no clip comes from."""
    for number in range(2):
        toy.write_annotated(tmp_path / "field", 20, seed=7 + number, name=f"site{number}")
    return tmp_path / "field"


def options(sounds, tmp_path):
    train = TrainOptions(sounds, backbone="toy")
    return CompareOptions(train, tmp_path / "out", (STRATEGY,), 1), train


def test_real_runs_search_the_recordings(sounds, field, tmp_path):
    chosen, train = options(sounds, tmp_path)
    found = compare(chosen, make_judge=event_judge(train, field, field))
    (row,) = found.rows
    # Tones above faint noise are easy.
    assert row.scores["recordings"].accuracy > 0.8
    (file,) = (tmp_path / "out" / "runs").iterdir()
    kept = json.loads(file.read_text())["detection"]
    assert kept["recordings"] == ["site0.wav", "site1.wav"]
    assert kept["labels"] == ["high", "low", "noise"]
    assert kept["mean_average_precision"] == pytest.approx(row.scores["recordings"].accuracy)
    # The same model by `train` has the same scores, by the command of `evaluate`.
    import unfreeze

    trained = unfreeze.SoundClassifier.train(sounds, STRATEGY, backbone="toy", seed=0)
    scores = trained.evaluate_events(field, field)
    overlap = scores["overall"]["overlap"]
    assert overlap["mean_average_precision"] == pytest.approx(kept["mean_average_precision"])
    assert overlap["f1"] == pytest.approx(kept["f1"])
    per_hour = scores["false_alarms"]["per_hour"]
    assert per_hour == pytest.approx(kept["false_alarms_per_hour"])
    # Again: nothing is run; without the recordings it is another comparison, and so it is
    # with other tables.
    assert compare(chosen, make_judge=event_judge(train, field, field), most=0).rows == found.rows
    with pytest.raises(RunError, match=r"detect was '2 recordings, \d+ sounds, .*' and is None"):
        compare(chosen)
    table = next(field.glob("*.txt"))
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(RunError, match="detect was"):
        compare(chosen, make_judge=event_judge(train, field, field))


def test_recordings_that_are_trained_on_are_refused(sounds, field, tmp_path, faked):
    chosen, train = options(sounds, tmp_path)
    (sounds / "high" / "copy.wav").write_bytes((field / "site1.wav").read_bytes())
    with pytest.raises(DataError, match=r"in the data to train on, too.*site1\.wav\. A model"):
        compare(chosen, make_judge=event_judge(train, field, field))
    (sounds / "high" / "copy.wav").unlink()
    source = content_hash(field / "site0.wav")
    cut = Segment("high/high_0.wav", "0" * 64, "site0.wav", source, 1.0, 2.0, "high", 0.9, 0.8)
    write_segments(sounds, SegmentsFile("run", "segments", ("high",), (cut,)))
    with pytest.raises(DataError, match=r"its clips were cut from them: .*site0\.wav\. A model"):
        compare(chosen, make_judge=event_judge(train, field, field))
    (sounds / SEGMENTS_NAME).unlink()
    with pytest.raises(DataError, match="nowhere does not exist"):
        event_judge(train, field, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "site0.txt").write_text("")
    with pytest.raises(DataError, match="names no sound of the classes"):
        compare(chosen, make_judge=event_judge(train, field / "site0.wav", tmp_path / "empty"))
    assert faked.calls == []


def test_a_damaged_detection_is_named(sounds, field, tmp_path, faked):
    chosen, train = options(sounds, tmp_path)
    judge = event_judge(train, field, field)
    compare(chosen, make_judge=judge)
    (file,) = (tmp_path / "out" / "runs").iterdir()
    whole = json.loads(file.read_text())
    for damage in ({"cells": [[9, 0, [[0, 1, 1, 1, 1]]]]}, {"seconds": []}, {"levels": "x"}):
        made = found_of([1], [0]).as_plain() | damage
        file.write_text(json.dumps(whole | {"detection": made}))
        with pytest.raises(RunError, match="is not a record of a run"):
            compare(chosen, make_judge=judge)
