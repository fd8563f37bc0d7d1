"""Tables of true events, in each form and place, and the recordings that they are of."""

import shutil
from pathlib import Path

import pytest
import soundfile

import toy
from unfreeze.audio.entries import Entry
from unfreeze.audio.label_table import Columns
from unfreeze.audio.sources import Reading
from unfreeze.detection.event_scoring import as_spans
from unfreeze.detection.true_events import (
    Annotations,
    check_known,
    check_not_trained_on,
    contents_of,
    fingerprint,
    read_annotations,
    truths_of,
)
from unfreeze.errors import DataError

FULL, PART = Reading(full=True), Reading(full=False)
AUDACITY = "1.0\t3.0\tdog\n10.0\t11.0\tcat\n"
RAVEN = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\t"
    "Begin File\tClass\n1\tSpectrogram 1\t1\t1.0\t3.0\t100\t4000\t{}\tdog\n"
    "2\tSpectrogram 1\t1\t10.0\t11.0\t100\t4000\t{}\tcat\n"
)
CSV = "start,end,label\n1.0,3.0,dog\n10.0,11.0,cat\n"


@pytest.fixture
def places(tmp_path):
    """A folder of two recordings, one of them in a folder, and one for tables."""
    rec, tab = tmp_path / "rec", tmp_path / "tab"
    for folder in (rec / "site", tab / "site"):
        folder.mkdir(parents=True)
    for name in ("a.wav", "site/b.wav"):
        soundfile.write(rec / name, [0.1, -0.1] * toy.RATE, toy.RATE)
    return rec, tab


def sounds(found):
    return {
        path.name: [(entry.start, entry.end, entry.label) for entry in own]
        for path, own in found.sounds.items()
    }


OF_A = [(1.0, 3.0, "dog"), (10.0, 11.0, "cat")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", AUDACITY),
        ("a.labels.txt", AUDACITY),
        ("a.Table.1.selections.txt", RAVEN.format("a.wav", "a.wav")),
        ("a.csv", CSV),
        ("a.tsv", CSV.replace(",", "\t")),
        ("a.wav.selections.txt", RAVEN.format("a.wav", "a.wav")),
    ],
)
@pytest.mark.parametrize("where", ["beside", "elsewhere", "alone"])
def test_a_table_belongs_to_the_recording_of_its_name(places, name, text, where):
    rec, tab = places
    folder = rec if where == "beside" else tab
    (folder / name).write_text(text)
    tables, of = (folder, rec) if where != "alone" else (folder / name, rec / "a.wav")
    found = read_annotations(of, tables, FULL)
    assert sounds(found) == {"a.wav": OF_A}
    left = [] if where == "alone" else [rec / "site" / "b.wav"]
    assert [problem.path for problem in found.problems] == left


def test_a_table_of_another_name_is_of_the_only_recording(places):
    rec, tab = places
    (tab / "checked by Ann.csv").write_text(CSV)
    assert sounds(read_annotations(rec / "a.wav", tab / "checked by Ann.csv", FULL)) == {
        "a.wav": OF_A
    }
    with pytest.raises(DataError, match="no recording is named checked by Ann, and no column"):
        read_annotations(rec, tab / "checked by Ann.csv", FULL)


@pytest.mark.parametrize("path", ["a.wav", "C:\\field\\a.wav", "a"])
def test_one_table_for_all_leaves_no_sounds_for_the_others(places, path):
    rec, tab = places
    (tab / "all.csv").write_text(f"path,start,end,label\n{path},1,3,dog\n")
    found = read_annotations(rec, tab / "all.csv", FULL)
    assert sounds(found) == {"a.wav": [(1.0, 3.0, "dog")], "b.wav": []}
    assert any("1 recording without a row" in note for note in found.notes)
    # Where not all sounds are annotated, nothing is known of the other recording.
    partly = read_annotations(rec, tab, PART)
    assert sounds(partly) == {"a.wav": [(1.0, 3.0, "dog")]}
    assert [problem.cause for problem in partly.problems] == [
        "no table of sounds names it or has its name"
    ]
    # In a folder, it may be one of the tables of single recordings.
    assert len(read_annotations(rec, tab, FULL).problems) == 1
    (tab / "b.txt").write_text("")
    assert sounds(read_annotations(rec, tab, FULL)) == {"a.wav": [(1.0, 3.0, "dog")], "b.wav": []}


