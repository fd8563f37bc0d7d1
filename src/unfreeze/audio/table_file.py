"""Tables as text: the rows of a CSV or TSV file, and the names of its columns.

Commas, semicolons or tabs separate the columns; UTF-8 or, with its mark, UTF-16. The first row
names the columns; a list without such a row is known by its shape. What the columns mean is
said in `unfreeze.audio.label_table`.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unfreeze.audio.sound_formats import READABLE
from unfreeze.errors import DataError, show

#: Endings of tables of labels, also of those of one recording.
TABLES = (".csv", ".tsv", ".txt")
#: What programs write where there is nothing.
NOTHING = frozenset({"", "nan", "na", "n/a", "null", "none", "-"})
# Of a table whose columns are only looked at, so many bytes are read.
_HEAD = 1 << 16
_SEPARATORS = ",;\t"
# How files of Excel and LibreOffice begin.
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
_SECONDS = re.compile(r"\d+(?:[.,]\d*)?|\.\d+")


@dataclass(frozen=True)
class Table:
    """A table as text.

    Attributes:
        file: where it is from.
        header: the names of the columns, in lower case.
        names: the same as they are written.
        rows: the line of each row that is not blank, and its fields.
    """

    file: Path
    header: tuple[str, ...]
    names: tuple[str, ...]
    rows: Sequence[tuple[int, list[str]]] = field(repr=False)


def read_table(file: Path, head: bool = False) -> Table:
    """Read the rows of a table; its first is the header.

    Lists without a header are known by their shape: a recording and its label, also a
    recording, start, end and label.

    Args:
        file: the table.
        head: read only its first rows, of a large one.

    Raises:
        DataError: it cannot be read, is not text, or is not valid CSV.
    """
    lines = list(_rows(file, head))
    if lines and _is_recording(*lines[0][1][:1]):
        lines.insert(0, (0, _columns_of(file, lines[0][1])))
    names = tuple(name.strip() for name in lines[0][1]) if lines else ()
    rows = [(line, _without_blanks(row, len(names))) for line, row in lines[1:]]
    return Table(file, tuple(name.lower() for name in names), names, rows)


def _without_blanks(row: list[str], width: int) -> list[str]:
    """A row without what programs write behind its last column: separators and nothing else."""
    return row if any(cell.strip() for cell in row[width:]) else row[:width]


def _is_recording(cell: str) -> bool:
    return Path(cell.strip()).suffix.lower() in READABLE


def _columns_of(file: Path, row: Sequence[str]) -> list[str]:
    """The names of the columns of a list without a header, by its first row."""
    times = len(row) == 4 and all(_SECONDS.fullmatch(cell.strip()) for cell in row[1:3])
    if times:
        return ["path", "start", "end", "label"]
    if len(row) == 3 and file.name.lower() == "meta.txt":
        # DCASE 2017: the third is the recording that the clip was cut from.
        return ["path", "label", "identifier"]
    if len(row) == 2:
        return ["path", "label"]
    raise DataError(
        f"{show(file)}, line 1: this names a recording, {show(row[0].strip())}, where the names of "
        "the columns are expected. Add a first line such as path,label."
    )


def _rows(file: Path, head: bool) -> Iterator[tuple[int, list[str]]]:
    text = read_text(file, _HEAD if head else None)
    line, separator = 1, ""
    told = re.match(r'"?sep=(.)"?(?:\r\n|\n|\r)', text, re.IGNORECASE)
    if told is not None:
        # Excel's way to say what separates the columns.
        text, separator, line = text[told.end() :], told.group(1), 2
    separator = separator or _separator(text)
    # In tables of annotations a quote is a character like any other; where each line has
    # as many fields as the header, it is not there to hide a separator.
    counts = {row.count("\t") for row in text.splitlines() if row.strip()}
    plain = separator == "\t" and len(counts) == 1
    before = line - 1
    reader = csv.reader(
        io.StringIO(text, newline=""),
        strict=True,
        delimiter=separator,
        quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL,
    )
    try:
        for row in reader:
            if any(part.strip() for part in row):
                yield line, [_unquoted(part) for part in row] if plain else row
            line = reader.line_num + before + 1
    except csv.Error as error:
        raise DataError(f"{show(file)}, line {line}: this is not valid CSV ({error}).") from error


def _unquoted(text: str) -> str:
    quoted = len(text) > 1 and text[0] == text[-1] == '"'
    return text[1:-1].replace('""', '"') if quoted else text


def read_text(file: Path, most: int | None = None) -> str:
    """The text of a file in UTF-8, or in UTF-16 with its mark.

    Args:
        file: to read.
        most: bytes; of a longer file, the lines that lie in these.

    Raises:
        DataError: it cannot be read, or is in another encoding.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read() if most is None else opened.read(most)
    except OSError as error:
        raise DataError(f"{show(file)} cannot be read: {error.strerror}.") from error
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff") and data[2:4] != b"\0\0"
    if data.startswith(_WORKBOOKS):
        raise DataError(
            f"{show(file)}: it is a workbook or an archive, not text. Open it in a spreadsheet and "
            "save it as CSV in UTF-8."
        )
    if not wide and b"\0" in data:
        raise DataError(
            f"{show(file)}: it is no text in UTF-8, but has null bytes, as UTF-16 without its "
            "mark has them. Save it as CSV in UTF-8."
        )
    if most is not None and len(data) == most and not wide:
        data = data[: data.rfind(b"\n") + 1]
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(
            f"{show(file)}, line {line}: this is not UTF-8. Save the file as UTF-8."
        ) from error


def _separator(text: str) -> str:
    """What separates the columns of the header: outside of quotes, what is there most often."""
    header = re.sub(r'"[^"\n]*"', "", text.split("\n", 1)[0])
    return max(_SEPARATORS, key=header.count)
