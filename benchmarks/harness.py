"""Runs a comparison: sides take turns in each round, ratios are taken round by round.

A machine that slows down slows all sides of a round, so ratios hold where rates
do not. The order of the sides turns around from round to round. A side that
fails is left out of the later rounds and reported with its cause.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from statistics import median
from typing import Any

from benchmarks.machine import busy, machine
from benchmarks.plan import Comparison, Ratio, Row, Side
from benchmarks.processes import SideFailed, start

Start = Callable[[Side], Any]


def run(
    comparison: Comparison,
    rounds: int | None = None,
    begin: Start = start,
    look: Callable[[], float | None] = busy,
) -> dict[str, Any]:
    """Run all rounds.

    Args:
        comparison: what to run.
        rounds: overrides the comparison's own.
        begin: starts a side; gives an object with `round`, `close` and `versions`.
        look: tells how busy the machine is with other work.

    Returns:
        The comparison's part of `results.json`.
    """
    began = time.perf_counter()
    others = [look()]
    failed: dict[str, str] = {}
    versions: dict[str, str] = {}
    for side in comparison.before:
        try:
            with closing(begin(side)) as process:
                process.round()
                versions |= process.versions
        except SideFailed as error:
            failed[side.name] = str(error)
    rows: list[Row] = []
    with ExitStack() as stack:
        running: dict[str, Any] = {}
        for side in comparison.sides:
            try:
                running[side.name] = stack.enter_context(closing(begin(side)))
            except SideFailed as error:
                failed[side.name] = str(error)
        for number in range(rounds or comparison.rounds):
            rows.append(_round(running, number, failed))
            if comparison.derive is not None:
                comparison.derive(rows[-1])
        for process in running.values():
            versions |= process.versions
    others.append(look())
    return {
        "title": comparison.title,
        "unit": comparison.unit,
        "when": time.strftime("%Y-%m-%d"),
        "took_seconds": round(time.perf_counter() - began, 1),
        "settings": {**comparison.settings, "rounds": len(rows)},
        "machine": machine(),
        "others": max((part for part in others if part is not None), default=None),
        "versions": dict(sorted(versions.items())),
        "sides": {
            side.name: _values(rows, side.name, comparison.keys) for side in comparison.sides
        },
        "ratios": [ratio_of(ratio, rows) for ratio in comparison.ratios],
        "failed": failed,
        "notes": list(comparison.notes),
    }


def _round(running: dict[str, Any], number: int, failed: dict[str, str]) -> Row:
    row: Row = {}
    names = [name for name in running if name not in failed]
    for name in names if number % 2 == 0 else reversed(names):
        try:
            row[name] = running[name].round()
        except SideFailed as error:
            failed[name] = str(error)
    return row


def _values(rows: Sequence[Row], side: str, keys: Sequence[str]) -> dict[str, Any]:
    """Each shown value of a side: median, range, and what each round gave."""
    found = {}
    for key in keys:
        values = [row[side][key] for row in rows if key in row.get(side, {})]
        if values:
            found[key] = _spread(values)
    return found


def ratio_of(ratio: Ratio, rows: Sequence[Row]) -> dict[str, Any]:
    """A ratio over all rounds that have both values.

    Returns:
        text, target, at_most; and median, low, high, by_round, reached, or else
        `missing`, which says why there is none. A ratio that some round lacks is
        not reached.
    """
    result: dict[str, Any] = {"text": ratio.text, "target": ratio.target, "at_most": ratio.at_most}
    values = []
    for row in rows:
        top = row.get(ratio.top, {}).get(ratio.key)
        bottom = 1.0
        if ratio.bottom is not None:
            bottom = row.get(ratio.bottom, {}).get(ratio.bottom_key or ratio.key)
        if top is not None and bottom:
            values.append(top / bottom)
    if values:
        result |= _spread(values)
    if len(values) < len(rows) or not rows:
        result["missing"] = ratio.missing
    if ratio.target is not None:
        middle = result.get("median")
        good = middle is not None and "missing" not in result
        result["reached"] = good and (
            middle <= ratio.target if ratio.at_most else middle >= ratio.target
        )
    return result


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {
        "median": float(f"{median(values):.5g}"),
        "low": float(f"{min(values):.5g}"),
        "high": float(f"{max(values):.5g}"),
        "by_round": [float(f"{value:.5g}") for value in values],
    }
