"""`report.html` of a training run: what came of it, what is behind the numbers, how to repeat it.

Everything is read from the run's folder, so that the report can be written again at any time,
and for runs of earlier versions as far as their files go. The recordings are needed for
pictures and sounds alone; the network is not. The page stays below `LIMIT`.
"""

import csv
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from unfreeze.audio.entries import is_quiet
from unfreeze.audio.label_sets import heard_in
from unfreeze.audio.rules import Problem
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.backbones.registry import Backbone, get_backbone
from unfreeze.core.html_tables import as_text
from unfreeze.errors import RunError, UnfreezeError, show
from unfreeze.files import write_text
from unfreeze.pipeline import run_folder
from unfreeze.pipeline.predictions import Predictions, of_part, read_predictions
from unfreeze.report.clip_cards import (
    Cards,
    cell_counts,
    choose_clips,
    judge,
    thresholds_in,
    where,
)
from unfreeze.report.html_page import (
    UNKNOWN,
    bounds_text,
    contents,
    counted,
    details,
    document,
    facts,
    notes,
    number,
    paragraph,
    problem_list,
    section,
    table,
)
from unfreeze.report.score_sections import (
    before_and_after,
    class_scores,
    headline,
    mistakes_by_class,
    short_result,
)
from unfreeze.report.svg_charts import Curves, curves_chart, depths_chart, share_bar

Progress = Callable[[int, int], None]
Made = tuple[str, str, str]
Row = Mapping[str, Any]

#: Bytes of a page at most.
LIMIT = 5_000_000
# Epochs and groups that tables list.
_EPOCHS, _GROUPS = 200, 40
_PARTS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Run:
    """What the files of a run say.

    Attributes:
        folder: of the run.
        config: `config.yaml`.
        metrics: `metrics.json`.
        history: `history.csv`; empty if it is missing.
        audit: the stages of `audit.json`; likewise.
        clips: `splits.csv`; likewise.
        about: `notes.json`; likewise.
        root: the folder of the recordings.
        predictions: `predictions.csv`; None if it is missing.
        backbone: the network, or None if this version does not know it.
    """

    folder: Path
    config: Row
    metrics: Row
    history: Sequence[Row]
    audit: Sequence[Row]
    clips: Sequence[Mapping[str, str]]
    about: Row
    root: Path
    predictions: Predictions | None
    backbone: Backbone | None

    @property
    def options(self) -> Row:
        """The settings."""
        found = self.config.get("options")
        return found if isinstance(found, dict) else {}

    @property
    def front_end(self) -> FrontEnd | None:
        """How the network hears."""
        return None if self.backbone is None else self.backbone.front_end

    @property
    def part(self) -> str | None:
        """The part that the report is about; None if nothing was held out."""
        return next((part for part in ("test", "validation") if self.metrics.get(part)), None)


def write_run_report(folder: Path, progress: Progress | None = None) -> Path:
    """Write the report of a finished run into its folder.

    Args:
        folder: of the run.
        progress: called as progress(done, total) with counts of clips.

    Returns:
        The file.

    Raises:
        RunError: it is not a finished run, or its files are damaged.
    """
    run = _read(folder)
    file = folder / run_folder.REPORT
    try:
        page = _page(run, progress)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise RunError(
            f"The report of {show(folder)} cannot be written, as its files do not fit each other "
            f"({type(error).__name__}: {error}): copy the run's folder again, or train again"
        ) from error
    write_text(file, page)
    return file


def _read(folder: Path) -> Run:
    config = run_folder.read_config(folder)
    metrics = run_folder.read_scores(folder)
    cure = "train again, or copy the run's folder again"
    about = folder / run_folder.NOTES
    audit = folder / run_folder.AUDIT
    root, clips = run_folder.read_splits(folder)
    options = config.get("options")
    options = options if isinstance(options, dict) else {}
    try:
        backbone = get_backbone(
            str(options.get("backbone")),
            float(options.get("slow_down") or 1.0),
            options.get("channel"),
        )
    except (UnfreezeError, TypeError, ValueError):
        backbone = None
    return Run(
        folder,
        config,
        metrics,
        _history(folder / run_folder.HISTORY),
        run_folder.read_json(audit, cure)["stages"] if audit.is_file() else (),
        clips,
        run_folder.read_json(about, cure) if about.is_file() else {},
        root,
        read_predictions(folder, root),
        backbone,
    )


