import pytest

from unfreeze.audio.class_columns import class_names, find_class_columns, row_reader
from unfreeze.errors import DataError


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"path": "ab", "cat": "10", "dog": "01"}, ["cat", "dog"]),
        ({"path": "ab", "cat": ["TRUE", "false"], "dog": ["x", ""]}, ["cat", "dog"]),
        ({"path": "ab", "cat": ["1.00", "-1"], "dog": ["0", "?"]}, ["cat", "dog"]),
        ({"path": "ab", "cat": "10", "unnamed: 0": "01", "year": ["2024", "2025"]}, ["cat"]),
        ({"path": "ab", "cat": "11"}, []),
        ({"path": "ab", "cat": "00", "dog": "00"}, []),
        ({"path": "ab", "rate": ["0.7", "0.2"], "count": "32"}, []),
    ],
)
def test_which_columns_are_of_classes(columns, expected) -> None:
    header, rows = list(columns), list(zip(*columns.values(), strict=True))
    assert [header[p] for p in find_class_columns(header, rows, {0})] == expected


def test_names_are_checked_and_marks_taken_off() -> None:
    names = ("path", "Cat?", "cafe\u0301")
    assert class_names(names, [1, 2], str.upper, "t.csv, line 1") == {1: "CAT", 2: "CAFE\u0301"}
    with pytest.raises(DataError, match="the column 'cat' appears twice"):
        class_names(("cat", "cat"), [0, 1], str, "t.csv, line 1")


def test_rows() -> None:
    rows = [("TRUE", "", "", "0"), ("1.0", "0", "", "1")]
    read = row_reader({0: "cat", 1: "dog", 2: "owl", 3: "cow"}, rows)
    assert read(rows[0], "t.csv, line 2") == "cat;dog?"
    with pytest.raises(DataError, match=r"t\.csv, line 3: the column 'cat' holds '3'\. Write 1"):
        read(("3", "", "", ""), "t.csv, line 3")


def test_facts_of_clips_are_no_classes_and_a_class_may_have_a_plain_name() -> None:
    header = ["number", "age", "up_votes", "manually_verified", "clip_id", "fold"]
    rows = [["1", "0", "1", "1", "0", "1"], ["0", "1", "0", "1", "1", "0"]]
    assert find_class_columns(header, rows, ()) == [0, 1]
