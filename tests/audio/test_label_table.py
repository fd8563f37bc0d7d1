from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unfreeze.audio import label_table
from unfreeze.audio.entries import Entry
from unfreeze.audio.label_table import Columns, read_labels
from unfreeze.audio.rules import Problem, examine
from unfreeze.audio.table_file import Table
from unfreeze.errors import DataError


def read(place: Path, text: str | bytes, **columns) -> tuple[list[Entry], list[Problem]]:
    manifest = place / "manifest.csv"
    manifest.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return read_labels(manifest, Columns(**columns))


def labels(place: Path, text: str, **columns) -> list[str]:
    return [entry.label for entry in read(place, text, **columns)[0]]


def refusal(folder: Path, text: str | bytes) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, text)
    assert "manifest.csv" in str(caught.value)
    return str(caught.value)


def test_all_columns_in_any_order(tmp_path: Path) -> None:
    text = "Split, group ,path,label\r\ntrain,ann,a/1.wav,dog\r\n\r\nVAL,,b.wav,cat\r\n"
    entries, notes = read(tmp_path, "\ufeff" + text)
    assert entries == [
        Entry(tmp_path / "a/1.wav", Path("a/1.wav"), "dog", "ann", "train", 2),
        Entry(tmp_path / "b.wav", Path("b.wav"), "cat", None, "validation", 4),
    ]
    assert notes == []


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_names_of_parts(tmp_path: Path, part: str) -> None:
    aliases = {
        "train": ["train", "training", "TRAIN"],
        "validation": ["validation", "val", "valid", "dev"],
        "test": ["test", "testing", " Test ", "eval", "evaluation"],
    }
    for alias in aliases[part]:
        assert read(tmp_path, f"path,label,split\na.wav,x,{alias}\n")[0][0].split == part


def test_unknown_and_missing_parts_name_the_line(tmp_path: Path) -> None:
    header = "path,label,split\na.wav,x,train\n"
    message = refusal(tmp_path, header + "b.wav,x,trian\n")
    assert "line 3" in message
    assert "Did you mean 'train'?" in message
    # A blank cell is no part: the clip is divided like one without a column.
    assert [e.split for e in read(tmp_path, header + "b.wav,x, \n")[0]] == ["train", None]


def test_missing_columns(tmp_path: Path) -> None:
    assert "no column 'label' among 'path', 'lable'" in refusal(tmp_path, "path,lable\na,b\n")
    assert "Did you mean 'lable'?" in refusal(tmp_path, "path,lable\na,b\n")
    message = refusal(tmp_path, "path,what\na,b\n")
    assert "Name it 'label', or say which it is with --label-column" in message
    assert "Separate the columns by commas, semicolons or tabs" in refusal(tmp_path, "path|label\n")
    assert "no column 'label'" in refusal(tmp_path, "")
    assert "twice" in refusal(tmp_path, "path,label,label\n")
    assert "has no column 'sounds'" in refusal_of(tmp_path, "path,label\na,b\n", label="sounds")


def refusal_of(folder: Path, text: str, **columns) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, text, **columns)
    return str(caught.value)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("told", ["", "sep=,\n", "SEP=,\r\n"])
def test_separators(tmp_path: Path, separator: str, told: str) -> None:
    text = f"{told.replace(',', separator)}label,path\nx,a.wav\ny,b.wav\n".replace(",", separator)
    entries, notes = read(tmp_path, text)
    assert [(e.name.as_posix(), e.label) for e in entries] == [("a.wav", "x"), ("b.wav", "y")]
    assert [e.line for e in entries] == ([3, 4] if told else [2, 3])
    assert notes == []


def test_a_table_in_utf_16_as_excel_writes_it(tmp_path: Path) -> None:
    entries, _ = read(tmp_path, "path\tlabel\nä.wav\tgröße\n".encode("utf-16"))
    assert [(e.name.as_posix(), e.label) for e in entries] == [("ä.wav", "größe")]