def _history(file: Path) -> list[Row]:
    try:
        with file.open(encoding="utf-8", newline="") as rows:
            return list(csv.DictReader(rows))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(f"{show(file)} cannot be read: {error}") from None


def _page(run: Run, progress: Progress | None) -> str:
    part, cards, shown = run.part, None, None
    made: list[Made] = []
    if part is not None:
        scores = run.metrics[part]
        cuts = thresholds_in(scores)
        judged = judge(of_part(run.predictions, part), scores["labels"], cuts)
        shown = choose_clips(judged)
        cards = Cards(run.root, run.front_end, scores["labels"], cuts is not None)
        made += [mistakes_by_class(scores, cell_counts(judged), shown.cells)]
    rest = _other_sections(run)
    if cards is None or shown is None or part is None:
        return _assemble(run, rest)
    classes = class_scores(run.metrics[part])
    # What the words take is not left for pictures and sounds.
    words = _assemble(run, [*made, *cards.sections(shown), classes, *rest])
    cards.cut(shown, LIMIT - len(words.encode("utf-8", "replace")), progress)
    return _assemble(run, [*made, *cards.sections(shown), classes, *rest])


def _other_sections(run: Run) -> list[Made]:
    metrics = run.metrics
    made = [before_and_after(metrics["change"])] if metrics.get("change") else []
    return [
        *made,
        _thresholds(metrics),
        _calibration(metrics),
        _training(run.history),
        _depths(metrics),
        _data(run),
        _moved(run.audit),
        _settings(run),
        _model_card(run),
    ]


def _assemble(run: Run, made: Sequence[Made]) -> str:
    name = run.folder.resolve().name
    labels = run.config.get("labels") or []
    title = run.backbone.title if run.backbone else str(run.options.get("backbone", ""))
    line = ", ".join(
        filter(
            None,
            (
                title,
                f"schedule {run.options.get('schedule')}",
                counted(len(labels), "class", "classes"),
                counted(len(run.clips), "clip"),
            ),
        )
    )
    part = run.part
    if part is None:
        result = paragraph("No clips were held out, so nothing was tested.", "said")
    else:
        result = headline(run.metrics[part], f"{part} clips")
    body = (
        f"<header>{paragraph('Report of a training run', 'over')}<h1>{as_text(name)}</h1>"
        f"{paragraph(line, 'lead')}{contents(made)}</header>\n<main id='main'>\n{result}"
        f"{notes(_warnings(run))}\n{''.join(html for _, _, html in made)}\n</main>\n"
        "<footer><p>Sounds and pictures are as the network hears them: mono, at its rate, the "
        "loudest 5 seconds of long clips, levels evened out. Written by "
        f"unfreeze {as_text(run.config.get('unfreeze', ''))}.</p></footer>\n{DIALOG}"
    )
    return document(f"{name}: report", body, script=True)


#: Where the script shows the clips behind a cell.
DIALOG = (
    "<dialog id='behind' aria-labelledby='behind-title'><div class='bar-top'>"
    "<h2 id='behind-title'>Clips</h2><button type='button' data-close>Close</button></div>"
    "<div class='cards'></div><p class='more lead'></p></dialog>"
)


