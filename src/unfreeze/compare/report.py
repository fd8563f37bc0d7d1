"""Writes what a comparison found: for programs, to read, and as pictures."""

from collections.abc import Sequence
from pathlib import Path

from unfreeze.compare import folder
from unfreeze.compare.summary import Estimate, Summary, part_words, verdict
from unfreeze.compare.trial import Record
from unfreeze.files import write_json, write_text
from unfreeze.report.comparison_plots import plot_accuracies, plot_costs, plot_distances


def write_report(out: Path, summary: Summary, records: Sequence[Record]) -> None:
    """Write `comparison.json`, `report.md` and the pictures."""
    plain = summary.as_plain()
    pictures = []
    if summary.rows:
        plot_accuracies(plain["rows"], summary.grouped, out / "accuracy.png")
        plot_costs(plain["rows"], summary.grouped, out / "cost.png")
        plot_distances(plain["rows"], records, out / "moved.png")
        pictures = ["accuracy.png", "cost.png", "moved.png"]
    write_text(out / folder.REPORT, _text(summary, pictures))
    write_json(out / folder.RESULT, plain)


def _text(summary: Summary, pictures: Sequence[str]) -> str:
    lines = ["# Which strategy is best on these data", ""]
    lines += [f"- {line}" for line in verdict(summary)]
    lines += ["", *(f"- {note}" for note in summary.notes)] if summary.notes else []
    if summary.rows:
        parts = list(summary.rows[0].scores)
        heads = [f"accuracy {part_words(part, summary.grouped)}" for part in parts]
        lines += ["", "| strategy | " + " | ".join(heads) + " | seconds a run | epochs |"]
        lines += ["|---" * (len(parts) + 3) + "|"]
        for row in summary.rows:
            cells = [_cell(row.scores[part]) for part in parts]
            end = f"{row.seconds:.0f} | {row.epochs:.0f} |"
            lines.append(f"| {row.strategy} | " + " | ".join(cells) + f" | {end}")
        kind = "groups" if summary.grouped else "clips"
        lines += [
            "",
            f"Means over {summary.runs} runs, {summary.seeds} seeds, {summary.groups} test {kind}. "
            f"Brackets: 95 % intervals, bootstrap over {kind} and seeds; differences are paired. "
            "Seconds leave out what is shared by all runs. The best of several is flattered a "
            "little by being chosen with the same numbers.",
        ]
    for picture in pictures:
        lines += ["", f"![]({picture})"]
    return "\n".join(lines) + "\n"


def _cell(estimate: Estimate) -> str:
    if estimate.interval is None:
        return f"{estimate.accuracy:.3f}"
    low, high = estimate.interval
    return f"{estimate.accuracy:.3f} [{low:.3f}, {high:.3f}]"