def test_lists_without_a_header(tmp_path: Path) -> None:
    entries, _ = read(tmp_path, "a.wav\tdog\nb.wav\tcat\n")
    assert [(e.name.name, e.label, e.line) for e in entries] == [
        ("a.wav", "dog", 1), ("b.wav", "cat", 2),
    ]  # fmt: skip
    (entry,), _ = read(tmp_path, "a.wav;0,5;2;dog\n")
    assert (entry.start, entry.end, entry.label) == (0.5, 2.0, "dog")
    assert "line 1: this names a recording, a.wav, where the names of" in refusal(
        tmp_path, "a.wav,dog,7\nb.wav,cat,7\n"
    )


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("filename,category", {}),
        ("file_name,label", {}),
        ("Sound_File,Species", {}),
        ("fname,what", {"label": "What"}),
        ("name,class", {"path": "name"}),
    ],
)
def test_columns_by_other_names(tmp_path: Path, header: str, columns: dict) -> None:
    (entry,), _ = read(tmp_path, f"{header}\na.wav,x\n", **columns)
    assert (entry.path, entry.label) == (tmp_path / "a.wav", "x")


@pytest.mark.parametrize(
    "label",
    ["cat;dog", "cat|dog", "dog ; cat", "['cat', 'dog']", "[cat, dog]", "cat,dog", "cat+dog"],
)
def test_several_labels_of_a_clip(tmp_path: Path, label: str) -> None:
    text = f'path,label\na.wav,cat\nb.wav,"{label}"\nc.wav,dog\nd.wav,\n'
    assert labels(tmp_path, text) == ["cat", "cat;dog", "dog", ""]


def test_a_mark_in_a_name_separates_only_labels_that_occur_alone(tmp_path: Path) -> None:
    # In a column of this name, a comma always separates.
    assert labels(tmp_path, 'path,labels\na.wav,"Bark,Dog"\n') == ["Bark;Dog"]
    assert labels(tmp_path, 'path,label\na.wav,"Sparrow, House"\n') == ["Sparrow, House"]
    assert labels(tmp_path, "path,label\na.wav,[cat]\n") == ["cat"]
    assert labels(tmp_path, "path,label\na.wav,why?\n") == ["why?"]


def test_a_label_that_is_not_sure(tmp_path: Path) -> None:
    text = "path,label\na.wav,cat;dog?\nb.wav,dog?\n"
    assert labels(tmp_path, text) == ["cat;dog?", ";dog?"]


def test_an_empty_label_is_one_only_where_clips_may_have_several(tmp_path: Path) -> None:
    text = "path,label\na.wav,cat\nb.wav,\n"
    assert "line 3: the label is empty" in refusal(tmp_path, text)
    assert "say --multilabel" in refusal(tmp_path, text)
    assert labels(tmp_path, "path,label\na.wav,cat;\nb.wav,dog\n") == ["cat", "dog"]
    assert labels(tmp_path, text, several=True) == ["cat", ""]


def test_several_rows_of_a_clip(tmp_path: Path) -> None:
    text = "path,label\na.wav,cat\nb.wav,cat\na.wav,dog\n"
    message = refusal(tmp_path, text)
    assert "line 4: a.wav has the label 'dog' here and 'cat' in line 2" in message
    assert "--multilabel" in message
    assert labels(tmp_path, text, several=True) == ["cat;dog", "cat"]


def test_a_column_for_each_class(tmp_path: Path) -> None:
    text = "path,Cat,dog,owl\na.wav,1,0,\nb.wav,0,1,1\nc.wav,0,,\nd.wav,?,0,1\n"
    # Owl's column never says 0, so that nothing in it is 0; dog's does.
    assert labels(tmp_path, text) == ["Cat", "dog;owl", ";dog?", "owl;Cat?"]
    (note,) = read(tmp_path, text)[1]
    assert note.cause == "its classes: Cat, dog, owl"
    one_hot = "path,cat,dog\na.wav,1,0\nb.wav,0,1\n"
    assert labels(tmp_path, one_hot) == ["cat", "dog"]
    with_years = "path,cat,dog,year\na.wav,1,0,2024\nb.wav,0,1,2025\n"
    causes = [n.cause for n in read(tmp_path, with_years)[1]]
    assert causes == ["these columns are not used: year", "its classes: cat, dog"]
    assert labels(tmp_path, "path,cat\na.wav,1\nb.wav,0\n") == ["cat", ""]


def test_a_column_that_is_the_same_in_all_rows_is_of_a_class_too(tmp_path: Path) -> None:
    text = "path,cat,dog,owl\na.wav,1,0,0\nb.wav,1,1,0\n"
    assert labels(tmp_path, text) == ["cat", "cat;dog"]
    assert labels(tmp_path, "path,cat,owl\na.wav,1,0\nb.wav,1,?\n") == ["cat", "cat;owl?"]