def _warnings(run: Run) -> list[str]:
    """What a reader must know before the numbers."""
    found = []
    if run.part == "validation":
        found.append(
            "There are no test clips: these are the validation clips, by which epochs were chosen, "
            "so the scores are too good."
        )
    if run.part is not None and run.metrics[run.part].get("note"):
        found.append(str(run.metrics[run.part]["note"]))
    if run.part is not None and run.predictions is None:
        found.append(
            "This run has no predictions.csv (unfreeze 0.1 wrote none), so clips cannot be shown."
        )
    elif run.part is not None and where(run.root):
        found.append(where(run.root))
    if run.metrics.get("background") is False:
        found.append(
            "Trained without background: in long recordings, noise would be called one of the "
            "classes."
        )
    return [*found, *map(str, run.about.get("notes", ()))]


def _thresholds(metrics: Row) -> Made:
    name, title = "thresholds", "From which score a class counts as heard"
    choices = metrics.get("threshold_choices")
    if not choices:
        levels = metrics.get("thresholds") or {}
        rows = [(as_text(x), number(value)) for x, value in levels.items() if not is_quiet(x)]
        made = table(title, ("class", "from score"), rows)
        return name, title, section(name, title, made)
    counts = metrics.get("threshold_counts") or {}
    hours = counts.get("hours_of_background") or 0.0
    rows = [
        (
            as_text(label),
            number(row["threshold"], 3),
            _share_with_bounds(row, "recall"),
            _share_with_bounds(row, "precision"),
            *([_alarms(row)] if hours else []),
        )
        for label, row in choices.items()
        if not is_quiet(label)
    ]
    headers = ["class", "from score", "recall", "precision"]
    headers += ["false alarms an hour"] if hours else []
    background = f" and {60 * hours:.0f} minutes of background" if hours else ""
    lead = (
        f"In long recordings, a class is heard from this score on, chosen for "
        f"{metrics.get('threshold_wish')}. Estimated on validation clips{background}; behind each "
        "number its 95 % interval. Choose others with predict --precision or --max-false-alarms."
    )
    return name, title, section(name, title, paragraph(lead, "lead"), table(title, headers, rows))


def _share_with_bounds(row: Row, name: str) -> str:
    if row[name] is None:
        return UNKNOWN
    return f"{number(row[name], 2)} <small>{bounds_text(row[f'{name}_interval'])}</small>"


def _alarms(row: Row) -> str:
    if row["false_alarms"] is None:
        return UNKNOWN
    low, high = row["false_alarms_interval"]
    return f"{row['false_alarms']:.2g} <small>{low:.2g} to {high:.2g}</small>"


def _calibration(metrics: Row) -> Made:
    name, title = "calibration", "How far to trust the scores"
    found = metrics.get("calibration")
    if not found:
        return name, title, ""
    rows = [
        (
            f"{part} clips",
            *(number(own[key]) for key in ("error", "loss", "scaled_error", "scaled_loss")),
        )
        for part in ("validation", "test")
        if (own := found.get(part))
    ]
    temperature = found["temperature"]
    sure = "more" if temperature > 1 else "less"
    lead = (
        "The calibration error is how far a score such as 0.9 is from being right 90 % of the time, "
        f"in the mean. On the validation clips the model is {sure} sure than it should be: the "
        f"temperature that corrects this best is {temperature:.2f}. It is reported, not built in; the "
        "two columns on the right are with it."
    )
    headers = ("", "error", "loss", "error, corrected", "loss, corrected")
    made = table("Calibration", headers, rows)
    return name, title, section(name, title, paragraph(lead, "lead"), made)


