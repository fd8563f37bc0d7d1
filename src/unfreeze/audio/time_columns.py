"""Columns of a table that look like start and end of sounds, under names that are not known.

`start_ms` and `end_ms` are in other units; `from` and `to` may be anything. Whole recordings
would be taken in their place, so what is surely a time is refused, and what may be one is told.
"""

import re
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from unfreeze.audio.table_file import NOTHING, Table

#: A time: 12.5, 1:02.5 or 1:00:02.5; its hours, minutes and seconds.
TIME = re.compile(r"(?:(?:(\d+):)?(\d+):)?\+?((?:\d+(?:[.,]\d*)?|\.\d+)(?:[eE][-+]?\d+)?)")
_LENGTHS = ("duration", "dur", "length", "len")
# The words for a start, and those for what goes with it.
_ENDS = {
    **dict.fromkeys(("start", "begin", "beg"), ("end", "stop", "finish", *_LENGTHS)),
    "onset": ("offset", "end", *_LENGTHS),
    "from": ("to", "until"),
    "von": ("bis",),
    "t0": ("t1",),
}
# Alone they may be of sites or years as well.
_VAGUE = ("from", "von", "t0")
_BEGINS = re.compile(r"((?:.*[^a-z])?t?)(start|begin|onset|(?:beg|from|von|t0)(?![a-z0-9]))(.*)")
# Of frequencies, calendars, clocks, places and people.
_OTHERWISE = re.compile(
    r"freq|hz|hour|date|day|week|month|year|season|utc|clock|"
    r"(?<![a-z])(?:id|lat\w*|lon\w*|lng|alt\w*|elev\w*|depth|temp\w*|km|x|y|row|line|page|site|"
    r"place|city|station|age)(?![a-z])"
)
# Timestamps may be those of whole recordings, and clips and segments may be cut already.
_OF_TIME = {
    *("ms", "msec", "msecs", "millis", "millisecond", "milliseconds", "us", "usec", "microseconds"),
    *("s", "sec", "secs", "second", "seconds", "sek", "sekunden", "min", "mins", "minute"),
    *("minutes", "sample", "samples", "frame", "frames", "time", "times", "zeit", "t"),
    *("event", "annotation", "call", "syllable"),
}
# Whole numbers up to here may be years, hours or sites.
_LAST_YEAR = 2100


@dataclass(frozen=True)
class Pair:
    """Two columns that look like start and end, or start and duration, of sounds.

    Attributes:
        start: the place of the one.
        end: that of the other.
        sure: whether they can hardly be anything else.
    """

    start: int
    end: int
    sure: bool


def find_times(table: Table, starts: AbstractSet[str], durations: AbstractSet[str]) -> Pair | None:
    """The columns of start and end that a table has under names that are not known.

    Args:
        table: without a start or an end under known names.
        starts: the known names of a start, which mean something else here.
        durations: the known names of a duration.

    Returns:
        The first pair that is sure, else the first; None where nothing looks like it.
    """
    pairs = list(_pairs(table, starts, durations))
    return next((pair for pair in pairs if pair.sure), pairs[0] if pairs else None)


def _pairs(table: Table, starts: AbstractSet[str], durations: AbstractSet[str]) -> Iterator[Pair]:
    header = table.header
    for first, name in enumerate(header):
        match = None if name in starts or _OTHERWISE.search(name) else _BEGINS.fullmatch(name)
        if match is None:
            continue
        before, word, behind = match.groups()
        named = not _OF_TIME.isdisjoint(re.findall("[a-z]+", f"{before} {behind}"))
        lengths = {f"{before}{length}{behind}" for length in _LENGTHS}
        ends = [f"{before}{end}{behind}" for end in _ENDS[word]]
        if named and word not in ("from", "von"):
            lengths |= durations
            ends += sorted(durations)
        for end in (end for end in ends if end in header):
            second = header.index(end)
            numbers = _numbers([row for _, row in table.rows], first, second)
            if numbers is None:
                continue
            # A duration may be shorter than the start.
            in_order = end in lengths or all(a < b for a, b, _ in numbers)
            whole = all(a == int(a) and b == int(b) for a, b, _ in numbers)
            small = whole and all(max(a, b) <= _LAST_YEAR for a, b, _ in numbers)
            bare = not before and not behind and not (word in _VAGUE and small)
            clock = any(clock for *_, clock in numbers)
            if named or in_order:
                yield Pair(first, second, (named or bare) and not clock)


def _numbers(
    rows: Sequence[Sequence[str]], first: int, second: int
) -> list[tuple[float, float, bool]] | None:
    """Both times of each row that has both, and whether they are written as on a clock.

    None where a cell is no time, or no row has both.
    """
    found = []
    for row in rows:
        cells = [row[place].strip() for place in (first, second) if place < len(row)]
        cells = [cell for cell in cells if cell.lower() not in NOTHING]
        matches = [TIME.fullmatch(cell) for cell in cells]
        if None in matches:
            return None
        times = [_seconds(match) for match in matches if match is not None]
        if len(times) == 2:
            found.append((times[0], times[1], any(":" in cell for cell in cells)))
    return found or None


def _seconds(match: re.Match[str]) -> float:
    hours, minutes, rest = match.groups()
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(rest.replace(",", "."))
