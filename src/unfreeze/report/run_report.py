"""`report.html` of a training run: what came of it, what is behind the numbers, how to repeat it.

Everything is read from the run's folder, so that the report can be written again at any time,
and for runs of earlier versions as far as their files go. The recordings are needed for
pictures and sounds alone; the network is not. The page stays below `LIMIT`.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unfreeze.audio.entries import is_quiet
from unfreeze.audio.label_sets import heard_in
from unfreeze.audio.rules import Problem
from unfreeze.audio.split import PARTS
from unfreeze.core.html_tables import as_text
from unfreeze.errors import show
from unfreeze.files import write_text
from unfreeze.pipeline import run_folder
from unfreeze.pipeline.predictions import of_part
from unfreeze.report.clip_cards import (
    Cards,
    cell_counts,
    choose_clips,
    judge,
    thresholds_in,
    where,
)
from unfreeze.report.html_page import (
    DIALOG,
    LIMIT,
    Part,
    contents,
    counted,
    details,
    document,
    facts,
    files_that_fit,
    notes,
    paragraph,
    problem_list,
    section,
    table,
)
from unfreeze.report.run_files import Run, read_run
from unfreeze.report.run_sections import (
    calibration_part,
    depths_part,
    moved_part,
    thresholds_part,
    training_part,
)
from unfreeze.report.score_sections import (
    before_and_after,
    class_scores,
    headline,
    mistakes_by_class,
    short_result,
)
from unfreeze.report.svg_charts import share_bar

Progress = Callable[[int, int], None]

# Groups of a part that are listed.
_GROUPS = 40


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
    with files_that_fit(folder, "copy the run's folder again, or train again"):
        page = _page(read_run(folder), progress)
    file = folder / run_folder.REPORT
    write_text(file, page)
    return file


def _page(run: Run, progress: Progress | None) -> str:
    metrics, part = run.metrics, run.part
    more = [
        before_and_after(metrics["change"]) if metrics.get("change") else Part("Change", ""),
        thresholds_part(metrics),
        calibration_part(metrics),
        training_part(run.history),
        depths_part(metrics),
        _data(run),
        moved_part(run.audit),
        _settings(run),
        _model_card(run),
    ]
    if part is None:
        return _assemble(run, more)
    scores = metrics[part]
    cuts = thresholds_in(scores)
    judged = judge(of_part(run.predictions, part), scores["labels"], cuts)
    shown = choose_clips(judged)
    cards = Cards(run.root, run.front_end, scores["labels"], cuts is not None)
    first = mistakes_by_class(scores, cell_counts(judged), shown.cells)
    more = [class_scores(scores), *more]
    # What the words take is not left for pictures and sounds.
    words = _assemble(run, [first, *cards.sections(shown), *more])
    cards.cut(shown, LIMIT - len(words.encode("utf-8")), progress)
    return _assemble(run, [first, *cards.sections(shown), *more])


def _assemble(run: Run, parts: Sequence[Part]) -> str:
    name = run.folder.resolve().name
    network = run.backbone.title if run.backbone else str(run.options.get("backbone", ""))
    labels = run.config.get("labels") or []
    line = (
        f"{network}, schedule {run.options.get('schedule')}, "
        f"{counted(len(labels), 'class', 'classes')}, {counted(len(run.clips), 'clip')}"
    )
    result = paragraph("No clips were held out, so nothing was tested.", "said")
    if run.part is not None:
        result = headline(run.metrics[run.part], f"{run.part} clips")
    body = (
        f"<header>{paragraph('Report of a training run', 'over')}<h1>{as_text(name)}</h1>"
        f"{paragraph(line, 'lead')}{contents(parts)}</header>\n<main id='main'>\n{result}"
        f"{notes(_warnings(run))}\n{''.join(part.html for part in parts)}</main>\n"
        "<footer><p>Sounds and pictures are as the network hears them: mono, at its rate, the "
        "loudest 5 seconds of long clips, levels evened out. Trained by "
        f"unfreeze {as_text(run.config.get('unfreeze', ''))}.</p></footer>\n{DIALOG}"
    )
    return document(f"{name}: report", body, script=True)


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


def _data(run: Run) -> Part:
    several = bool(run.config.get("multilabel"))
    clips: dict[str, Counter[str]] = defaultdict(Counter)
    groups: dict[str, set[str]] = {part: set() for part in PARTS}
    for row in run.clips:
        groups.setdefault(row["split"], set()).add(row["group"])
        labels = (heard_in(row["label"]) or ("",)) if several else (row["label"],)
        for label in labels:
            clips[label][row["split"]] += 1
    parts = [part for part in groups if groups[part]]
    largest = max((own.total() for own in clips.values()), default=1)
    totals = Counter(row["split"] for row in run.clips)
    every = set().union(*groups.values())
    rows = [
        (
            as_text(label or "none of the classes"),
            *(f"{own[part]:,}" for part in parts),
            f"{own.total():,}",
            share_bar(own.total() / largest),
        )
        for label, own in sorted(clips.items())
    ]
    rows += [
        ("all clips", *(f"{totals[part]:,}" for part in parts), f"{totals.total():,}", ""),
        ("groups", *(f"{len(groups[part]):,}" for part in parts), f"{len(every):,}", ""),
    ]
    problems = [
        Problem(Path(str(p["path"])), str(p["rule"]), str(p["cause"]), bool(p["fatal"]))
        for p in run.about.get("problems", ())
    ]
    out = len({problem.path for problem in problems if problem.fatal})
    hours = run.about.get("hours")
    data = run.config.get("data") or {}
    lead = (
        "Training clips are learned from, validation clips choose among epochs, test clips are "
        "used for nothing but the test. Clips of one group stay in one part."
    )
    return section(
        "Data",
        "Data and parts",
        paragraph(lead, "lead"),
        facts(
            {
                "recordings in": as_text(show(run.root)),
                "length": "" if hours is None else _length(float(hours)),
                "files left out": f"{out:,}" if run.about else "not recorded",
                "fingerprint": as_text(str(data.get("fingerprint", ""))[:16]),
            }
        ),
        table("Clips by class and part", ("class", *parts, "all", ""), rows, "bar"),
        details("Groups by part", _group_list(groups)),
        problem_list(problems),
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


def _settings(run: Run) -> Part:
    config = run.config
    rows = [(as_text(key), as_text(_plain(value))) for key, value in run.options.items()]
    weights = config.get("weights") or {}
    return section(
        "Settings",
        "Settings, and how to repeat the run",
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
    )


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return "not given" if value is None else str(value)


def _model_card(run: Run) -> Part:
    labels = [str(x) for x in run.config.get("labels") or () if not is_quiet(str(x))]
    kind = "may be heard at once" if run.config.get("multilabel") else "one per clip"
    counts = Counter(row["split"] for row in run.clips)
    result = short_result(run.metrics[run.part], f"{run.part} clips") if run.part else "not tested"
    network, terms = str(run.options.get("backbone", "")), ""
    if run.backbone is not None:
        network, licence = run.backbone.description, run.backbone.licence
        terms = f"{licence.name}, {licence.url}" if licence else ""
    notice = str(run.config.get("licence") or "")
    return section(
        "Model card",
        "Model card",
        facts(
            {
                "intended use": as_text(
                    f"telling {counted(len(labels), 'class', 'classes')} of sound apart ({kind}), "
                    "in recordings like the training clips"
                ),
                "classes": as_text(", ".join(labels)),
                "data": as_text(
                    f"{counted(counts['train'], 'training clip')}, {counts['validation']:,} for "
                    f"validation, {counts['test']:,} for the test"
                ),
                "result": as_text(result),
                "made from": as_text(network),
                "licence of the weights": as_text(terms),
                "use it": f"<code>unfreeze predict {as_text(run.folder)} new.wav</code>",
            },
            "terms",
        ),
        "<h3>Limits</h3>",
        f"<ul>{''.join(f'<li>{as_text(limit)}</li>' for limit in _limits(run))}</ul>",
        f"<h3>Licence</h3>{paragraph(notice)}" if notice else "",
    )


def _limits(run: Run) -> list[str]:
    """What the model cannot do, as far as that is known."""
    other = ", or background" if run.metrics.get("background") else ""
    limits = [
        "It knows these classes and no others: another sound is called the class that it "
        f"resembles{other}."
    ]
    if run.front_end is not None:
        low, high = run.front_end.low_hz / 1000, run.front_end.high_hz / 1000
        at_once = f"{run.front_end.patch_seconds:.3g} s at once"
        limits.append(f"It hears from {low:g} to {high:g} kHz, in mono, {at_once}.")
    limits.append(
        "The scores hold for recordings like those of the test: the same places, devices and kinds "
        "of sound. Elsewhere, measure again with unfreeze evaluate."
    )
    if run.part is not None and run.metrics[run.part]["groups"] == run.metrics[run.part]["clips"]:
        limits.append(
            "Each test clip is a group of its own: how it does on new speakers, sites or devices "
            "was not measured."
        )
    return [*limits, "Do not let it decide alone where a mistake does harm."]