def _training(history: Sequence[Row]) -> Made:
    name, title = "training", "Training"
    if not history:
        return name, title, ""
    # A solved stage has tried strengths of regularization, in an order of its own.
    rows, stages = list[Row](), list[tuple[str, int]]()
    for stage, group in groupby(history, key=lambda row: row["stage"]):
        own = list(group)
        if _is_solved(own):
            own.sort(key=lambda row: float(row["C"]))
        rows += own
        stages.append((str(stage), len(own)))
    kept = []
    first = 0
    for _, epochs in stages:
        best = [n for n in range(first, first + epochs) if rows[n].get("best") == "True"]
        kept += best[-1:]
        first += epochs
    charts = []
    for words, share, lines in (
        ("Loss", False, {"training": "loss", "validation": "val_loss"}),
        ("Accuracy of patches", True, {"training": "accuracy", "validation": "val_accuracy"}),
        (
            "Accuracy of validation clips",
            True,
            {"right": "val_clip_accuracy", "mean recall of the classes": "val_balanced_accuracy"},
        ),
        (
            "Validation clips",
            True,
            {"mean average precision": "val_mean_average_precision"},
        ),
    ):
        known = {key: _column(rows, column) for key, column in lines.items()}
        known = {key: line for key, line in known.items() if np.isfinite(line).any()}
        if known:
            chart = curves_chart(Curves(f"{words} over the epochs", known, stages, kept, share))
            charts.append(
                f"<figure>{chart}<figcaption>{_legend(words, known)}</figcaption></figure>"
            )
    solved = [
        s for s, own in groupby(history, key=lambda row: row["stage"]) if _is_solved(list(own))
    ]
    lead = "A ring marks what each stage kept. "
    if solved:
        lead += (
            f"{', '.join(solved)} was solved, not trained by epochs: its points are strengths of "
            "regularization, from the strongest to the weakest."
        )
    columns = [c for c in rows[0] if any(row.get(c) not in (None, "") for row in rows)]
    listed = [
        (as_text(row["stage"]), *(as_text(_short(row.get(c))) for c in columns if c != "stage"))
        for row in history[:_EPOCHS]
    ]
    made = table("Each epoch", ["stage", *(c for c in columns if c != "stage")], listed)
    return (
        name,
        title,
        section(
            name,
            title,
            paragraph(lead, "lead"),
            f"<div class='charts'>{''.join(charts)}</div>" if charts else "",
            details("Each epoch as a table", made),
        ),
    )


def _is_solved(rows: Sequence[Row]) -> bool:
    return all(row.get("C") not in (None, "") for row in rows)


def _column(rows: Sequence[Row], key: str) -> np.ndarray:
    values = [row.get(key) for row in rows]
    column = np.array([math.nan if v in (None, "") else float(v) for v in values])
    return np.where(np.isfinite(column), column, math.nan)


def _short(value: Any) -> str:
    try:
        return f"{float(value):.4g}"
    except (TypeError, ValueError):
        return {"True": "kept", "False": ""}.get(str(value), str(value or ""))


def _legend(words: str, lines: Mapping[str, np.ndarray]) -> str:
    marks = " ".join(
        f"<svg width='14' height='8' aria-hidden='true'><rect class='{kind}' width='14' height='3' "
        f"y='3'/></svg> {as_text(key)}"
        for kind, key in zip(("one", "two", "three"), lines, strict=False)
    )
    return f"<b>{as_text(words)}</b><span>{marks}</span>"


def _depths(metrics: Row) -> Made:
    name, title = "depths", "What each depth of the network knows"
    found = metrics.get("depths")
    if not found or not found["groups"]:
        return name, title, ""
    names = [str(group["group"]) for group in found["groups"]]
    values = [float(group["balanced_accuracy"]) for group in found["groups"]]
    peak = names.index(found["peak"]) if found["peak"] in names else None
    said = f"Mean recall of the classes from each depth alone; {found['summary']}"
    chart = depths_chart(said, names, values, peak, float(found["chance"]))
    lead = (
        "Mean recall of the classes when each layer group of the pretrained network is read alone, "
        f"on {counted(found['clips'], 'validation clip')}, from the input down to the end."
    )
    return (
        name,
        title,
        section(name, title, paragraph(lead, "lead"), chart, paragraph(found["summary"])),
    )