def test_rows_of_other_recordings_are_said(places):
    rec, tab = places
    (tab / "all.csv").write_text("path,start,end,label\na.wav,1,3,dog\nz.wav,1,3,cat\n")
    found = read_annotations(rec, tab, FULL)
    assert "rows of 1 recording that are not in" in " ".join(found.notes)
    assert sounds(found)["a.wav"] == [(1.0, 3.0, "dog")]


@pytest.mark.parametrize("text", ["", "\n", "start,end,label\n"])
def test_an_empty_table_says_that_there_are_no_sounds(places, text):
    rec, tab = places
    (tab / "a.txt").write_text(text)
    assert sounds(read_annotations(rec, tab, FULL)) == {"a.wav": []}


def test_recordings_of_one_name_are_told_apart_by_folders(places):
    rec, tab = places
    shutil.copy(rec / "a.wav", rec / "site" / "a.wav")
    (tab / "site" / "a.txt").write_text(AUDACITY)
    (found,) = read_annotations(rec, tab, FULL).sounds
    assert found == rec / "site" / "a.wav"
    (tab / "site" / "a.txt").rename(tab / "a.txt")
    (found,) = read_annotations(rec, tab, FULL).sounds
    assert found == rec / "a.wav"
    # Of two in one folder, one is named with its ending.
    soundfile.write(rec / "a.flac", [0.1, -0.1] * toy.RATE, toy.RATE)
    with pytest.raises(DataError, match=r"a\.txt may be of 2 recordings"):
        read_annotations(rec, tab, FULL)
    (tab / "a.txt").rename(tab / "a.flac.txt")
    (found,) = read_annotations(rec, tab, FULL).sounds
    assert found == rec / "a.flac"
    (rec / "a.flac").unlink()
    (tab / "a.flac.txt").rename(tab / "a.txt")
    (tab / "other").mkdir()
    (tab / "a.txt").rename(tab / "other" / "a.txt")
    with pytest.raises(DataError, match=r"may be of 2 recordings: .*a\.wav, .*site/a\.wav"):
        read_annotations(rec, tab, FULL)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"tab has no table of the 2 recordings in .*rec\. Name each table"),
        ({"z.txt": AUDACITY}, r"z\.txt: no recording has its name; not used"),
        ({"a.txt": "dog was here\n"}, r"a\.txt cannot be used .*no columns for label, start"),
        ({"a.csv": "start,label\n1,dog\n"}, "none for the other end"),
        ({"a.txt": AUDACITY, "a.csv": CSV}, "has two tables"),
        ({"a.txt": AUDACITY, "all.csv": "path,start,end,label\na.wav,1,3,dog\n"}, "two tables"),
        ({"a.txt": "3.0\t1.0\tdog\n"}, r"a\.txt, line 1"),
    ],
)
def test_tables_that_cannot_be_used_are_named(places, files, message):
    rec, tab = places
    for name, text in files.items():
        (tab / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_annotations(rec, tab, FULL)


def test_notes_of_many_tables_are_one(places):
    rec, tab = places
    for name in "axyz":
        (tab / f"{name}.txt").write_text(AUDACITY)
    (note,) = read_annotations(rec, tab, FULL).notes
    assert note.endswith("x.txt and 2 more: no recording has its name; not used")


def test_missing_places_are_named(places, tmp_path):
    rec, _ = places
    with pytest.raises(DataError, match="nothing does not exist: give a table"):
        read_annotations(rec, tmp_path / "nothing", FULL)
    with pytest.raises(DataError, match="nothing does not exist: give recordings"):
        read_annotations(tmp_path / "nothing", rec, FULL)


def test_tables_of_raven_of_one_recording_are_joined(places):
    rec, tab = places
    for number, sound in enumerate(("1.0\t3.0\tdog", "10.0\t11.0\tcat"), start=1):
        (tab / f"a.Table.{number}.selections.txt").write_text(
            f"Selection\tBegin Time (s)\tEnd Time (s)\tClass\n1\t{sound}\n"
        )
    assert sounds(read_annotations(rec, tab, FULL)) == {"a.wav": OF_A}


def test_columns_and_classes_may_be_named(places, tmp_path):
    rec, tab = places
    (tab / "all.csv").write_text("wo,start,end,was\na.wav,1,3,Hund\na.wav,5,6,Fuchs\n")
    (tmp_path / "map.yaml").write_text("Hund: dog\nFuchs:\n")
    how = Reading(columns=Columns("wo", "was"), label_map=tmp_path / "map.yaml", full=True)
    found = read_annotations(rec, tab, how)
    assert found.counts() == {"dog": 1}
    truths, _ = truths_of(found, rec / "a.wav", 60.0, ("dog",))
    # The dropped one is no background: nobody is wrong there.
    assert truths["dog"].unsure.tolist() == [[5.0, 6.0]]


def annotated(*stretches, full=True, several=False):
    path = Path("a.wav")
    own = tuple(Entry(path, path, label, start=s, end=e) for s, e, label in stretches)
    return Annotations({path: own}, full, several, (), ()), path


def test_what_is_known_of_each_class():
    labels = ("cat", "dog", "owl")
    of, path = annotated((1, 3, "dog"), (2, 4, "fox"), (50, 70, "cat"), (80, 81, "cat"))
    truths, notes = truths_of(of, path, 60.0, labels)
    assert truths["dog"].sounds.tolist() == [[1, 3]]
    assert truths["dog"].others.tolist() == [[2, 4], [50, 60]]
    assert truths["cat"].sounds.tolist() == [[50, 60]]
    assert truths["owl"].sounds.tolist() == as_spans([]).tolist()
    assert truths["owl"].known is None
    assert [note.cause.partition(",")[0] for note in notes] == [
        "the sound from 50 to 70 s ends after it",
        "the sound at 80 s lies behind its end",
    ]


def test_several_labels_and_those_that_nobody_is_sure_of():
    of, path = annotated((1, 3, "cat;dog"), (5, 6, "cat;owl?"), (8, 9, ""), several=True)
    truths, _ = truths_of(of, path, 60.0, ("cat", "dog", "owl"))
    assert truths["cat"].sounds.tolist() == [[1, 3], [5, 6]]
    assert truths["dog"].sounds.tolist() == [[1, 3]]
    assert truths["owl"].unsure.tolist() == [[5, 6]]
    assert of.counts() == {"cat": 2, "dog": 1}


def test_where_the_annotation_is_incomplete_only_its_stretches_are_known():
    of, path = annotated((1, 3, "dog"), (2, 4, "background"), full=False)
    truths, _ = truths_of(of, path, 60.0, ("dog",))
    assert truths["dog"].known.tolist() == [[1, 4]]
    assert truths["dog"].others.tolist() == []
    assert of.counts() == {"dog": 1}


def test_classes_that_the_model_does_not_know_are_counted():
    of, _ = annotated((1, 3, "dog"), (4, 5, "fox"), (6, 7, "fox"), (8, 9, "background"))
    assert check_known(of, ("cat", "dog")) == {"fox": 2}
    with pytest.raises(DataError, match=r"none of the annotated classes, dog, fox.*--map"):
        check_known(of, ("cat",))
    with pytest.raises(DataError, match="Did you mean 'Dog'"):
        check_known(annotated((1, 3, "dog"))[0], ("Dog", "cow"))
    assert check_known(annotated()[0], ("cat",)) == {}


def test_a_fingerprint_is_of_sounds_and_recordings_and_not_of_places(places, tmp_path):
    rec, tab = places
    (tab / "a.csv").write_text(CSV)

    def digest(recordings):
        found = read_annotations(recordings, tab / "a.csv", FULL)
        return fingerprint(found, contents_of(found))

    whole = digest(rec / "a.wav")
    assert len(whole) == 64
    shutil.copytree(rec, tmp_path / "moved")
    assert digest(tmp_path / "moved" / "a.wav") == whole
    (tab / "a.csv").write_text(CSV.replace("dog", "cat"))
    assert digest(rec / "a.wav") != whole
    (tab / "a.csv").write_text(CSV)
    soundfile.write(rec / "a.wav", [0.1, -0.2] * toy.RATE, toy.RATE)
    assert digest(rec / "a.wav") != whole


def test_recordings_that_are_trained_on_are_named():
    contents = {Path(f"{name}.wav"): name for name in "abcde"}
    check_not_trained_on(contents, {"x"})
    with pytest.raises(DataError, match=r"cut from them: a\.wav, b\.wav, c\.wav and 1 more\. A"):
        check_not_trained_on(contents, {"x", *"abcd"})