def test_low_and_high_are_bounds_of_sounds_and_may_be_classes_of_clips(tmp_path: Path) -> None:
    rows = "0.wav,1,0,1\n1.wav,0,1,0\n"
    assert labels(tmp_path, f"path,low,high,dog\n{rows}") == ["dog;low", "high"]
    (entry,), _ = read(tmp_path, "path,start,end,low,high,label\n0.wav,0,1,200,900,dog\n")
    assert (entry.low, entry.high, entry.label) == (200, 900, "dog")


def test_a_wrong_cell_in_a_column_of_a_class(tmp_path: Path) -> None:
    text = "path,cat,owl\na.wav,1,0\nb.wav,0,1\nc.wav,0,l\nd.wav,1,0\n"
    message = refusal(tmp_path, text)
    assert "line 4: the column 'owl' holds 'l'. Write 1 where the class is heard" in message
    assert "appears twice" in refusal(tmp_path, "path,cat,cat\na.wav,1,0\nb.wav,0,1\n")


def test_a_label_beside_columns_of_classes(tmp_path: Path) -> None:
    text = "path,label,cat,dog\na.wav,site1,1,0\nb.wav,site2,0,1\n"
    entries, notes = read(tmp_path, text)
    assert [e.label for e in entries] == ["site1", "site2"]
    assert any("the columns cat, dog look like classes" in note.cause for note in notes)
    # What a public data set says beside its classes looks like none.
    text = "path,label,salience,classid,start\na.wav,dog,1,0,0\nb.wav,cat,1,1,0\n"
    text = text.replace(",start", ",esc10").replace(",0\n", ",True\n")
    assert not any(note.rule == "class_columns" for note in read(tmp_path, text)[1])
    # A class of such a name is one among the others.
    text = "path,species,cat,dog\na.wav,0,1,0\nb.wav,1,0,1\n"
    assert labels(tmp_path, text) == ["cat", "dog;species"]


def test_rows_of_one_clip_that_disagree_otherwise(tmp_path: Path) -> None:
    text = "path,label,split\na.wav,cat,train\na.wav,dog,test\n"
    with pytest.raises(DataError, match="has the split 'test' here and 'train' in line 2"):
        read(tmp_path, text, several=True)


def test_columns_that_are_not_used_are_said(tmp_path: Path) -> None:
    _, notes = read(tmp_path, "path,label,speaker\na.wav,x,ann\n")
    assert [(n.rule, n.fatal) for n in notes] == [("unused_columns", False)]
    assert "speaker" in notes[0].cause


def test_rows_that_are_wrong(tmp_path: Path) -> None:
    assert "line 3: 3 fields" in refusal(tmp_path, "path,label\na.wav,x\nb,c.wav,x\n")
    assert "line 2: the label is empty" in refusal(tmp_path, "path,label\na.wav, \n")
    assert "line 2: the path is empty" in refusal(tmp_path, "path,label\n,x\n")
    assert "line 2: this is not valid CSV" in refusal(tmp_path, 'path,label\n"a.wav,x\n')
    assert "line 2: this is not UTF-8" in refusal(tmp_path, b"path,label\ncaf\xe9.wav,x\n")
    assert "no rows" in refusal(tmp_path, "path,label\n")
    assert "cannot be printed" in refusal(tmp_path, 'path,label\na.wav,"x\ny"\n')


def test_the_same_file_twice(tmp_path: Path) -> None:
    text = "path,label\na.wav,x\n./a.wav,x\n"
    entries, notes = read(tmp_path, text)
    assert [e.line for e in entries] == [2]
    assert [(n.rule, n.fatal, n.cause) for n in notes] == [
        ("duplicate_row", False, "line 3 repeats line 2; it is dropped")
    ]
    message = refusal(tmp_path, "path,label\na.wav,x\na.wav,y\n")
    assert "line 3: a.wav has the label 'y' here and 'x' in line 2" in message
    assert "split" in refusal(tmp_path, "path,label,split\na.wav,x,train\na.wav,x,test\n")


def sound(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"RIFF")