def _data(run: Run) -> Made:
    name, title = "data", "Data and parts"
    several = bool(run.config.get("multilabel"))
    clips: dict[str, Counter[str]] = defaultdict(Counter)
    groups: dict[str, set[str]] = {part: set() for part in _PARTS}
    for row in run.clips:
        part = row["split"]
        groups.setdefault(part, set()).add(row["group"])
        labels = (heard_in(row["label"]) or ("",)) if several else (row["label"],)
        for label in labels:
            clips[label][part] += 1
    parts = [part for part in groups if groups[part]]
    totals = Counter(row["split"] for row in run.clips)
    largest = max((sum(own.values()) for own in clips.values()), default=1)
    rows = [
        (
            as_text(label or "none of the classes"),
            *(f"{own[part]:,}" for part in parts),
            f"{sum(own.values()):,}",
            share_bar(sum(own.values()) / largest),
        )
        for label, own in sorted(clips.items())
    ]
    rows.append(
        ("all clips", *(f"{totals[part]:,}" for part in parts), f"{sum(totals.values()):,}", "")
    )
    every = len(set().union(*groups.values()))
    rows.append(("groups", *(f"{len(groups[part]):,}" for part in parts), f"{every:,}", ""))
    problems = [
        Problem(Path(str(p["path"])), str(p["rule"]), str(p["cause"]), bool(p["fatal"]))
        for p in run.about.get("problems", ())
    ]
    out = len({problem.path for problem in problems if problem.fatal})
    hours = run.about.get("hours")
    return (
        name,
        title,
        section(
            name,
            title,
            paragraph(
                "Training clips are learned from, validation clips choose among epochs, test clips "
                "are used for nothing but the test. Clips of one group stay in one part.",
                "lead",
            ),
            facts(
                {
                    "recordings in": as_text(show(run.root)),
                    "length": "" if hours is None else _length(float(hours)),
                    "files left out": f"{out:,}" if run.about else "not recorded",
                    "fingerprint": as_text((run.config.get("data") or {}).get("fingerprint", ""))[
                        :16
                    ],
                }
            ),
            table("Clips by class and part", ("class", *parts, "all", ""), rows, "bar"),
            details("Groups by part", _group_list(groups)),
            problem_list(problems),
        ),
    )


