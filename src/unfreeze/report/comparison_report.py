"""`report.html` of a comparison: which strategy is best, by how much, and at what cost.

It is read from `comparison.json` and the records of the runs, so that it can be written again
at any time. Every number is one of theirs.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unfreeze.core.html_tables import as_text
from unfreeze.errors import RunError, show
from unfreeze.files import write_text
from unfreeze.pipeline.run_folder import REPORT, read_json, read_yaml, refuse_links
from unfreeze.report.html_page import (
    UNKNOWN,
    Part,
    contents,
    counted,
    details,
    document,
    facts,
    files_that_fit,
    notes,
    number,
    paragraph,
    percent,
    section,
    table,
)
from unfreeze.report.svg_charts import interval_line, score_scale

Row = Mapping[str, Any]

#: The files of a comparison that are read.
RESULT, RUNS, CONFIG = "comparison.json", "runs", "config.yaml"
_CURE = "repeat the command of the comparison, which runs nothing again"


def part_words(part: str, grouped: bool) -> str:
    """A part of the clips, in words."""
    if not grouped:
        return "on held-out clips"
    return "on unseen groups" if part == "test" else "on new clips of the trained groups"


def write_comparison_report(folder: Path) -> Path:
    """Write the report of a comparison into its folder.

    Args:
        folder: of the comparison.

    Returns:
        The file.

    Raises:
        RunError: it holds no result, or its files are damaged.
    """
    refuse_links(folder)
    if not (folder / RESULT).is_file():
        raise RunError(f"{show(folder)} has no {RESULT}: repeat the command of the comparison")
    with files_that_fit(folder, _CURE):
        result = read_json(folder / RESULT, _CURE)
        config = read_yaml(folder / CONFIG) if (folder / CONFIG).is_file() else {}
        records = [read_json(file, _CURE) for file in sorted((folder / RUNS).glob("*.json"))]
        page = _page(folder.resolve().name, result, config, records)
    write_text(folder / REPORT, page)
    return folder / REPORT


def _page(name: str, result: Row, config: Row, records: Sequence[Row]) -> str:
    parts = [_ranking(result), _differences(result), _runs(result, records), _settings(config)]
    counts = (
        f"{counted(len(result['rows']), 'strategy', 'strategies')}, "
        f"{counted(result['runs'], 'run')}, {counted(result['seeds'], 'seed')}, "
        f"{counted(result['groups'], _unit(result))} to test on"
    )
    body = (
        f"<header>{paragraph('Report of a comparison', 'over')}<h1>{as_text(name)}</h1>"
        f"{paragraph(counts, 'lead')}{contents(parts)}</header>\n<main id='main'>\n"
        f"{_headline(result)}{notes(result['notes'])}\n{''.join(part.html for part in parts)}"
        "</main>\n<footer><p>Written by unfreeze compare.</p></footer>"
    )
    return document(f"{name}: comparison", body)


def _unit(result: Row) -> str:
    return "group" if result["grouped"] else "clip"


def _headline(result: Row) -> str:
    said = "".join(paragraph(line) for line in result["verdict"])
    if not result["rows"]:
        return f"<div class='head'><div class='words'>{said}</div></div>"
    best = result["rows"][0]
    score = best["scores"]["test"]
    big = percent(score["accuracy"]).replace(" %", "&thinsp;%")
    scale = score_scale(score["accuracy"], score["interval"], None)
    where = part_words("test", result["grouped"])
    first = paragraph(f"{best['strategy']} has the highest {result['score']} {where}")
    if len(result["rows"]) == 1:
        first = ""
    return (
        f"<div class='head'><p class='big'>{big}</p><div class='words'>{first}{said}</div>"
        f"{scale}</div>"
    )


def _ranking(result: Row) -> Part:
    rows = result["rows"]
    if not rows:
        return section("Strategies", "Strategies")
    parts = list(rows[0]["scores"])
    low, high = _span([row["scores"]["test"] for row in rows], "accuracy")
    made = [
        (
            as_text(row["strategy"]),
            *(_estimate(row["scores"][part]) for part in parts),
            f"{row['seconds']:,.0f}",
            f"{row['epochs']:.0f}",
            interval_line(
                row["scores"]["test"]["accuracy"], row["scores"]["test"]["interval"], low, high
            ),
        )
        for row in rows
    ]
    heads = [f"{result['score']} {part_words(part, result['grouped'])}" for part in parts]
    lead = (
        f"Behind each {result['score']} its 95 % interval, over {_unit(result)}s and seeds; the "
        f"line goes from {percent(low)} to {percent(high)}. Seconds are those of a run, without "
        "what all runs share. The score of the best is slightly too high, because the best was "
        "chosen by the same scores."
    )
    return section(
        "Strategies",
        "Strategies, the best first",
        paragraph(lead, "lead"),
        table("Strategies", ("strategy", *heads, "seconds", "epochs", ""), made, "bar"),
    )


def _span(estimates: Sequence[Row], name: str) -> tuple[float, float]:
    """The ends of a scale that holds all intervals, in steps of a tenth."""
    ends = [x for one in estimates for x in (one["interval"] or (one[name],))]
    low, high = float(np.floor(10 * min(ends)) / 10), float(np.ceil(10 * max(ends)) / 10)
    return (low, high) if low < high else (high - 0.1, high)


def _estimate(one: Row) -> str:
    bounds = one["interval"]
    if bounds is None:
        return number(one["accuracy"])
    return f"{number(one['accuracy'])} <small>{bounds[0]:.3f} to {bounds[1]:.3f}</small>"


def _differences(result: Row) -> Part:
    found = result["differences"]
    if not found:
        return section("Differences", "Differences")
    low, high = _span(found, "value")
    rows = [
        (
            f"{as_text(d['best'])} against {as_text(d['other'])}",
            part_words(d["part"], result["grouped"]),
            f"{100 * d['value']:+.1f} <small>{_points(d['interval'])}</small>",
            "yes" if d["told_apart"] else "no",
            interval_line(d["value"], d["interval"], min(low, 0.0), max(high, 0.1), zero=True),
        )
        for d in found
    ]
    lead = (
        "Both strategies are scored on the same clips and draws, so the interval of a difference "
        "is narrower than those of the scores. Where it includes 0 (the upright line), they "
        "cannot be told apart."
    )
    headers = ("", "", "points", "told apart", "")
    return section(
        "Differences",
        "Differences to the best",
        paragraph(lead, "lead"),
        table("Differences", headers, rows, "bar", plain=2),
    )


def _points(bounds: Sequence[float] | None) -> str:
    return UNKNOWN if bounds is None else f"{100 * bounds[0]:+.1f} to {100 * bounds[1]:+.1f}"


def _runs(result: Row, records: Sequence[Row]) -> Part:
    order = {row["strategy"]: place for place, row in enumerate(result["rows"])}
    rows = []
    for record in sorted(
        records,
        key=lambda r: (
            order.get(r["strategy"], len(order)),
            r["strategy"],
            r["seed"],
            str(r["fold"]),
        ),
    ):
        fold = UNKNOWN if record["fold"] is None else str(record["fold"])
        head = (as_text(record["strategy"]), f"{record['seed']}", fold)
        if "error" in record:
            rows.append((*head, "diverged", UNKNOWN, UNKNOWN))
            continue
        scores = record["scores"]["test"]
        right = scores.get("right")
        if right is None:
            right = np.equal(scores["truth"], scores["guess"])
        epochs = " + ".join(str(n) for n in record["epochs"].values())
        seconds = f"{record['seconds']:,.0f}"
        rows.append((*head, number(float(np.mean(right))), seconds, epochs))
    headers = ("strategy", "seed", "fold", result["score"], "seconds", "epochs")
    made = table("Each run", headers, rows)
    return section("Runs", "Each run", details(counted(len(rows), "run"), made))


def _settings(config: Row) -> Part:
    data = config.get("data") or {}
    rows = [
        (as_text(key), as_text(json.dumps(value, ensure_ascii=False)))
        for key, value in config.items()
        if key not in ("data", "unfreeze_comparison", "labels")
    ]
    return section(
        "Settings",
        "What all runs share",
        facts(
            {
                "clips": as_text(data.get("clips", "")),
                "classes": as_text(", ".join(map(str, config.get("labels") or ()))),
                "fingerprint": as_text(str(data.get("fingerprint", ""))[:16]),
            }
        ),
        details("All settings", table("Settings", ("setting", "value"), rows, plain=2)),
    )
