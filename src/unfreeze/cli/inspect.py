"""`unfreeze inspect DATA`: what is in a data set, before any training."""

import json as json_module
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from unfreeze.audio.manifest import Manifest
    from unfreeze.audio.split import Split

# Files listed for each rule; --json has all.
_SHOWN = 6


def inspect(
    data: Annotated[
        Path, typer.Argument(help="A folder with a folder per class, or a CSV manifest.")
    ],
    group_regex: Annotated[
        str | None,
        typer.Option(
            "--group-regex",
            help="The group of a clip: first (...) of this pattern in its file name or path.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the split.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on any bad file.")] = False,
    max_bad: Annotated[
        float,
        typer.Option("--max-bad", min=0, max=1, help="Fail above this part of bad files."),
    ] = 0.10,
) -> None:
    """Show clips, hours, classes, sample rates, problems and the split."""
    # Imported here: `unfreeze --help` must not wait for numpy and libsndfile.
    from unfreeze.audio.manifest import check_bad, read_manifest
    from unfreeze.audio.split import split_clips
    from unfreeze.cli.bars import bar

    with bar("Reading", shown=not json) as progress:
        # All problems first, the verdict on them last.
        manifest = read_manifest(data, group_regex=group_regex, max_bad=1.0, progress=progress)
    split = split_clips(manifest, seed=seed)
    report = summarize(manifest, split)
    if json:
        typer.echo(json_module.dumps(report, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _print(report)
    check_bad(manifest, strict=strict, max_bad=max_bad)


def summarize(manifest: "Manifest", split: "Split") -> dict[str, Any]:
    """Count what is in a data set.

    Args:
        manifest: its clips and problems.
        split: its parts.

    Returns:
        Plain values, ready for JSON. Classes and problems are in order.
    """
    from unfreeze.audio.names import show
    from unfreeze.audio.split import split_notes

    clips = manifest.clips
    classes: dict[str, dict[str, Any]] = {
        label: {"clips": 0, "seconds": 0.0, "train": 0, "validation": 0, "test": 0}
        for label in manifest.labels
    }
    for clip in clips:
        classes[clip.label]["clips"] += 1
        classes[clip.label]["seconds"] += clip.seconds
    for part, indices in split.parts().items():
        for index in indices:
            classes[clips[index].label][part] += 1
    parts = {
        part: {
            "clips": len(indices),
            "groups": len({clips[i].group for i in indices}),
            "files": [show(clips[i].path.relative_to(manifest.root)) for i in indices],
        }
        for part, indices in split.parts().items()
    }
    problems = [
        {"path": show(p.path), "rule": p.rule, "cause": p.cause, "fatal": p.fatal}
        for p in manifest.problems
    ]
    return {
        "data": show(manifest.root),
        "clips": len(clips),
        "hours": sum(clip.seconds for clip in clips) / 3600,
        "groups": len({clip.group for clip in clips}),
        "classes": classes,
        "sample_rates": _counts(clip.sample_rate for clip in clips),
        "channels": _counts(clip.channels for clip in clips),
        "split": parts,
        "notes": list(split_notes(manifest, split)),
        "bad": len({p.path for p in manifest.problems if p.fatal}),
        "problems": problems,
        "fingerprint": manifest.fingerprint,
    }


def _counts(values: Iterator[int]) -> dict[str, int]:
    # JSON has no numbers as keys.
    return {str(value): count for value, count in sorted(Counter(values).items())}


def _print(report: dict[str, Any]) -> None:
    console = Console()
    _line(
        console,
        f"{report['data']}: {report['clips']} clips in {report['groups']} groups, "
        f"{len(report['classes'])} classes, {report['hours']:.2f} hours",
    )
    console.print(_class_table(report))
    _line(console, f"Sample rates in Hz: {_join(report['sample_rates'])}")
    _line(console, f"Channels: {_join(report['channels'])}")
    groups = ", ".join(f"{part} {count['groups']}" for part, count in report["split"].items())
    _line(console, f"Groups in each part: {groups}")
    for note in report["notes"]:
        _line(console, f"Note: {note}")
    _print_problems(console, report)


def _line(console: Console, text: str) -> None:
    # Names may hold what rich would take for markup; long lines stay whole.
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _class_table(report: dict[str, Any]) -> Table:
    table = Table("class")
    for name in ("clips", "minutes", "train", "validation", "test"):
        table.add_column(name, justify="right")
    for label, row in report["classes"].items():
        counts = (row["train"], row["validation"], row["test"])
        table.add_row(
            escape(label), str(row["clips"]), f"{row['seconds'] / 60:.1f}", *map(str, counts)
        )
    parts = [str(count["clips"]) for count in report["split"].values()]
    table.add_section()
    table.add_row("all", str(report["clips"]), f"{60 * report['hours']:.1f}", *parts)
    return table


def _print_problems(console: Console, report: dict[str, Any]) -> None:
    if not report["problems"]:
        _line(console, "No problems found.")
        return
    rules: dict[tuple[bool, str], list[dict[str, Any]]] = defaultdict(list)
    for problem in report["problems"]:
        rules[not problem["fatal"], problem["rule"]].append(problem)
    _line(console, f"{report['bad']} of {report['clips'] + report['bad']} recordings left out.")
    for (warning, rule), problems in sorted(rules.items()):
        _line(console, f"{rule} ({'warning' if warning else 'left out'}, {len(problems)}):")
        for problem in problems[:_SHOWN]:
            _line(console, f"  {problem['path']}: {problem['cause']}")
        if len(problems) > _SHOWN:
            _line(console, f"  and {len(problems) - _SHOWN} more; --json lists all")


def _join(counts: dict[str, int]) -> str:
    return ", ".join(f"{value} ({count} clips)" for value, count in counts.items())
