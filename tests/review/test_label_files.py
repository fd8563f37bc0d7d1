"""Labels as files, and files as training data."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from unfreeze.audio.annotations import read_sounds
from unfreeze.audio.segments_file import read_segments
from unfreeze.audio.sources import Reading, find_source
from unfreeze.errors import DataError, RunError
from unfreeze.review.label_files import (
    ANSWERS_NAME,
    LABELS_NAME,
    export_labels,
    training_rows,
    write_training_table,
)
from unfreeze.review.label_store import Answer, LabelStore

LABELS = ("background", "cat", "dog")


def decide(folder, rows, tmp_path):
    """A store with decisions: (file, start, answer, label), all asked for as dog."""
    store = LabelStore(folder, {})
    for name, start, answer, label in rows:
        file = tmp_path / name
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(0).normal(0, 0.1, 16_000 * 12)
            soundfile.write(file, noise, 16_000, "PCM_16")
        store.decide(Answer(file, start, start + 3.0, answer, label, "dog", 0.8, "quota", "a"))
    return store


ROWS = [
    ("b/site.wav", 3.0, "yes", "dog"),
    ("a/site.wav", 6.0, "other", "cat"),
    ("a/site.wav", 0.0, "no", None),
    ("a/site.wav", 3.0, "other", "background"),
    ("a/site.wav", 9.0, "unsure", None),
    ("b/site.wav", 9.0, "skip", None),
]


def test_only_what_says_what_is_heard_is_trained_on(tmp_path):
    store = decide(tmp_path / "review", ROWS, tmp_path)
    rows = training_rows(store.decisions(), LABELS, several=False)
    assert [(path.parent.name, start, label) for path, start, _, label in rows] == [
        ("a", 3.0, "background"), ("a", 6.0, "cat"), ("b", 3.0, "dog"),
    ]  # fmt: skip


def test_where_each_class_is_judged_a_no_says_that_it_is_not_heard(tmp_path):
    store = decide(tmp_path / "review", ROWS, tmp_path)
    labels = ("bird", "cat", "dog")
    rows = training_rows(store.decisions(), labels, several=True)
    assert [(path.parent.name, start, label) for path, start, _, label in rows] == [
        # Not a dog; none; a cat and no dog; a dog.
        ("a", 0.0, "bird?;cat?"), ("a", 3.0, "background"), ("a", 6.0, "cat;bird?"),
        ("b", 3.0, "dog;bird?;cat?"),
    ]  # fmt: skip


def test_of_a_class_that_was_added_nothing_is_said_in_other_clips(tmp_path):
    rows = [
        ("a.wav", 0.0, "yes", "dog"),
        ("a.wav", 3.0, "other", "owl"),
        ("a.wav", 6.0, "no", None),
    ]
    store = decide(tmp_path / "review", rows, tmp_path)
    found = training_rows(store.decisions(), ("cat", "dog"), several=True)
    assert [row[3] for row in found] == ["dog;cat?;owl?", "owl;cat?", "cat?;owl?"]


def test_a_no_to_the_only_class_is_a_clip_without_one(tmp_path):
    rows = [("a.wav", 0.0, "yes", "dog"), ("a.wav", 3.0, "no", None)]
    store = decide(tmp_path / "review", rows, tmp_path)
    table = tmp_path / "labels.csv"
    assert write_training_table(table, store.decisions(), ("dog",), several=True) == 2
    assert [e.label for e in find_source(table, how=Reading()).entries] == ["dog", "background"]


def test_the_table_is_read_as_training_data(tmp_path):
    store = decide(tmp_path / "review", ROWS, tmp_path)
    table = tmp_path / "review" / "labels.csv"
    assert write_training_table(table, store.decisions(), LABELS, several=False) == 3
    with table.open() as rows:
        assert next(csv.reader(rows)) == ["recording", "start", "end", "label"]
    source = find_source(table, how=Reading())
    assert [(e.path, e.start, e.end, e.label) for e in source.entries] == [
        (tmp_path / "a" / "site.wav", 3.0, 6.0, "background"),
        (tmp_path / "a" / "site.wav", 6.0, 9.0, "cat"),
        (tmp_path / "b" / "site.wav", 3.0, 6.0, "dog"),
    ]
    several = tmp_path / "review" / "several.csv"
    assert write_training_table(several, store.decisions(), LABELS[1:], several=True) == 4
    labels = [entry.label for entry in find_source(several, how=Reading()).entries]
    assert labels == [";cat?", "", "cat", "dog;cat?"]


def export(kind, store, folder):
    return export_labels(
        kind, folder, store.history(), labels=LABELS, several=False, run=Path("/run"),
        command="unfreeze review", hears=(125.0, 7500.0),
    )  # fmt: skip


def test_csv_has_the_labels_and_all_answers(tmp_path):
    store = decide(tmp_path / "review", ROWS, tmp_path)
    store.undo("a")
    place, count = export("csv", store, tmp_path / "review")
    assert (place, count) == (tmp_path / "review" / LABELS_NAME, 3)
    with (tmp_path / "review" / ANSWERS_NAME).open(newline="") as file:
        answers = list(csv.DictReader(file))
    assert [row["answer"] for row in answers] == [row[2] for row in ROWS]
    assert [row["ended_by"] for row in answers] == [""] * 5 + ["undo"]
    assert answers[0]["recording"] == str(tmp_path / "b" / "site.wav")
    assert float(answers[0]["score"]) == 0.8


def test_raven_tables_lie_as_the_recordings_do(tmp_path):
    store = decide(tmp_path / "review", ROWS, tmp_path)
    place, count = export("raven", store, tmp_path / "review")
    assert count == 3
    tables = sorted(place.rglob("*.txt"))
    assert [table.relative_to(place).as_posix() for table in tables] == [
        "a/site.wav.selections.txt", "b/site.wav.selections.txt",
    ]  # fmt: skip
    entries, _ = read_sounds(tables[0], recording=tmp_path / "a" / "site.wav")
    assert [(e.start, e.end, e.label) for e in entries] == [
        (3.0, 6.0, "background"), (6.0, 9.0, "cat"),
    ]  # fmt: skip
    assert (entries[0].low, entries[0].high) == (125.0, 7500.0)


def test_class_folders_hold_the_clips_and_where_they_are_from(tmp_path):
    store = decide(tmp_path / "review", ROWS, tmp_path)
    place, count = export("folders", store, tmp_path / "review")
    assert count == 3
    clips = sorted(place.glob("*/*.wav"))
    assert [clip.parent.name for clip in clips] == ["background", "cat", "dog"]
    cut, _ = soundfile.read(clips[1], dtype="int16")
    whole, _ = soundfile.read(tmp_path / "a" / "site.wav", dtype="int16")
    assert np.array_equal(cut, whole[6 * 16_000 : 9 * 16_000])
    segments = read_segments(place).segments
    assert [Path(one.source).parent.name for one in segments] == ["a", "a", "b"]
    # Another export takes another folder: what you moved in the first stays.
    assert export("folders", store, tmp_path / "review")[0].name == "clips-2"


def test_a_review_without_labels_gives_empty_files(tmp_path):
    store = LabelStore(tmp_path / "review", {})
    for kind in ("csv", "raven", "folders"):
        place, count = export(kind, store, tmp_path / "review")
        assert count == 0
        assert place.exists()


def test_clips_of_recordings_that_are_gone_are_said_before_anything_is_cut(tmp_path):
    store = decide(tmp_path / "review", ROWS, tmp_path)
    (tmp_path / "b" / "site.wav").unlink()
    with pytest.raises(DataError, match=r"1 of 2 recordings are missing, such as .*site\.wav"):
        export("folders", store, tmp_path / "review")
    for kind in ("csv", "raven"):
        assert export(kind, store, tmp_path / "review")[1] == 3
    assert not (tmp_path / "review" / "clips").exists()


def test_what_cannot_be_written_is_said(tmp_path):
    store = decide(tmp_path / "review", ROWS, tmp_path)
    (tmp_path / "review" / LABELS_NAME).mkdir()
    with pytest.raises(RunError, match="They are kept in the review"):
        export("csv", store, tmp_path / "review")


def test_names_of_classes_stay_inside_the_folder(tmp_path):
    labels = ["../up", "..", ".", "a/b", "a\\b", "=1+1", "<b>", "dog.", "CON", "nul.x", "%"]
    rows = [("a/site.wav", float(n), "other", label) for n, label in enumerate(labels)]
    store = LabelStore(tmp_path / "review", {})
    file = tmp_path / "site.wav"
    soundfile.write(file, np.random.default_rng(0).normal(0, 0.1, 16_000 * 12), 16_000)
    for _, start, answer, label in rows:
        store.decide(Answer(file, start, start + 1, answer, label, "dog"))
    place, _ = export("folders", store, tmp_path / "review")
    assert len([folder for folder in place.iterdir() if folder.is_dir()]) == len(labels)
    assert len(list(place.glob("*/*.wav"))) == len(labels)
    assert {path.name for path in tmp_path.iterdir()} == {"review", "site.wav"}
    assert {e.label for e in find_source(place, how=Reading()).entries} == set(labels)
