"""Tables with a column for each class: 1 where it is heard, 0 where not, ? where nobody knows.

Other columns of such a table say something else (a year, a place). So a column is one of a
class if its cells are of this kind; and where others are, so is one of whose cells most are:
what is written there may be wrong, and leaving the column out would make clips in which the
class is heard clips in which it is not.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from unfreeze.audio.label_sets import UNSURE, set_text
from unfreeze.errors import DataError, show

_HEARD = {"1", "true", "yes", "x", "y", "present"}
_NOT_HEARD = {"0", "false", "no", "n", "absent"}
_UNKNOWN = {"?", "-1", "nan", "na", "n/a", "unknown"}
# A column with more values than these, some of them wrong, says something else.
_MOST_VALUES = 50
# An index that pandas has written, in a file of its own or without a name.
_INDEX = ("", "unnamed: 0", "index")
# What public data sets say of a clip with 0 and 1, and what can hardly be a sound's name.
_FACTS = re.compile(
    r"(?:\w+[_ ])?(?:votes|verified|ids?)|curated|rating|fold|esc10|esc50|salience", re.IGNORECASE
)


def find_class_columns(
    header: Sequence[str], rows: Sequence[Sequence[str]], taken: Collection[int]
) -> list[int]:
    """The positions of the columns that stand for a class each; none if there are none.

    Args:
        header: names of the columns, in lower case.
        rows: the cells.
        taken: positions of columns that are known to hold something else.
    """
    free = [p for p, name in enumerate(header) if p not in taken and not _is_fact(name)]
    kinds = {place: _kinds([row[place] for row in rows if place < len(row)]) for place in free}
    sure = [p for p, (known, all_known, _) in kinds.items() if known and all_known]
    heard = [place for place in sure if kinds[place][2]]
    if not heard or (len(sure) < 2 and not varies(rows, sure[0])):
        return []
    mostly = [p for p, (known, _, some) in kinds.items() if known > 0.5 and some]
    return sorted({*sure, *mostly})


def _is_fact(name: str) -> bool:
    return name in _INDEX or _FACTS.fullmatch(name) is not None


def _kinds(cells: Sequence[str]) -> tuple[float, bool, bool]:
    """The share of cells that are understood, whether all are, and whether one says "heard"."""
    counts = Counter(cells)
    if len(counts) > _MOST_VALUES:
        return 0.0, False, False
    plain = [(_plain(cell), n) for cell, n in counts.items() if cell.strip()]
    filled = sum(n for _, n in plain)
    known = sum(n for value, n in plain if value in _HEARD | _NOT_HEARD | _UNKNOWN)
    some = any(value in _HEARD for value, _ in plain)
    return (known / filled if filled else 0.0), known == filled, some


def varies(rows: Sequence[Sequence[str]], place: int) -> bool:
    """Whether a column says both that its class is heard and that it is not."""
    values = {_plain(row[place]) for row in rows if place < len(row)}
    return bool(values & _HEARD) and bool(values & _NOT_HEARD or "" in values)


def _plain(cell: str) -> str:
    text = cell.strip().lower()
    try:
        number = float(text)
    except ValueError:
        return text
    return f"{number:g}"


def class_names(
    names: Sequence[str], places: Sequence[int], check: Callable[[str], str], where: str
) -> dict[int, str]:
    """The class that each column stands for.

    Args:
        names: of all columns, as they are written.
        places: from `find_class_columns`.
        check: returns a label in the form to use, or raises an error.
        where: the file and line, for the error.

    Raises:
        DataError: two columns have the same name, or one that cannot be used.
    """
    found = {place: check(names[place].rstrip(f"{UNSURE} ")) for place in places}
    for place, name in found.items():
        if list(found.values()).count(name) > 1:
            raise DataError(f"{where}: the column {show(names[place])!r} appears twice.")
    return found


def row_reader(
    classes: Mapping[int, str], rows: Sequence[Sequence[str]]
) -> Callable[[Sequence[str], str], str]:
    """A function from a row, and where it is, to the text of its set of labels.

    In a column that says "not heard" somewhere, an empty cell says nothing; in the others
    it says "not heard". The function raises DataError for a cell that is none of these.

    Args:
        classes: from `class_names`.
        rows: of the table.
    """
    zeros = {place for place in classes if any(_plain(row[place]) in _NOT_HEARD for row in rows)}

    def read(row: Sequence[str], where: str) -> str:
        heard, unsure = [], []
        for place, label in classes.items():
            value = _plain(row[place])
            if value in _HEARD:
                heard.append(label)
            elif value in _UNKNOWN or (not value and place in zeros):
                unsure.append(label)
            elif value and value not in _NOT_HEARD:
                raise DataError(
                    f"{where}: the column {show(label)!r} holds {show(row[place])!r}. Write 1 "
                    "where the class is heard, 0 where it is not and ? where nobody knows, or, "
                    "if it is no class, take the column out."
                )
        return set_text(heard, unsure)

    return read