def test_paths_may_lead_anywhere(tmp_path: Path) -> None:
    data, other = tmp_path / "data", tmp_path / "other"
    data.mkdir()
    sound(other / "a.wav", other / "b.wav", data / "c.wav")
    (data / "link").symlink_to(other)
    text = f"path,label\n../other/a.wav,x\n{other}/b.wav,x\nlink/a.wav,y\nc.wav,y\n"
    entries, _ = read(data, text)
    assert [e.path for e in entries] == [
        other / "a.wav", other / "b.wav", data / "link/a.wav", data / "c.wav",
    ]  # fmt: skip
    assert [e.name for e in entries[2:]] == [Path("link/a.wav"), Path("c.wav")]


def test_paths_of_another_folder_system_or_unicode_form(tmp_path: Path) -> None:
    sound(tmp_path / "clips/a.wav", tmp_path / "gro\u0308ße.wav", tmp_path / "b.flac")
    text = "path,label\nclips\\a.wav,x\ngröße.wav,x\nD:\\field\\b.flac,x\n"
    entries, _ = read(tmp_path, text)
    found = [tmp_path / "clips/a.wav", tmp_path / "gro\u0308ße.wav", tmp_path / "b.flac"]
    assert [e.path for e in entries] == found


def test_a_file_that_is_elsewhere_is_found_by_its_name_if_there_is_one(tmp_path: Path) -> None:
    sound(tmp_path / "audio/fold1/a.wav", tmp_path / "audio/fold2/b.wav")
    sound(tmp_path / "audio/x/c.wav", tmp_path / "audio/y/c.wav")
    entries, notes = read(tmp_path, "path,label\na.wav,x\nb,x\nx/c.wav,x\ngone.wav,x\n")
    cause = "3 of its recordings lie elsewhere and were found by their names, such as a.wav at "
    assert [note.cause for note in notes] == [f"{cause}audio/fold1/a.wav"]
    assert [e.path.relative_to(tmp_path).as_posix() for e in entries] == [
        "audio/fold1/a.wav", "audio/fold2/b.wav", "audio/x/c.wav", "gone.wav",
    ]  # fmt: skip
    message = refusal(tmp_path, "path,label\nc.wav,x\n")
    assert "line 2: 'c.wav' is not there, and there are 2 files of that name" in message
    assert "--audio-folder" in message
    entries, _ = read(tmp_path, "path,label\nc.wav,x\n", folder=tmp_path / "audio/y")
    assert entries[0].path == tmp_path / "audio/y/c.wav"


def test_a_file_may_be_named_as_in_a_url_or_by_what_it_was_converted_from(tmp_path: Path) -> None:
    sound(tmp_path / "a b/x 1.wav", tmp_path / "c/100%25.wav", tmp_path / "d/y.flac")
    entries, notes = read(tmp_path, "path,label\na%20b/x%201.wav,x\nc/100%25.wav,x\nd/y.mp3,x\n")
    found = [e.path.relative_to(tmp_path).as_posix() for e in entries]
    assert found == ["a b/x 1.wav", "c/100%25.wav", "d/y.flac"]
    assert [note.cause.split(", ")[-1] for note in notes] == ["such as d/y.mp3 at d/y.flac"]
    (entry,), _ = read(tmp_path, "path,label\nhttps://example.org/a%20b/x%201.wav,x\n")
    assert entry.path == tmp_path / "a b/x 1.wav"
    # One of another name is no conversion.
    assert read(tmp_path, "path,label\ne/y.mp3,x\n")[0][0].path == tmp_path / "e/y.mp3"