def _length(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"


def _group_list(groups: Mapping[str, set[str]]) -> str:
    """The groups of each part, where they have names of their own."""
    lines = []
    for part, own in groups.items():
        # A recording without a group is one, under the SHA-256 of its bytes.
        named = sorted(g for g in own if len(g) != 64)
        if named:
            more = len(named) - _GROUPS
            listed = ", ".join(named[:_GROUPS]) + (f" and {more:,} more" if more > 0 else "")
            lines.append(f"<li><b>{as_text(part)}</b> ({len(named):,}): {as_text(listed)}</li>")
    if lines:
        return f"<ul>{''.join(lines)}</ul>"
    return paragraph("No groups were given: each recording is one of its own, and so are copies.")


def _moved(audit: Sequence[Row]) -> Made:
    name, title = "moved", "What moved"
    rows, faults = [], 0
    for stage in audit:
        layers = [layer for layer in stage["layers"] if layer["weights"]]
        meant = [layer for layer in layers if layer["trainable"]]
        still = [layer for layer in layers if not layer["trainable"]]
        sizes = [layer["moved"] for layer in meant if layer["moved"]]
        wrong = sum(not layer["moved"] or not math.isfinite(layer["moved"]) for layer in meant)
        wrong += sum(layer["moved"] != 0 for layer in still)
        faults += wrong
        moved = f"{min(sizes):.2g} to {max(sizes):.2g}" if sizes else UNKNOWN
        rows.append(
            (
                as_text(stage["stage"]),
                f"{len(meant):,}",
                moved,
                f"{len(still):,}",
                "0 exactly" if all(layer["moved"] == 0 for layer in still) else "not 0",
                "as meant" if not wrong else f"{wrong:,} not as meant",
            )
        )
    if not rows:
        return name, title, ""
    headers = (
        *("stage", "layers that trained", "moved by"),
        *("frozen layers", "moved by", "check"),
    )
    lead = (
        "How far the weights of each layer moved, relative to their size. What a stage froze must "
        "not move at all, and what it trained must move."
    )
    warning = notes([f"{counted(faults, 'layer')} did not do as meant."] if faults else [])
    made = table(title, headers, rows)
    return name, title, section(name, title, paragraph(lead, "lead"), warning, made)


def _settings(run: Run) -> Made:
    name, title = "settings", "Settings, and how to repeat the run"
    config, options = run.config, run.options
    rows = [(as_text(key), as_text(_plain(value))) for key, value in options.items()]
    weights = config.get("weights") or {}
    return (
        name,
        title,
        section(
            name,
            title,
            f"<pre><code>{as_text(config.get('command', ''))}</code></pre>",
            facts(
                {
                    "unfreeze": as_text(config.get("unfreeze", "")),
                    "Keras": as_text(config.get("keras", "")),
                    "backend": as_text(config.get("backend", "")),
                    "weights, SHA-256": as_text(str(weights.get("sha256", ""))[:16]),
                }
            ),
            details("All settings", table("Settings", ("setting", "value"), rows, plain=2)),
        ),
    )


def _plain(value: Any) -> str:
    return {None: "not given", True: "yes", False: "no"}.get(value, str(value)) if not isinstance(
        value, int | float
    ) or isinstance(value, bool) else f"{value:g}"  # fmt: skip


def _model_card(run: Run) -> Made:
    name, title = "card", "Model card"
    labels = [str(x) for x in run.config.get("labels") or () if not is_quiet(str(x))]
    several = bool(run.config.get("multilabel"))
    part, front_end = run.part, run.front_end
    counts = Counter(row["split"] for row in run.clips)
    kind = "may be heard at the same time" if several else "one per clip"
    limits = [
        "It knows these classes and no others: another sound is called the class that it resembles"
        + (", or background" if run.metrics.get("background") else "")
        + ".",
        "The scores hold for recordings like those it was tested on: the same places, devices and "
        "kinds of sound. Elsewhere, measure again with unfreeze evaluate.",
        "Do not let it decide alone where a mistake does harm.",
    ]
    if front_end is not None:
        low, high = front_end.low_hz / 1000, front_end.high_hz / 1000
        limits.insert(
            1,
            f"It hears from {low:g} to {high:g} kHz, {front_end.patch_seconds:.3g} s at once, in mono.",
        )
    if part is not None and run.metrics[part]["groups"] == run.metrics[part]["clips"]:
        limits.append(
            "Each test clip is a group of its own: how it does on new speakers, sites or devices "
            "was not measured."
        )
    licence = run.backbone.licence if run.backbone else None
    terms = f"{licence.name}, {licence.url}" if licence else "see the network's own"
    notice = str(run.config.get("licence") or "")
    network = run.backbone.description if run.backbone else str(run.options.get("backbone", ""))
    return (
        name,
        title,
        section(
            name,
            title,
            facts(
                {
                    "intended use": as_text(
                        f"telling {counted(len(labels), 'class', 'classes')} of sound apart ({kind}) "
                        "in recordings like the training clips"
                    ),
                    "classes": as_text(", ".join(labels)),
                    "data": as_text(
                        f"{counted(counts['train'], 'training clip')}, {counts['validation']:,} for "
                        f"validation, {counts['test']:,} for the test"
                    ),
                    "result": as_text(
                        short_result(run.metrics[part], f"{part} clips") if part else ""
                    ),
                    "made from": as_text(network),
                    "licence of the pretrained weights": as_text(terms),
                }
            ),
            "<h3>Limits</h3>",
            f"<ul>{''.join(f'<li>{as_text(x)}</li>' for x in limits)}</ul>",
            "<h3>Licence</h3>" if notice else "",
            paragraph(notice),
            "<h3>Use it</h3>",
            f"<pre><code>unfreeze predict {as_text(run.folder)} new.wav</code></pre>",
        ),
    )
