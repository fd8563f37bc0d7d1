"""`report.html` of a comparison: which strategy is best, by how much, and at what cost.

It is read from `comparison.json` and the records of the runs, so that it can be written again
at any time. Every number is one of theirs.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
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
#: The part of the scores that is of annotated recordings, where there are any.
RECORDINGS = "recordings"
_CURE = "repeat the command of the comparison, which runs nothing again"


def part_words(part: str, grouped: bool) -> str:
    """What is scored, in words: a part of the clips, or recordings."""
    if part == RECORDINGS:
        return "in the annotated recordings"
    if not grouped:
        return "on held-out clips"
    return "on unseen groups" if part == "test" else "on new clips of the trained groups"


def score_words(part: str, score: str) -> str:
    """The score of a part, in words; `score` is that of clips."""
    return "mean average precision" if part == RECORDINGS else score


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
    if result.get("recordings"):
        counts += f", {counted(result['recordings'], 'annotated recording')}"
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
    ranked = _ranked_by(result)
    score = best["scores"][ranked]
    big = percent(score["accuracy"]).replace(" %", "&thinsp;%")
    scale = score_scale(score["accuracy"], score["interval"], None)
    where, words = part_words(ranked, result["grouped"]), score_words(ranked, result["score"])
    first = paragraph(f"{best['strategy']} has the highest {words} {where}")
    if len(result["rows"]) == 1:
        first = ""
    return (
        f"<div class='head'><p class='big'>{big}</p><div class='words'>{first}{said}</div>"
        f"{scale}</div>"
    )


def _ranked_by(result: Row) -> str:
    return str(result.get("ranked_by", "test"))


def _ranking(result: Row) -> Part:
    rows = result["rows"]
    if not rows:
        return section("Strategies", "Strategies")
    parts, ranked = list(rows[0]["scores"]), _ranked_by(result)
    low, high = _span([row["scores"][ranked] for row in rows], "accuracy")
    extra = [_DETECTION[name] for name in rows[0].get("detection") or ()]
    made = [
        (
            as_text(row["strategy"]),
            *(_estimate(row["scores"][part]) for part in parts),
            *(_estimate(one, digits=_DIGITS[name]) for name, one in _detection(row)),
            f"{row['seconds']:,.0f}",
            f"{row['epochs']:.0f}",
            interval_line(
                row["scores"][ranked]["accuracy"], row["scores"][ranked]["interval"], low, high
            ),
        )
        for row in rows
    ]
    # Seven columns and a line must fit.
    heads = [
        "mean AP of events"
        if part == RECORDINGS
        else f"{result['score']} {part_words(part, result['grouped'])}"
        for part in parts
    ]
    units = f"{_unit(result)}s" if ranked != RECORDINGS else f"{_unit(result)}s or recordings,"
    lead = (
        f"Behind each score its 95 % interval, over {units} and seeds; the "
        f"line goes from {percent(low)} to {percent(high)}. Seconds are those of a run, without "
        "what all runs share. The score of the best is slightly too high, because the best was "
        "chosen by the same scores."
    )
    if extra:
        lead += (
            " In the recordings each model has a gate and thresholds as unfreeze train gives "
            "them; F1 and false alarms are at these thresholds, average precision (AP) is over all "
            "thresholds. A found event is right if true sounds of its class fill a tenth of it."
        )
    return section(
        "Strategies",
        "Strategies, the best first",
        paragraph(lead, "lead"),
        table("Strategies", ("strategy", *heads, *extra, "seconds", "epochs", ""), made, "bar"),
    )


def _span(estimates: Sequence[Row], name: str) -> tuple[float, float]:
    """The ends of a scale that holds all intervals, in steps of a tenth."""
    ends = [x for one in estimates for x in (one["interval"] or (one[name],))]
    low, high = float(np.floor(10 * min(ends)) / 10), float(np.ceil(10 * max(ends)) / 10)
    return (low, high) if low < high else (high - 0.1, high)


# Scores of detectors, what heads their columns, and their digits.
_DETECTION = {"f1": "F1 of events", "false_alarms_per_hour": "alarms an hour"}
_DIGITS = {"f1": 3, "false_alarms_per_hour": 1}


def _detection(row: Row) -> Iterable[tuple[str, Row]]:
    return (row.get("detection") or {}).items()


def _estimate(one: Row, digits: int = 3) -> str:
    bounds, value = one["interval"], f"{one['accuracy']:.{digits}f}"
    if bounds is None:
        return value
    return f"{value} <small>{bounds[0]:.{digits}f} to {bounds[1]:.{digits}f}</small>"


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
        "Both strategies are scored on the same clips, recordings and draws, so the interval of a "
        "difference is narrower than those of the scores. Where it includes 0 (the upright line), "
        "they cannot be told apart."
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
    searched = any("detection" in record for record in records)
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
            rows.append((*head, "diverged", *[UNKNOWN] * (5 if searched else 2)))
            continue
        scores = record["scores"]["test"]
        right = scores.get("right")
        if right is None:
            right = np.equal(scores["truth"], scores["guess"])
        epochs = " + ".join(str(n) for n in record["epochs"].values())
        seconds = f"{record['seconds']:,.0f}"
        found = _found(record) if searched else ()
        rows.append((*head, number(float(np.mean(right))), *found, seconds, epochs))
    more = ("mean average precision", *_DETECTION.values()) if searched else ()
    headers = ("strategy", "seed", "fold", result["score"], *more, "seconds", "epochs")
    made = table("Each run", headers, rows)
    return section("Runs", "Each run", details(counted(len(rows), "run"), made))


def _found(record: Row) -> tuple[str, str, str]:
    """The scores of a run's model as a detector."""
    own = record.get("detection") or {}
    alarms = own.get("false_alarms_per_hour")
    return (
        number(own.get("mean_average_precision")),
        number(own.get("f1")),
        UNKNOWN if alarms is None else f"{alarms:,.1f}",
    )


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
