import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unfreeze.audio.entries import Entry
from unfreeze.audio.rules import Problem, examine
from unfreeze.audio.table import read_csv
from unfreeze.errors import DataError


def read(folder: Path, text: str | bytes) -> tuple[list[Entry], list[Problem]]:
    manifest = folder / "manifest.csv"
    manifest.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return read_csv(manifest)


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
        "test": ["test", "testing", " Test "],
    }
    for alias in aliases[part]:
        assert read(tmp_path, f"path,label,split\na.wav,x,{alias}\n")[0][0].split == part


def test_unknown_and_missing_parts_name_the_line(tmp_path: Path) -> None:
    header = "path,label,split\na.wav,x,train\n"
    message = refusal(tmp_path, header + "b.wav,x,trian\n")
    assert "line 3" in message
    assert "Is it 'train'?" in message
    assert "line 3: unknown split ''" in refusal(tmp_path, header + "b.wav,x,\n")


def test_missing_columns(tmp_path: Path) -> None:
    assert "no column 'label' among 'path', 'labels'" in refusal(tmp_path, "path,labels\na,b\n")
    assert "Is it the column 'labels'?" in refusal(tmp_path, "path,labels\na,b\n")
    assert "Separate the columns by commas" in refusal(tmp_path, "path;label\na.wav;x\n")
    assert "no column 'path'" in refusal(tmp_path, "")
    assert "twice" in refusal(tmp_path, "path,label,label\n")


def test_columns_that_are_not_used_are_said(tmp_path: Path) -> None:
    _, notes = read(tmp_path, "path,label,speaker\na.wav,x,ann\n")
    assert [(n.rule, n.fatal) for n in notes] == [("unused_columns", False)]
    assert "speaker" in notes[0].cause


def test_rows_that_are_wrong(tmp_path: Path) -> None:
    assert "line 3: 3 fields" in refusal(tmp_path, "path,label\na.wav,x\nb,c.wav,x\n")
    assert "line 2: the label is empty" in refusal(tmp_path, "path,label\na.wav, \n")
    assert "line 2: the path is empty" in refusal(tmp_path, "path,label\n,x\n")
    assert "line 2: no valid CSV" in refusal(tmp_path, 'path,label\n"a.wav,x\n')
    assert "line 2: not UTF-8" in refusal(tmp_path, b"path,label\ncaf\xe9.wav,x\n")
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


@pytest.mark.parametrize("name", ["../a.wav", "x/../../a.wav", "/etc/passwd", "x/../..", ".."])
def test_paths_that_leave_the_folder(tmp_path: Path, name: str) -> None:
    message = refusal(tmp_path, f"path,label\n{name},x\n")
    assert "line 2" in message
    assert "leads outside" in message


def test_a_sibling_with_the_same_beginning_is_outside(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    assert "leads outside" in refusal(data, "path,label\n../data2/a.wav,x\n")


def test_links_that_leave_the_folder(tmp_path: Path) -> None:
    data, outside = tmp_path / "data", tmp_path / "outside"
    data.mkdir()
    outside.mkdir()
    (data / "link").symlink_to(outside)
    assert "leads outside" in refusal(data, "path,label\nlink/a.wav,x\n")
    # A link to a file, beside a file that is none.
    (data / "b.wav").touch()
    (data / "c.wav").symlink_to(outside / "c.wav")
    assert "line 3" in refusal(data, "path,label\nb.wav,x\nc.wav,x\n")


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
    for content in (junk, b"path,label\n" + junk, b"path,label,group,split\n" + junk):
        try:
            entries, _ = read(folder, content)
        except DataError:
            continue
        assert entries
        assert all(os.path.commonpath([folder, e.path]) == str(folder) for e in entries)
        assert all(e.label.isprintable() for e in entries)


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text(f"path,label\n{'a' * 300}.wav,a\n")
    (entry,), notes = read_csv(tmp_path / "manifest.csv")
    assert (len(entry.name.name), notes) == (304, [])
    facts, (problem,) = examine(entry.path, entry.name)
    assert (facts, problem.rule) == (None, "missing")
