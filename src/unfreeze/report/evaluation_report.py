"""`report.html` of an evaluation: a classifier on other recordings, as clips or as a detector.

The folder of an evaluation of clips holds `evaluation.json` (the scores, and what was
evaluated on what) and `predictions.csv`; that of events holds `event_scores.json` and its
pictures. The report is read from these, so that it can be written again at any time.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unfreeze.audio.rules import Problem
from unfreeze.backbones.frontend import FrontEnd, front_end_from
from unfreeze.core.html_tables import as_text
from unfreeze.errors import show
from unfreeze.files import write_text
from unfreeze.pipeline.evaluation import EVALUATED, EVALUATION
from unfreeze.pipeline.event_rates import MOST_ALARMS
from unfreeze.pipeline.predictions import of_part, read_predictions
from unfreeze.pipeline.run_folder import REPORT, read_json, refuse_links
from unfreeze.report.clip_cards import (
    Cards,
    cell_counts,
    choose_clips,
    judge,
    thresholds_in,
    where,
)
from unfreeze.report.clip_media import data_url
from unfreeze.report.html_page import (
    DIALOG,
    LIMIT,
    UNKNOWN,
    Part,
    contents,
    counted,
    document,
    facts,
    files_that_fit,
    notes,
    number,
    paragraph,
    percent,
    problem_list,
    rate,
    section,
    table,
)
from unfreeze.report.score_sections import class_scores, headline, mistakes_by_class
from unfreeze.report.svg_charts import interval_line, score_scale

Scores = Mapping[str, Any]
Progress = Callable[[int, int], None]

#: The scores of events; they or those of clips mark a folder as an evaluation.
EVENTS = "event_scores.json"
_CURE = "evaluate again"
# Samples of a window, hertz, and slowing down, at most.
_LARGEST, _FASTEST, _SLOWEST = 1 << 17, 5_000_000, 100
# Pictures of a detector's curves, with what they show.
_PICTURES = {
    "precision_recall.png": "Precision over recall by each rule, for all classes and for each",
    "false_alarms.png": "False alarms an hour over the threshold, for all classes and for each",
}
_RULES = {"overlap": "overlap", "iou": "IoU", "onset": "onset", "segments": "segments"}


def write_evaluation_report(folder: Path, progress: Progress | None = None) -> Path:
    """Write the report of an evaluation into its folder.

    Args:
        folder: of the evaluation.
        progress: called as progress(done, total) with counts of clips.

    Returns:
        The file.

    Raises:
        RunError: it holds no evaluation, or its files are damaged.
    """
    refuse_links(folder)
    clips, events = folder / EVALUATION, folder / EVENTS
    with files_that_fit(folder, _CURE):
        if clips.is_file():
            page = _clip_page(folder, read_json(clips, _CURE), progress)
        else:
            page = _event_page(folder, read_json(events, _CURE))
    write_text(folder / REPORT, page)
    return folder / REPORT


def _clip_page(folder: Path, found: Scores, progress: Progress | None) -> str:
    root, scores = Path(found["root"]), found["scores"]
    front_end = _front_end(found["front_end"])
    cuts = thresholds_in(scores)
    judged = judge(of_part(read_predictions(folder, root), EVALUATED), scores["labels"], cuts)
    shown = choose_clips(judged)
    cards = Cards(root, front_end, scores["labels"], cuts is not None)
    first = mistakes_by_class(scores, cell_counts(judged), shown.cells)
    classes = class_scores(scores)
    about = section(
        "Evaluated",
        "What was evaluated",
        facts(
            {
                "model": as_text(found["run"]),
                "recordings in": as_text(show(root)),
                "groups": f"{scores['groups']:,}",
                "files left out": f"{len(scores['problems']):,}",
                "unfreeze": as_text(found["unfreeze"]),
            },
            "terms",
        ),
        _left_out(scores),
    )
    warnings = [str(scores["note"])] if scores["note"] else []
    warnings += [where(root)] if where(root) else []

    def assemble() -> str:
        parts = [first, *cards.sections(shown), classes, about]
        result = f"{headline(scores, 'clips')}{notes(warnings)}"
        return _frame(folder, "Report of an evaluation", show(Path(found["run"])), result, parts)

    # What the words take is not left for pictures and sounds.
    cards.cut(shown, LIMIT - len(assemble().encode("utf-8")), progress)
    return assemble()


def _front_end(values: Mapping[str, Any]) -> FrontEnd:
    """How the model hears; refused where that could take hours or all memory.

    Raises:
        ValueError: it is none of a network that anybody would train.
    """
    found = front_end_from(values)
    plain = found.picture
    sizes = (plain.window, plain.hop, plain.fft, plain.bands, plain.patch_frames)
    if not all(isinstance(size, int) and 0 < size <= _LARGEST for size in sizes):
        raise ValueError("front_end")
    if not (1000 <= found.sample_rate <= _FASTEST and 1 <= found.slow_down <= _SLOWEST):
        raise ValueError("front_end")
    return found


def _frame(folder: Path, over: str, lead: str, result: str, parts: Sequence[Part]) -> str:
    name = folder.resolve().name
    body = (
        f"<header>{paragraph(over, 'over')}<h1>{as_text(name)}</h1>{paragraph(lead, 'lead')}"
        f"{contents(parts)}</header>\n<main id='main'>\n{result}\n"
        f"{''.join(part.html for part in parts)}</main>\n"
        f"<footer><p>Written by unfreeze evaluate.</p></footer>\n{DIALOG}"
    )
    return document(f"{name}: evaluation", body, script=True)


def _left_out(scores: Scores) -> str:
    return problem_list(
        Problem(Path(p["path"]), "left out", str(p["cause"]), True) for p in scores["problems"]
    )


def _event_page(folder: Path, scores: Scores) -> str:
    overall = scores["overall"]["overlap"]
    recall, precision = overall["recall"], overall["precision"]
    lead = (
        f"{counted(scores['recordings'], 'recording')}, {scores['hours']:.2f} hours, "
        f"{counted(scores['true_events'], 'true event')}, "
        f"{counted(scores['found_events'], 'event')} found"
    )
    alarms = scores["false_alarms"]
    false = "How many false alarms there are is not known, as not every sound is annotated."
    if alarms["per_hour"] is not None:
        false = (
            f"There are {rate(alarms['per_hour'])} false alarms in an hour ({alarms['count']:,} in "
            f"all, {alarms['on_other_classes']:,} on sounds of other classes)."
        )
    if scores.get("psds") is not None:
        false += (
            f" The polyphonic sound detection score (PSDS), up to {MOST_ALARMS:.0f} false alarms "
            f"of a class in an hour, is {number(scores['psds'])}."
        )
    said = [
        f"{percent(recall)} of the {scores['true_events']:,} true events are found",
        f"{percent(precision)} of the {scores['found_events']:,} events that were found are right.",
        false,
    ]
    words = "".join(paragraph(text) for text in said)
    big = percent(recall).replace(" %", "&thinsp;%")
    scale = "" if recall is None else score_scale(recall, None, None)
    result = (
        f"<div class='head'><p class='big'>{big}</p><div class='words'>{words}</div>{scale}</div>"
        f"{notes(map(str, scores['notes']))}"
    )
    parts = [_by_rule(scores), _by_class(scores), _pictures(folder), _searched(scores)]
    return _frame(folder, "Report of an evaluation as a detector", lead, result, parts)


def _by_rule(scores: Scores) -> Part:
    rows = [
        (
            name,
            *(number(scores["overall"][rule][key], 2) for key in ("precision", "recall", "f1")),
            number(scores["overall"][rule]["mean_average_precision"], 2),
            as_text(scores["rules"]["words"].get(rule, "")),
        )
        for rule, name in _RULES.items()
    ]
    headers = (
        "rule",
        "precision",
        "recall",
        "F1",
        "mean average precision",
        "an event is right if",
    )
    return section("Rules", "By each rule", table("Scores by rule", headers, rows, "rules"))


def _by_class(scores: Scores) -> Part:
    rows = []
    for label, row in scores["per_class"].items():
        by, alarms = row["overlap"], row["false_alarms_per_hour"]
        rows.append(
            (
                as_text(label),
                f"{row['true_events']:,}",
                f"{row['found_events']:,}",
                *(number(by[key], 2) for key in ("precision", "recall", "f1")),
                number(row["threshold"], 2),
                UNKNOWN if alarms is None else f"{alarms:.1f}",
                interval_line(by["f1"], None),
            )
        )
    headers = ("class", "true", "found", "precision", "recall", "F1", "from score", "alarms/h", "")
    lead = "Each class, by overlap; the line is F1 from 0 to 1."
    made = table("Scores of each class", headers, rows, "bar")
    return section("Classes", "Scores of each class", paragraph(lead, "lead"), made)


def _pictures(folder: Path) -> Part:
    made = []
    for name, words in _PICTURES.items():
        if (folder / name).is_file():
            url = data_url("image/png", (folder / name).read_bytes())
            made.append(f"<figure class='picture'><img src='{url}' alt='{words}'></figure>")
    return section("Curves", "Over all thresholds", *made)


def _searched(scores: Scores) -> Part:
    settings = scores["settings"]
    every = "fully: what is found elsewhere is a false alarm"
    return section(
        "Settings",
        "How it was searched",
        facts(
            {
                "window": f"{settings['window']:g} s",
                "hop": f"{settings['hop']:g} s",
                "smoothed": "yes" if settings["smooth"] else "no",
                "annotated": every if scores["annotated"] == "fully" else "partly",
            }
        ),
        _left_out(scores),
    )