@pytest.mark.parametrize(
    "names",
    [
        *("start_ms,end_ms", "begin sample,end sample", "onset_frame,offset_frame", "von,bis"),
        *("t_start_ms,t_end_ms", "event_start_ms,event_end_ms", "starttime,endtime", "from,to"),
        *(
            "event_start,event_end",
            "onset_ms,duration_ms",
            "begin_ms,length_ms",
            "onset_ms,duration",
        ),
    ],
)
def test_times_in_other_units_are_no_whole_recordings(tmp_path: Path, names: str) -> None:
    rows = "a.wav,2000,4000,x\nb.wav,nan,,y\n"
    message = refusal(tmp_path, f"path,{names},label\n{rows}")
    assert "look like the times of sounds, perhaps not in seconds" in message
    # What is no time needs none.
    assert labels(tmp_path, f"path,{names},label\na.wav,gate,bridge,x\n") == ["x"]


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        ("start_freq,end_freq", "2000,8000"),
        ("begin_hz,end_hz", "2000,8000"),
        ("start_hour,end_hour", "4,6"),
        ("start_date,end_date", "20240501,20240502"),
        ("start_lat,end_lat", "48.1,48.2"),
        ("from,to", "2024-05-01,2024-05-02"),
        ("from,to", "pond,hill"),
        ("from,to", "7,3"),
        ("from_site,to_site", "3,7"),
        ("start_id,end_id", "3,7"),
        ("restart,rend", "3,7"),
    ],
)
def test_starts_and_ends_of_something_else_are_no_times(
    tmp_path: Path, names: str, rows: str
) -> None:
    entries, notes = read(tmp_path, f"path,{names},label\na.wav,{rows},x\n")
    assert [(e.label, e.start) for e in entries] == [("x", None)]
    assert [note.rule for note in notes] == ["unused_columns"]


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        ("from,to", "1998,2004"),
        ("start_gate,end_gate", "3,7"),
        ("segment_start,segment_end", "6.5,8"),
        ("start_timestamp,end_timestamp", "1714540000,1714540600"),
        ("recording_start_time,recording_end_time", "06:30:00,07:00:00"),
    ],
)
def test_what_may_be_times_is_told(tmp_path: Path, names: str, rows: str) -> None:
    entries, notes = read(tmp_path, f"path,{names},label\na.wav,{rows},x\n")
    assert [(e.label, e.start) for e in entries] == [("x", None)]
    assert [note.rule for note in notes] == ["unused_columns", "perhaps_times"]
    assert "may be the times of sounds, and whole recordings are taken" in notes[1].cause


def test_only_columns_of_some_names_are_read_for_groups_and_labels(tmp_path: Path) -> None:
    class Row(list[str]):
        asked: ClassVar[set[int]] = set()

        def __getitem__(self, place: Any) -> Any:
            self.asked.add(place)
            return super().__getitem__(place)

    header = ("path", "label", "site", "label2", "noted")
    cells = (["a", "x", "n", "", "1"], ["b", "y", "n", "z", "2"], ["c", "y", "s", "", "3"])
    rows = [(line, Row(row)) for line, row in enumerate(cells, 2)]
    table = Table(tmp_path / "t.csv", header, header, rows)
    notes = label_table._unused(table, {"path": 0, "label": 1})
    assert [note.rule for note in notes] == ["unused_columns", "perhaps_groups", "perhaps_labels"]
    assert Row.asked == {2, 3}


@pytest.mark.parametrize("name", ["set", "Usage", "partition"])
def test_a_column_of_parts_is_known_by_what_it_holds(tmp_path: Path, name: str) -> None:
    entries, notes = read(tmp_path, f"path,label,{name}\na.wav,x,Train\nb.wav,y,val\nc.wav,y,\n")
    assert [e.split for e in entries] == ["train", "validation", None]
    assert [n.cause for n in notes] == [
        f"the parts of the split are those of the column {name.lower()!r}"
    ]
    # One part alone, or anything else among them, is no split.
    for other in ("train", "gate"):
        entries, _ = read(tmp_path, f"path,label,{name}\na.wav,x,train\nb.wav,y,{other}\n")
        assert [e.split for e in entries] == [None, None]


def test_columns_that_may_be_groups_or_further_labels_are_named(tmp_path: Path) -> None:
    text = "path,label,site_id,label2\na.wav,x,n,\nb.wav,y,n,z\nc.wav,y,s,\n"
    rules = [note.rule for note in read(tmp_path, text)[1]]
    assert rules == ["unused_columns", "perhaps_groups", "perhaps_labels"]
    # A site for each clip, or the same for all, and no further label.
    for sites in ("pond,hill,wood", "pond,pond,pond"):
        rows = zip("abc", sites.split(","), strict=True)
        text = "".join(f"{name}.wav,x,{site},[]\n" for name, site in rows)
        _, notes = read(tmp_path, f"path,label,site,secondary_labels\n{text}")
        assert [note.rule for note in notes] == ["unused_columns"]


def test_no_group_is_no_group(tmp_path: Path) -> None:
    entries, _ = read(tmp_path, "path,label,group\na.wav,x,nan\nb.wav,x,NaN\nc.wav,x,g\n")
    assert [e.group for e in entries] == [None, None, "g"]


