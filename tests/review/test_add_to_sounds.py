"""Sounds in recordings, and clips with several labels, added to an earlier run."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

import toy
import unfreeze
from unfreeze.audio.entries import Entry
from unfreeze.audio.rules import Facts
from unfreeze.audio.segments_file import Segment
from unfreeze.errors import DataError
from unfreeze.review.add_to import grouped_with, merge

RATE = toy.RATE


def sound(name, start, end, content="site", split="train", group=None, label="dog"):
    group = group or f"{content} {start}"
    entry = Entry(Path(name), Path(name), label, group, split, start=start, end=end)
    return entry, Facts(content, 60.0, RATE, 1)


OLD = [
    sound("site.wav", 2.0, 3.0, split="train"),
    sound("site.wav", 10.0, 12.0, split="train"),
    sound("site.wav", 20.0, 21.0, split="test"),
    sound("other.wav", 5.0, 6.0, content="other", split="test", group="all of it"),
]


def placed(new, segment=None):
    return grouped_with([new], {new[0].path: segment}, OLD, None)


@pytest.mark.parametrize(
    ("start", "end", "group"),
    [
        (0.0, 1.0, "site 2.0"),
        (4.0, 6.0, "site 2.0"),
        (11.0, 11.5, "site 2.0"),
        (30.0, 31.0, "site 20.0"),
        (14.0, 15.0, None),
        (11.5, 20.5, None),
        (12.6, 13.0, None),
        (12.3, 12.4, "site 2.0"),
    ],
)
def test_a_stretch_of_a_recording_of_the_run_joins_the_sounds_around_it(start, end, group):
    new = sound("copy.wav", start, end, split=None)
    if group is None:
        found, (problem,) = placed(new)
        assert found == []
        assert (problem.rule, problem.fatal) == ("between_parts", False)
        return
    ((entry, _),), problems = placed(new)
    assert problems == []
    around = {one.group: one.split for one, _ in OLD}
    assert around[entry.group] == around[group]
    assert entry.split is None


def test_segments_and_whole_copies_follow_the_recording_that_they_are_of():
    cut = Segment("dog/1.wav", "x", "/field/site.wav", "site", 4.0, 6.0, "dog", 0.9, 0.8)
    new = (Entry(Path("1.wav"), Path("1.wav"), "dog"), Facts("cut", 2.0, RATE, 1))
    ((entry, _),), _ = placed(new, cut)
    assert entry.group in ("site 2.0", "site 10.0")
    whole = (Entry(Path("2.wav"), Path("2.wav"), "dog"), Facts("other", 60.0, RATE, 1))
    ((entry, _),), _ = placed(whole)
    assert entry.group == "all of it"
    site = (Entry(Path("3.wav"), Path("3.wav"), "dog"), Facts("site", 60.0, RATE, 1))
    assert placed(site)[0] == []


def test_sounds_of_one_recording_are_no_copies_of_each_other():
    new = [sound("copy.wav", 2.0, 3.0, label="cat"), sound("copy.wav", 20.0, 21.0, label="cat")]
    merged = merge(OLD, new)
    assert merged.counts == {"repeated": 0, "relabelled": 1, "disputed": 1}
    assert [(e.label, e.start) for e, _ in merged.recordings][:3] == [
        ("cat", 2.0), ("dog", 10.0), ("dog", 20.0),
    ]  # fmt: skip


def rows_of(run):
    return list(csv.DictReader((run / "splits.csv").open()))


@pytest.fixture(scope="module")
def annotated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    with pytest.MonkeyPatch.context() as monkeypatch:
        toy.register(monkeypatch, folder)
        toy.write_annotated(folder / "field", seconds=60)
        unfreeze.SoundClassifier.train(
            folder / "field", "probe", folder / "run", backbone="toy", annotated="fully"
        )
        for seed in range(4):
            toy.write_annotated(folder / "more", 20, seed + 1, name=f"new-{seed}")
        yield folder


def test_annotated_recordings_are_added_to_annotated_ones(annotated):
    trained = unfreeze.SoundClassifier.train(
        annotated / "more", out=annotated / "new", add_to=annotated / "run"
    )
    before, after = rows_of(annotated / "run"), rows_of(annotated / "new")
    kept = [row for row in after if row["added"] == "no"]
    names = ("label", "group", "split", "start", "end")
    assert [[row[n] for n in names] for row in kept] == [[row[n] for n in names] for row in before]
    added = [row for row in after if row["added"] == "yes"]
    # What lies between their sounds is background, as in the run; no recording is in two parts.
    assert {row["label"] for row in added} == {"high", "low", "background"}
    parts = {}
    for row in added:
        parts.setdefault(row["group"], set()).add(row["split"])
    assert len(parts) == 4
    assert all(len(own) == 1 for own in parts.values())
    assert trained.metrics["change"]["test"]["clips"] > 0
    assert trained.metrics["corrected"]["clips"] > 0


def test_clips_with_several_labels_are_added_to_such_ones(tmp_path, monkeypatch):
    toy.register(monkeypatch, tmp_path)
    toy.write_mixed(tmp_path / "data", clips=40)
    unfreeze.SoundClassifier.train(tmp_path / "data", "probe", tmp_path / "run", backbone="toy")
    toy.write_mixed(tmp_path / "more", clips=20, seed=1)
    trained = unfreeze.SoundClassifier.train(
        tmp_path / "more", out=tmp_path / "new", add_to=tmp_path / "run"
    )
    assert trained.multilabel
    change = trained.metrics["change"]["test"]
    assert list(change["difference"]) == ["mean_average_precision"]
    assert change["after"]["mean_average_precision"] > 0.6
    assert change["clips"] == trained.metrics["test"]["clips"]
    assert trained.metrics["corrected"]["multilabel"]
    assert trained.metrics["change"]["corrections"]["new_classes"] == ()
    labels = {row["label"] for row in rows_of(tmp_path / "new") if row["added"] == "yes"}
    assert {"", "high;low"} <= labels


def test_several_labels_are_not_added_to_one(annotated, tmp_path):
    rng = np.random.default_rng(0)
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", rng.normal(0, 0.1, RATE), RATE)
    (tmp_path / "manifest.csv").write_text("path,label\na.wav,high;low\nb.wav,low\n")
    with pytest.raises(DataError, match="was trained on clips with one label each"):
        unfreeze.SoundClassifier.train(tmp_path, out=tmp_path / "x", add_to=annotated / "run")
