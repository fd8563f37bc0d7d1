"""Tables for the terminal: scores, what each stage moved, plans, and what corrections changed.

Each function turns plain data (see `unfreeze.pipeline.scoring.score` and `audit.json`)
into a rich table that fits 80 columns. Names come from users and are shown as they are,
never read as markup.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from unfreeze.audio.entries import is_quiet
from unfreeze.pipeline.label_scoring import BY_CLASS, OVERALL
from unfreeze.pipeline.scoring import CLASS_METRICS, METRICS

if TYPE_CHECKING:
    from unfreeze.core.boundary import Span, StagePlan

Layer = Mapping[str, Any]

NOTHING = "–"
# Chosen so that 80 columns hold a class, its numbers and the class it is taken for; and
# two layers, how they moved and, in the worst case, that they should not have.
LONGEST_CLASS, LONGEST_GUESS, LONGEST_LAYER = 18, 10, 16
# A class that is found less often than this is named below the thresholds, up to so many.
_SELDOM, _NAMED = 0.5, 5


def metrics_table(scores: Mapping[str, Any], title: str = "") -> Group:
    """Tabulate the overall scores with their intervals and notes.

    Args:
        scores: a dict from `unfreeze.pipeline.scoring.score`, or where clips may have
            several labels, from `unfreeze.pipeline.label_scoring.score_labels`.
        title: for instance the name of the split.
    """
    table = plain_table(title)
    table.add_column("score")
    table.add_column("value", justify="right")
    table.add_column(_level(scores), justify="right")
    for name in OVERALL if scores.get("multilabel") else METRICS:
        value, interval = scores[name], scores["intervals"][name]
        table.add_row(name.replace("_", " "), three_digits(value), _interval(interval))
    counts = f"{_count(scores['clips'], 'clip')} in {_count(scores['groups'], 'group')}."
    if scores.get("calibration_error") is not None:
        counts += f" Calibration error {scores['calibration_error']:.3f}."
    note = [Text(scores["note"], style="yellow")] if scores["note"] else []
    return Group(table, Text(counts, style="dim"), *note)


def worst_first(scores: Mapping[str, Any], key: str) -> list[tuple[str, Mapping[str, Any]]]:
    """The classes and their scores, the lowest first, those that no clip is of last.

    A gate's background is left out where no clip was taken for it either.

    Args:
        scores: as for `metrics_table`.
        key: of the score.
    """
    rows = scores["per_class"].items()
    shown = [
        (label, row)
        for label, row in rows
        if row["support"] or row[key] is not None or not is_quiet(label)
    ]

    def rank(item: tuple[str, Mapping[str, Any]]) -> tuple[bool, float]:
        row = item[1]
        return not row["support"], math.inf if row[key] is None else row[key]

    return sorted(shown, key=rank)


def class_table(scores: Mapping[str, Any], title: str = "", limit: int | None = None) -> Group:
    """Tabulate the scores of the classes, the worst first.

    That is by F1 or, where clips may have several labels, by average precision; the
    interval is of the same. Classes that no clip is of come last.

    Args:
        scores: as for `metrics_table`.
        title: for instance the name of the split.
        limit: maximum number of rows; None shows all.
    """
    several = bool(scores.get("multilabel"))
    key, names = ("average_precision", BY_CLASS) if several else ("f1", tuple(CLASS_METRICS))
    rows = worst_first(scores, key)
    shown = rows if limit is None else rows[:limit]
    table = plain_table(title)
    table.add_column("class", no_wrap=True)
    headers = {"average_precision": "AP"}
    for name in (*(headers.get(name, name) for name in names), _level(scores), "clips"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("from score" if several else "taken for", no_wrap=True)
    for label, row in shown:
        table.add_row(
            Text(short(label, LONGEST_CLASS)),
            *(three_digits(row[name]) for name in names),
            _interval(row["intervals"][key], digits=2),
            str(row["support"]),
            f"{row['threshold']:.2f}" if several else _taken_for(scores, label),
        )
    hidden = len(rows) - len(shown)
    noun = "class is" if hidden == 1 else "classes are"
    return Group(table, *[Text(f"{hidden} better {noun} not shown.", style="dim")] * bool(hidden))


def threshold_table(
    choices: Mapping[str, Mapping[str, Any]], title: str = "", limit: int | None = None
) -> Group:
    """Tabulate from which score each class is heard, and what that costs, the worst first.

    Args:
        choices: for each class, `unfreeze.pipeline.thresholds.Choice` as plain data.
        title: shown above the table.
        limit: maximum number of rows; None shows all.
    """
    rows = sorted(
        ((label, row) for label, row in choices.items() if not is_quiet(label)),
        key=lambda item: [
            math.inf if item[1][share] is None else item[1][share]
            for share in ("precision", "recall")
        ],
    )
    shown = rows if limit is None else rows[:limit]
    known = any(row["false_alarms"] is not None for _, row in rows)
    table = plain_table(title)
    table.add_column("class", no_wrap=True)
    for name in ("from score", "recall", "precision", "95% interval"):
        table.add_column(name, justify="right", no_wrap=True)
    if known:
        table.add_column("false alarms/h", justify="right", no_wrap=True)
    for label, row in shown:
        rate = [] if not known else [f"{row['false_alarms']:.3g}"]
        table.add_row(
            Text(short(label, LONGEST_CLASS)),
            f"{row['threshold']:.3f}",
            three_digits(row["recall"]),
            three_digits(row["precision"]),
            _interval(row["precision_interval"], digits=2),
            *rate,
        )
    hidden = len(rows) - len(shown)
    noun = "class is" if hidden == 1 else "classes are"
    below = [Text(f"{hidden} better {noun} not shown.", style="dim")] * bool(hidden)
    missed = [
        short(label, LONGEST_CLASS)
        for label, row in rows
        if row["recall"] is not None and row["recall"] < _SELDOM
    ]
    if missed:
        more = f" and {len(missed) - _NAMED} more" if len(missed) > _NAMED else ""
        text = (
            f"Found less than half of the time: {', '.join(missed[:_NAMED])}{more}. A lower score "
            "(predict --min-score) finds more, and more that is wrong."
        )
        below.append(Text(text, style="yellow"))
    return Group(table, *below)


def audit_table(audit: Sequence[Mapping[str, Any]], title: str = "") -> Table:
    """Tabulate what each stage moved; layers that behaved alike share a row.

    In most networks, convolutions that train alternate with BatchNorm layers that do
    not, so layers share a row wherever they are in the network.

    Args:
        audit: one mapping per stage: `stage` and `layers`, as in `audit.json`.
        title: shown above the table.
    """
    table = plain_table(title)
    table.add_column("layers", overflow="fold")
    for header in ("weights", "moved by"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("meant to", no_wrap=True)
    paths = list({str(layer["layer"]): None for stage in audit for layer in stage["layers"]})
    names = dict(zip(paths, shortest_unique(paths), strict=True))
    for stage in audit:
        table.add_row(Text(str(stage["stage"]), style="bold"))
        for run in _alike([layer for layer in stage["layers"] if layer["weights"]]):
            table.add_row(
                Text("  " + _span([names[str(layer["layer"])] for layer in run])),
                f"{sum(int(layer['weights']) for layer in run):,}",
                _movement(run),
                _verdict(run[0]),
            )
    return table


def plain_table(title: str) -> Table:
    """An empty table in the look of all tables."""
    return Table(
        title=Text(title, style="bold") if title else None,
        title_justify="left",
        box=None,
        header_style="dim",
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )


def _level(scores: Mapping[str, Any]) -> str:
    return f"{scores['bootstrap']['level']:.0%} interval"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def three_digits(value: float | None) -> str:
    """A score with three digits, or a dash where there is none."""
    return NOTHING if value is None else f"{value:.3f}"


def _interval(bounds: Sequence[float] | None, digits: int = 3) -> str:
    if bounds is None:
        return NOTHING
    return " to ".join(f"{bound:.{digits}f}" for bound in bounds)


def _taken_for(scores: Mapping[str, Any], label: str) -> Text:
    labels = scores["labels"]
    place = labels.index(label)
    wrong = [
        (count, -other)
        for other, count in enumerate(scores["confusion"][place])
        if count and other != place
    ]
    if not wrong:
        return Text(NOTHING)
    count, other = max(wrong)
    return Text(f"{count} {short(labels[-other], LONGEST_GUESS)}")


def _alike(layers: Sequence[Layer]) -> list[list[Layer]]:
    groups: dict[tuple[bool, str], list[Layer]] = {}
    for layer in layers:
        groups.setdefault((bool(layer["trainable"]), _state(layer)), []).append(layer)
    return list(groups.values())


def _state(layer: Layer) -> str:
    moved = layer["moved"]
    if moved is None or not math.isfinite(moved):
        return "not finite"
    return "moved" if moved > 0 else "still"


def _span(names: Sequence[str]) -> str:
    first, last = short(names[0], LONGEST_LAYER), short(names[-1], LONGEST_LAYER)
    if len(names) == 1:
        return first
    return f"{first} … {last}" + (f" ({len(names)})" if len(names) > 2 else "")


def _movement(run: Sequence[Layer]) -> str:
    state = _state(run[0])
    if state != "moved":
        return "0.0" if state == "still" else state
    low, high = min(layer["moved"] for layer in run), max(layer["moved"] for layer in run)
    texts = [f"{size:.1e}" if size < 1e-3 else f"{size:.2g}" for size in (low, high)]
    return texts[0] if texts[0] == texts[1] else f"{texts[0]} to {texts[1]}"


def _verdict(layer: Layer) -> Text:
    meant = "train" if layer["trainable"] else "stay"
    if _state(layer) == ("moved" if layer["trainable"] else "still"):
        return Text(meant, style="green")
    return Text(f"{meant}: FAILED", style="bold red")


_BAR = 30
# Heads of the columns of a depth profile.
_DEPTH_COLUMNS = {
    "balanced_accuracy": {"accuracy": "accuracy", "balanced_accuracy": "balanced"},
    "mean_average_precision": {"mean_average_precision": "mAP"},
}


def depth_score(depths: Mapping[str, Any]) -> str:
    """Name of the score that depths are compared by; early runs, of one label a clip, keep none."""
    return str(depths.get("score", "balanced_accuracy"))


def depth_table(depths: Mapping[str, Any], title: str = "") -> Group:
    """Tabulate what each depth of a network knows, from the input up.

    Args:
        depths: `metrics.json["depths"]`, from
            `unfreeze.pipeline.depth_profile.DepthProfile.as_plain`.
        title: shown above the table.
    """
    table = plain_table(title)
    table.add_column("layer group", no_wrap=True)
    score = depth_score(depths)
    columns = _DEPTH_COLUMNS[score]
    for header in columns.values():
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in depths["groups"]:
        is_peak = row["group"] == depths["peak"]
        blocks = "█" * round(_BAR * row[score])
        table.add_row(
            Text(short(row["group"], LONGEST_LAYER)),
            *(three_digits(row[name]) for name in columns),
            f"{blocks} peak" if is_peak else blocks,
            style="bold" if is_peak else None,
        )
    note = (
        f"Each group alone, on {_count(depths['clips'], 'validation clip')}. Chance: "
        f"{three_digits(depths['chance'])}. Standard error of the best: "
        f"{three_digits(depths['standard_error'])}."
    )
    return Group(table, Text(note, style="dim"))


# Two layers, an ellipsis and the numbers beside them fill a line of 80 columns.
_LONGEST_LAYER, _LONGEST_STAGE = 15, 12
_SPANS_SHOWN = 3


def plan_table(plans: "Sequence[StagePlan]", title: str = "") -> Group:
    """Tabulate the stages of a schedule.

    Args:
        plans: one for each stage, from `unfreeze.core.boundary.plan_stage`.
        title: shown above the table.
    """
    table = plain_table(title)
    table.add_column("stage", overflow="fold", max_width=_LONGEST_STAGE)
    table.add_column("epochs", justify="right", no_wrap=True)
    table.add_column("trains", overflow="fold")
    for header in ("weights", "frozen\nwork", "cache per\nsample"):
        table.add_column(header, justify="right", no_wrap=True)
    names = _names(plans)
    for plan in plans:
        table.add_row(
            Text(plan.stage),
            _epochs(plan),
            _trains(plan, names),
            _two_lines(f"{plan.weights_trained:,}", _layer_count(len(plan.trains), "layer")),
            _share(plan.prefix_work) if plan.cacheable else NOTHING,
            _size(plan.cache_bytes) if plan.cached else NOTHING,
        )
    return Group(table, *(Text(note, style="dim") for note in _notes(plans)))


def _epochs(plan: "StagePlan") -> str:
    if not plan.epochs:
        return "left out"
    if plan.solve:
        return "solved"
    return f"{plan.epochs}" if plan.keep == "last" else f"≤ {plan.epochs}"


def _names(plans: "Sequence[StagePlan]") -> dict[str, str]:
    paths = {path: None for plan in plans for path in (*plan.trains, *plan.boundary)}
    return dict(zip(paths, shortest_unique(list(paths)), strict=True))


def _trains(plan: "StagePlan", names: dict[str, str]) -> Text:
    lines = [_layer_span(span, names) for span in plan.spans[:_SPANS_SHOWN]]
    hidden = len(plan.spans) - len(lines)
    if hidden:
        layers = sum(span.layers for span in plan.spans[_SPANS_SHOWN:])
        lines.append(f"and {_layer_count(layers, 'layer')} more")
    text = Text("\n".join(lines))
    if plan.cacheable:
        edge = [short(names[path], 2 * _LONGEST_LAYER - 4) for path in plan.boundary[:2]]
        more = f" +{len(plan.boundary) - 2}" if len(plan.boundary) > 2 else ""
        text.append(f"\nafter {', '.join(edge)}{more}", style="dim")
    return text


def _layer_span(span: "Span", names: dict[str, str]) -> str:
    if span.first == span.last:
        return short(names[span.first], 2 * _LONGEST_LAYER)
    first, last = names[span.first], names[span.last]
    return f"{short(first, _LONGEST_LAYER)} … {short(last, _LONGEST_LAYER)}"


def _notes(plans: "Sequence[StagePlan]") -> Iterator[str]:
    silenced = list(dict.fromkeys(path for plan in plans for path in plan.silenced))
    if silenced:
        verb = "is" if len(silenced) == 1 else "are"
        yield f"Dropout in frozen layers {verb} off: {_some(silenced)}."
    live = list(dict.fromkeys(path for plan in plans for path in plan.live_augmentation))
    if live:
        verb = "draws" if len(live) == 1 else "draw"
        yield f"No cache: {_some(live)} {verb} at random first (a stage's `views` allows one)."


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(short(name, 2 * _LONGEST_LAYER) for name in names[:3]) + more


def _two_lines(first: str, second: str) -> Text:
    return Text(first).append(f"\n{second}", style="dim")


def _layer_count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _share(value: float | None) -> str:
    if value is None:
        return "?"
    # Nearly all must not read as 100 %.
    return "> 99 %" if 0.99 < value < 1 else f"{value:.0%}".replace("%", " %")


def _size(size: int | None) -> str:
    if size is None:
        return "varies"
    value = float(size)
    for unit in ("B", "KB", "MB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GB"


_NAMES = {
    "test": "old test clips",
    "corrected": "corrected, held out",
}
_MOVES = 6


def corrections_line(corrections: Mapping[str, Any]) -> str:
    """Describe in words what was corrected.

    Args:
        corrections: as from `unfreeze.audio.segments_file.Corrections.as_plain`.
    """
    moves = corrections["moved"]
    total = sum(move["clips"] for move in moves)
    parts = [f"{corrections['kept']} kept", f"{total} moved", f"{corrections['deleted']} deleted"]
    for key, words in (
        ("added", "added by hand"),
        ("repeated", "left out: already in the run"),
        ("relabelled", "relabelled in the run"),
        ("disputed", "left out: in the run's test set in another class"),
    ):
        parts += [f"{corrections[key]} {words}"] if corrections[key] else []
    lines = [f"corrections: {', '.join(parts)}"]
    lines += [f"  {m['from']} -> {m['to']}: {m['clips']}" for m in moves[:_MOVES]]
    lines += [f"  and {len(moves) - _MOVES} more pairs"] if len(moves) > _MOVES else []
    if corrections["new_classes"]:
        lines.append(f"  new classes: {', '.join(corrections['new_classes'])}")
    return "\n".join(lines)


def change_table(change: Mapping[str, Any]) -> Group:
    """Tabulate two models on the same clips.

    Args:
        change: `metrics.json["change"]`.
    """
    table = plain_table("Before and after, on the same clips")
    table.add_column("", no_wrap=True)
    table.add_column("clips", justify="right", no_wrap=True)
    table.add_column("score", no_wrap=True)
    for name in ("before", "after", "change", "95% interval"):
        table.add_column(name, justify="right", no_wrap=True)
    notes = []
    for part, title in _NAMES.items():
        scores = change[part]
        if scores is None:
            continue
        for row, name in enumerate(scores["difference"]):
            difference, interval = scores["difference"][name], scores["intervals"][name]
            table.add_row(
                Text(title if row == 0 else ""),
                str(scores["clips"]) if row == 0 else "",
                name.removesuffix("_accuracy").replace("_", " "),
                _changed_number(scores["before"][name]),
                _changed_number(scores["after"][name]),
                _changed_number(difference, "+.3f"),
                "" if interval is None else f"{interval[0]:+.3f} to {interval[1]:+.3f}",
            )
        if scores["note"]:
            notes.append(Text(f"{title}: {scores['note']}", style="yellow"))
    return Group(table, *notes)


def _changed_number(value: float | None, form: str = ".3f") -> str:
    return "–" if value is None else format(value, form)


def short(name: str, length: int) -> str:
    """Cut the middle out of a long name; its two ends distinguish it best.

    Examples:
        >>> short("block_3_expand_relu", 12)
        'block_…_relu'
    """
    if len(name) <= length:
        return name
    tail = (length - 1) // 2
    return f"{name[: length - 1 - tail]}…{name[len(name) - tail :]}"


def shortest_unique(paths: Sequence[str]) -> list[str]:
    """Shorten each path to the shortest end that no other path shares.

    "base/layer3/conv" becomes "layer3/conv" beside "base/layer4/conv". The paths
    must be distinct; a path that is the end of another is not shortened.
    """
    ends = {
        path: ["/".join(path.split("/")[-n:]) for n in range(1, path.count("/") + 2)]
        for path in paths
    }
    seen = Counter(end for each in ends.values() for end in each)
    return [next((end for end in ends[path] if seen[end] == 1), path) for path in paths]