def test_separators_behind_the_last_column_are_nothing(tmp_path: Path) -> None:
    assert labels(tmp_path, "path,label\na.wav,x,,\nb.wav,y,\n") == ["x", "y"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04\x14\0", "it is a workbook or an archive"),
        ("path,label\n".encode("utf-16-le"), "it is no text in UTF-8, but has null bytes"),
        ("path,label\n".encode("utf-32"), "it is no text in UTF-8, but has null bytes"),
    ],
)
def test_what_is_no_text_is_said(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("header", "row", "expected"),
    [
        ("path,start,end,label", "a.wav,1.5,2,x", (1.5, 2.0)),
        ("file,onset,offset,label", "a.wav,1.5,2,x", (1.5, 2.0)),
        ("filename,start_time,end_time,label", "a.wav,1:01.5,1:02:03,x", (61.5, 3723.0)),
        ("file,offset,duration,label", "a.wav,1.5,2,x", (1.5, 3.5)),
        ("file,start,duration,label", "a.wav,1.5,2,x", (1.5, 3.5)),
        ("begin file,begin time (s),end time (s),species", "a.wav,1.5,2,x", (1.5, 2.0)),
        (
            "begin file,begin time (s),end time (s),file offset (s),species",
            "a.wav,3601.5,3602,1.5,x",
            (1.5, 2.0),
        ),
    ],
)
def test_sounds_with_start_and_end(tmp_path: Path, header: str, row: str, expected) -> None:
    (entry,), _ = read(tmp_path, f"{header}\n{row}\n")
    assert (entry.path, entry.label) == (tmp_path / "a.wav", "x")
    assert (entry.start, entry.end) == pytest.approx(expected)


def test_sounds_of_one_recording_may_have_several_classes(tmp_path: Path) -> None:
    text = "path,start,end,label\na.wav,0,1,x\na.wav,1,2,y\na.wav,0,1,y\na.wav,0,1,x\n"
    entries, notes = read(tmp_path, text)
    assert [(e.start, e.label) for e in entries] == [(0.0, "x"), (1.0, "y"), (0.0, "y")]
    assert [note.cause for note in notes] == ["line 5 repeats line 2; it is dropped"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,start,label\na.wav,1,x\n", "a column for the start of sounds .* none for the other"),
        ("path,end,label\na.wav,1,x\n", "a column for the end of sounds"),
        (
            "path,start,end,label\na.wav,2,1,x\n",
            "line 2: the sound ends at 1 s, not after",
        ),
        ("path,start,end,label\na.wav,-1,1,x\n", "line 2: the start '-1' is no time"),
        ("path,start,end,label\na.wav,soon,1,x\n", "line 2: the start 'soon' is no time"),
        ('path,start,end,label\na.wav,0,"1,234",x\n', "line 2: the end '1,234' may be thousands"),
        (
            "begin file,begin time (s),end time (s),species\na.wav,0,1,x\nb.wav,9,10,x\n",
            r"the times of 2 recordings count .* 'File Offset \(s\)'",
        ),
    ],
)
def test_times_are_never_ignored(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)


def test_urbansound8k_has_times_in_other_recordings(tmp_path: Path) -> None:
    header = "slice_file_name,fsID,start,end,salience,fold,classID,class"
    (entry,), notes = read(tmp_path, f"{header}\n1-0-0-0.wav,1,30.5,34.5,1,5,0,hum\n")
    assert (entry.label, entry.group, entry.start, entry.split) == ("hum", "fold 5", None, None)
    assert "start, end" in notes[0].cause


def test_paths_within_the_folder(tmp_path: Path) -> None:
    text = f"path,label\n{tmp_path}/a.wav,x\nx/../b.wav,x\n..c.wav,x\n"
    entries, _ = read(tmp_path, text)
    assert [e.name.as_posix() for e in entries] == ["a.wav", "b.wav", "..c.wav"]


