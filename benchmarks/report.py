"""`results.json` as a page of Markdown and a chart."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.plan import Comparison
from unfreeze.files import atomic_path

_NAMES = {
    "peak_mb": "peak memory, MB",
    "to_best": "to_best, s",
    "best_loss": "best validation loss",
}


def page(results: dict[str, Any], declared: Sequence[Comparison]) -> str:
    """The whole page.

    Args:
        results: `results.json`.
        declared: all comparisons, also those that have not run.
    """
    parts = results["comparisons"]
    lines = [
        "# Benchmarks",
        "",
        "Written by `python -m benchmarks`. Sides take turns in each round; ratios are taken round",
        "by round, and the median is shown with the range over rounds. Trust ratios more than",
        "rates: a machine that slows down slows all sides of a round.",
        "",
        *_targets(parts, declared),
        "",
        "![Ratios against their targets](results.png)",
        "",
        *_machines(parts),
    ]
    for comparison in declared:
        if comparison.name in parts:
            lines += ["", *_section(parts[comparison.name])]
    return "\n".join(lines) + "\n"


def _targets(parts: dict[str, Any], declared: Sequence[Comparison]) -> list[str]:
    lines = ["## Targets", "", "| what | target | measured | |", "|---|---|---|---|"]
    for comparison in declared:
        part = parts.get(comparison.name)
        for ratio in part["ratios"] if part else _unmeasured(comparison):
            if ratio["target"] is None:
                continue
            sign = "<=" if ratio["at_most"] else ">="
            measured, verdict = spread(ratio), verdict_of(ratio)
            if part and part["settings"].get("quick"):
                verdict += " (quick form)"
            lines.append(
                f"| {ratio['text']} | {sign} {ratio['target']:g} | {measured} | {verdict} |"
            )
    return lines


def _unmeasured(comparison: Comparison) -> list[dict[str, Any]]:
    return [
        {"text": r.text, "target": r.target, "at_most": r.at_most, "missing": "not measured"}
        for r in comparison.ratios
    ]


def verdict_of(ratio: dict[str, Any]) -> str:
    """ "reached" or "not reached", or why there is no number."""
    if "median" not in ratio:
        return ratio["missing"]
    if "missing" in ratio:
        return f"not reached: {ratio['missing']} in some rounds"
    return "reached" if ratio["reached"] else "not reached"


def spread(values: dict[str, Any]) -> str:
    """Median and range, or a dash."""
    if "median" not in values:
        return "-"
    text = number(values["median"])
    if values["low"] == values["high"]:
        return text
    return f"{text} ({number(values['low'])} to {number(values['high'])})"


def number(value: float) -> str:
    """Three digits, with commas."""
    if value and abs(value) < 0.001:
        return f"{value:.1e}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _machines(parts: dict[str, Any]) -> list[str]:
    lines = ["## Machine", ""]
    seen: dict[str, list[str]] = {}
    for name, part in parts.items():
        machine = part["machine"]
        text = (
            f"{machine['processor']}, {machine['cores']} cores, "
            f"{machine.get('memory_gb', '?')} GB, {machine['system']}, "
            f"Python {machine['python']}; "
            f"{', '.join(machine['instructions']) or 'instructions not known'}"
        )
        seen.setdefault(text, []).append(name)
    return lines + [f"- {text} ({', '.join(names)})" for text, names in seen.items()]


def _section(part: dict[str, Any]) -> list[str]:
    settings = ", ".join(f"{key} {value}" for key, value in part["settings"].items())
    lines = [f"## {part['title']}", "", f"{part['when']}; {settings}.", ""]
    if part["others"]:
        busy = f"{part['others']:.0%} of the processor, looked at before and after"
        lines += [f"Other work on the machine: {busy}.", ""]
    keys = list(dict.fromkeys(key for side in part["sides"].values() for key in side))
    heads = [part["unit"] if key == "rate" else _NAMES.get(key, key) for key in keys]
    if keys:
        lines += [f"| | {' | '.join(heads)} |", "|---" * (len(keys) + 1) + "|"]
    for name, values in part["sides"].items():
        if not values:
            continue
        cells = [spread(values.get(key, {})) for key in keys]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| ratio | median (range) |", "|---|---|"]
    for ratio in part["ratios"]:
        shown = spread(ratio)
        lines.append(f"| {ratio['text']} | {shown if shown != '-' else ratio['missing']} |")
    if part["failed"]:
        lines += ["", "Could not run:", ""]
        lines += [f"- {name}: {cause}" for name, cause in part["failed"].items()]
    if part["notes"]:
        lines += ["", *(f"- {note}" for note in part["notes"])]
    versions = ", ".join(f"{name} {version}" for name, version in part["versions"].items())
    return [*lines, "", f"Versions: {versions}."] if versions else lines


def chart(results: dict[str, Any], path: Path) -> None:
    """Draw how far each target is reached, with the range over rounds, on a log axis.

    1 is the target; what lies to the right of it is better, also for upper limits.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    ratios = [
        ratio
        for part in results["comparisons"].values()
        for ratio in part["ratios"]
        if ratio["target"] is not None and "median" in ratio
    ]
    if not ratios:
        return
    figure, axes = pyplot.subplots(figsize=(10, 1.2 + 0.4 * len(ratios)), layout="constrained")
    labels = []
    for row, ratio in enumerate(reversed(ratios)):
        color = "#1b7837" if ratio["reached"] else "#b35806"
        low, middle, high = (_reached(ratio, ratio[key]) for key in ("low", "median", "high"))
        axes.plot([low, high], [row, row], color=color, linewidth=2)
        axes.plot(middle, row, "o", color=color)
        sign = "at most" if ratio["at_most"] else "at least"
        labels.append(
            f"{ratio['text']}\n{number(ratio['median'])}, wanted {sign} {ratio['target']:g}"
        )
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(ratios)), labels, fontsize=7)
    axes.set_xscale("log")
    axes.grid(axis="x", which="major", alpha=0.3)
    axes.set_xlabel("part of the target that is reached (1 is the target, more is better)")
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=130)
    pyplot.close(figure)


def _reached(ratio: dict[str, Any], value: float) -> float:
    # Nothing at all has no place on a log axis.
    value = max(value, 1e-9)
    return ratio["target"] / value if ratio["at_most"] else value / ratio["target"]
