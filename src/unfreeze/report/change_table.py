"""What a person corrected, and what it changed, for the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

_NAMES = {
    "test": "old test clips",
    "corrected": "corrected, held out",
}
_MOVES = 6


def corrections_line(corrections: Mapping[str, Any]) -> str:
    """Say in words what was corrected.

    Args:
        corrections: as `review.corrections.Corrections.as_plain`.
    """
    moves = corrections["moved"]
    total = sum(move["clips"] for move in moves)
    parts = [f"{corrections['kept']} kept", f"{total} moved", f"{corrections['deleted']} deleted"]
    for key, words in (
        ("added", "added by hand"),
        ("repeated", "left out as the run has them"),
        ("relabelled", "of the run relabelled"),
        ("disputed", "left out as the run's test set has them in another class"),
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
    table = Table(
        title=Text("Before and after, on the same clips", style="bold"),
        title_justify="left",
        box=None,
        header_style="dim",
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
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
                _number(scores["before"][name]),
                _number(scores["after"][name]),
                _number(difference, "+.3f"),
                "" if interval is None else f"{interval[0]:+.3f} to {interval[1]:+.3f}",
            )
        if scores["note"]:
            notes.append(Text(f"{title}: {scores['note']}", style="yellow"))
    return Group(table, *notes)


def _number(value: float | None, form: str = ".3f") -> str:
    return "–" if value is None else format(value, form)