def test_names_with_commas_quotes_and_line_breaks(tmp_path: Path) -> None:
    text = 'path,label\n"a, ""b"".wav",x\n"line\nbreak.wav",x\n"u\u2028.wav",x\nlast.wav,x\n'
    entries, _ = read(tmp_path, text)
    assert [e.name.name for e in entries] == [
        'a, "b".wav',
        "line\nbreak.wav",
        "u\u2028.wav",
        "last.wav",
    ]
    assert [e.line for e in entries] == [2, 3, 5, 6]


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_give_entries_or_a_data_error(tmp_path_factory, junk: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    heads = (b"", b"path,label\n", b"path,label,group,split\n", b"path,start,end,label\n")
    for content in (head + junk for head in heads):
        try:
            entries, _ = read(folder, content)
        except DataError:
            continue
        assert entries
        assert all(e.path.is_absolute() and e.name.name == e.path.name for e in entries)
        assert all(e.label.isprintable() for e in entries)


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text(f"path,label\n{'a' * 300}.wav,a\n")
    (entry,), notes = read_labels(tmp_path / "manifest.csv")
    assert (len(entry.name.name), notes) == (304, [])
    facts, (problem,) = examine(entry.path, entry.name)
    assert (facts, problem.rule) == (None, "missing")


def test_rows_without_a_label_or_a_start_are_counted_not_used(tmp_path: Path) -> None:
    text = "path,start,end,label\na.wav,0,1,x\na.wav,1,2,\nb.wav,NA,NA,NA\nb.wav,,,x\n"
    entries, notes = read(tmp_path, text)
    assert [(e.path.name, e.label) for e in entries] == [("a.wav", "x")]
    assert [n.cause for n in notes] == ["3 of its rows have no label or no start, and are not used"]


def test_a_quote_in_a_tab_separated_table_hides_no_row(tmp_path: Path) -> None:
    text = 'path\tsentence\tlabel\na.wav\t"Hello\tm\nb.wav\tsaid"\t"f"\nc.wav\t"a ""b"""\tm\n'
    entries, _ = read(tmp_path, text)
    assert [(e.path.name, e.label) for e in entries] == [
        ("a.wav", "m"), ("b.wav", "f"), ("c.wav", "m"),
    ]  # fmt: skip


def test_ravens_offset_counts_in_tables_with_whole_paths_too(tmp_path: Path) -> None:
    head = "begin path\tbegin time (s)\tend time (s)\tfile offset (s)\tspecies"
    entries, _ = read(tmp_path, f"{head}\na.wav\t0\t3\t0\tx\nb.wav\t11\t14\t3\ty\n")
    assert [(e.path.name, e.start, e.end) for e in entries] == [("a.wav", 0, 3), ("b.wav", 3, 6)]


def test_one_file_is_never_taken_for_two(tmp_path: Path) -> None:
    sound(tmp_path / "site3/a.wav")
    message = refusal(tmp_path, "path,label\nC:\\r\\site1\\a.wav,cat\nC:\\r\\site2\\a.wav,dog\n")
    assert "line 3" in message
    assert "is the only file of that name: it cannot be both" in message


@pytest.mark.parametrize(
    ("header", "row"),
    [("folder,in file,manual id", "site1,a.wav,x"), ("path,filename,label", "site1,a.wav,x")],
)
def test_a_folder_in_a_column_of_its_own(tmp_path: Path, header: str, row: str) -> None:
    sound(tmp_path / "site1/a.wav", tmp_path / "site2/a.wav")
    (entry,), _ = read(tmp_path, f"{header}\n{row}\n")
    assert entry.path == tmp_path / "site1/a.wav"


def test_names_are_classes_rather_than_numbers_or_parts(tmp_path: Path) -> None:
    (entry,), notes = read(tmp_path, "path,label,class_name\na.wav,0,dog\n")
    assert entry.label == "dog"
    assert "are those of the column 'class_name', not of 'label'" in notes[0].cause
    assert read(tmp_path, "path,category,class\na.wav,train,dog\n")[0][0].label == "dog"
    assert read(tmp_path, "path,class,species\na.wav,Aves,wren\n")[0][0].label == "wren"


def test_a_group_beats_a_fold_and_ids_are_no_groups(tmp_path: Path) -> None:
    assert read(tmp_path, "path,label,group,fold\na.wav,x,ann,3\n")[0][0].group == "ann"
    ids = "path,label,identifier\na.wav,x,1\nb.wav,x,2\n"
    assert {e.group for e in read(tmp_path, ids)[0]} == {None}
    sites = "path,label,identifier\na.wav,x,1\nb.wav,x,1\n"
    assert {e.group for e in read(tmp_path, sites)[0]} == {"1"}
    spans = "path,start,end,label,fsid\na.wav,0,1,x,1\na.wav,1,2,x,1\n"
    assert {e.group for e in read(tmp_path, spans)[0]} == {None}
