"""`unfreeze inspect DATA`: the contents and problems of a data set, before any training."""

import json as json_module
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unfreeze.cli.arguments import Json, takes
from unfreeze.cli.sentences import say
from unfreeze.errors import DataError, UnfreezeError, show
from unfreeze.pipeline.train_options import TrainOptions, default_of

if TYPE_CHECKING:
    from unfreeze.audio.feature_store import PatchStore
    from unfreeze.audio.manifest import Manifest
    from unfreeze.audio.split import Split
    from unfreeze.backbones.registry import Backbone
    from unfreeze.pipeline.training_data import NamedProgress

# Files listed for each rule; --json has all.
_SHOWN = 6
_NETWORK = ("backbone", "weights", "accept_licence")


@takes(
    "data",
    *("group_regex", "path_column", "label_column", "audio_folder", "label_map", "annotated"),
    *("multilabel", "slow_down", "channel", "seed", "validation", "test", "strict", "max_bad"),
    *_NETWORK,
    helps={
        "backbone": "Pretrained network, for --depths and --html.",
        "weights": "File with its weights, for --depths and --html; found or downloaded if not "
        "given.",
    },
)
def inspect(
    options: TrainOptions,
    depths: Annotated[
        bool,
        typer.Option(
            "--depths", help="Show how well each depth of the network tells the classes apart."
        ),
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            help="Write a page of clips to look at and to listen to, the odd ones first.",
            show_default="none",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show the clips, hours, classes, sample rates, problems and split of a data set."""
    for name in _NETWORK:
        if not (depths or html) and getattr(options, name) != default_of(name):
            raise UnfreezeError(
                f"--{name} is used with --depths and --html only: add one, or leave it out"
            )
    if html is not None:
        _check_page(html)
    # Imported here: `unfreeze --help` must not wait for numpy and libsndfile.
    from unfreeze.backbones.registry import get_backbone
    from unfreeze.backend import check_backend

    if depths or html:
        get_backbone(options.backbone)
        check_backend()
    from unfreeze.audio.manifest import check_bad, read_manifest
    from unfreeze.audio.split import split_clips
    from unfreeze.cli.terminal import bar
    from unfreeze.pipeline.training_data import reading_of

    with bar("Reading", shown=not json) as progress:
        # Print all problems first; whether the data can be used comes last.
        manifest = read_manifest(
            options.data, how=reading_of(options), max_bad=1.0, progress=progress
        )
    try:
        split = split_clips(
            manifest, validation=options.validation, test=options.test, seed=options.seed
        )
    except DataError:
        # What is left out may be why.
        if not json:
            _print_problems(Console(), {"clips": len(manifest.clips), **_problems(manifest)})
        raise
    report = summarize(manifest, split)
    if not json:
        _print(report)
    if depths:
        report["depths"] = _profile(options, manifest, split, shown=not json)
        if not json:
            _print_depths(report["depths"])
    if html is not None:
        report["odd"] = _write_page(html, options, manifest, split, report, shown=not json)
        if not json:
            Console().print(f"Written to {show(html)}", markup=False, soft_wrap=True)
    if json:
        typer.echo(json_module.dumps(report, indent=2, ensure_ascii=False, allow_nan=False))
    check_bad(manifest, strict=options.strict, max_bad=options.max_bad)


def summarize(manifest: "Manifest", split: "Split") -> dict[str, Any]:
    """Count the contents of a data set.

    Args:
        manifest: its clips and problems.
        split: its parts.

    Returns:
        Plain values for JSON. Classes and problems are sorted.
    """
    from unfreeze.audio.split import split_notes

    clips = manifest.clips
    classes: dict[str, dict[str, Any]] = {
        label: {"clips": 0, "seconds": 0.0, "train": 0, "validation": 0, "test": 0}
        for label in manifest.labels
    }
    for clip in clips:
        for label in manifest.classes_of(clip):
            classes[label]["clips"] += 1
            classes[label]["seconds"] += clip.seconds
    for part, indices in split.parts().items():
        for index in indices:
            for label in manifest.classes_of(clips[index]):
                classes[label][part] += 1
    parts = {
        part: {
            "clips": len(indices),
            "groups": len({clips[i].group for i in indices}),
            "files": [show(clips[i].path.relative_to(manifest.root)) for i in indices],
        }
        for part, indices in split.parts().items()
    }
    return {
        "data": show(manifest.root),
        "clips": len(clips),
        "hours": sum(clip.seconds for clip in clips) / 3600,
        "groups": len({clip.group for clip in clips}),
        "classes": classes,
        "multilabel": manifest.several,
        "without_label": sum(not clip.label for clip in clips),
        "sample_rates": _counts(clip.sample_rate for clip in clips),
        "channels": _counts(clip.channels for clip in clips),
        "split": parts,
        "notes": list(split_notes(manifest, split)),
        **_problems(manifest),
        "fingerprint": manifest.fingerprint,
    }


def _problems(manifest: "Manifest") -> dict[str, Any]:
    return {
        "bad": len({p.path for p in manifest.problems if p.fatal}),
        "problems": [
            {"path": show(p.path), "rule": p.rule, "cause": p.cause, "fatal": p.fatal}
            for p in manifest.problems
        ],
    }


@contextmanager
def _network(
    options: TrainOptions, manifest: "Manifest", shown: bool
) -> "Iterator[tuple[Backbone, Path, PatchStore, NamedProgress]]":
    """The network that the options name, its weights, and the features of all clips."""
    from unfreeze.backbones.pretrained_weights import resolve_weights
    from unfreeze.backbones.registry import get_backbone
    from unfreeze.cli.terminal import named_bars
    from unfreeze.pipeline.training_data import build_features

    backbone = get_backbone(options.backbone, options.slow_down, options.channel)
    with named_bars(shown) as (progress, _):
        weights = resolve_weights(
            backbone.weights,
            path=options.weights,
            progress=partial(progress, "weights"),
            accept_licence=options.accept_licence,
        )
        store = build_features(manifest, backbone.front_end, partial(progress, "features"))
        yield backbone, weights, store, progress


def _profile(
    options: TrainOptions, manifest: "Manifest", split: "Split", shown: bool
) -> dict[str, Any]:
    """The depth profile as plain values; without groups where the clips allow none."""
    # Keras takes seconds to import: everything that only --depths needs is imported here.
    from unfreeze.audio.background_clips import cut_quiet
    from unfreeze.backend import import_keras
    from unfreeze.pipeline.training_data import clip_truth

    import_keras()
    from unfreeze.pipeline.depth_profile import depth_profile, why_no_profile

    reason = why_no_profile(clip_truth(manifest), split.train, split.validation)
    if reason is not None:
        return {"groups": [], "peak": None, "summary": reason}
    with _network(options, manifest, shown) as (backbone, weights, store, progress):
        views = {name: store.patches(clips) for name, clips in split.parts().items()}
        cut = cut_quiet(manifest, split, views, backbone.front_end)
        return depth_profile(
            backbone.build(weights=weights),
            cut.parts["train"],
            cut.parts["validation"],
            clip_truth(cut.manifest),
            # Of a network in a file of its own, the outputs that are read.
            taps=backbone.taps.split(",") if backbone.is_frozen else "auto",
            seed=options.seed,
            progress=partial(progress, "depths"),
        ).as_plain()


def _check_page(html: Path) -> None:
    """Refuse a place for the page before anything slow."""
    if html.is_dir():
        raise UnfreezeError(f"--html: {show(html)} is a folder. Give a file, such as clips.html.")
    if not html.parent.is_dir():
        raise UnfreezeError(
            f"--html: the folder {show(html.parent)} does not exist. Make it first."
        )
    if not os.access(html.parent, os.W_OK):
        raise UnfreezeError(
            f"--html: nothing can be written to {show(html.parent)}. Give another folder."
        )


def _write_page(
    html: Path,
    options: TrainOptions,
    manifest: "Manifest",
    split: "Split",
    report: dict[str, Any],
    shown: bool,
) -> dict[str, Any]:
    """Write the page of clips; return what stands out, as plain values."""
    from unfreeze.backend import import_keras

    import_keras()
    from unfreeze.pipeline.odd_clips import find_odd_clips
    from unfreeze.report.data_page import class_sections, odd_sections, write_data_page

    with _network(options, manifest, shown) as (backbone, weights, store, progress):
        odd = find_odd_clips(
            manifest, store, backbone, weights, seed=options.seed, progress=progress
        )
        window = backbone.front_end.patch_seconds
        first = odd_sections(manifest, split, odd, window)
        rest = class_sections(manifest, split, odd.numbers(), window, options.seed)
        write_data_page(
            html,
            show(options.data.resolve().name),
            report,
            manifest.problems,
            (first, rest),
            backbone.front_end,
            odd.notes,
            progress=partial(progress, "excerpts"),
        )
    return odd.as_plain([show(clip.path.relative_to(manifest.root)) for clip in manifest.clips])


def _counts(values: Iterator[int]) -> dict[str, int]:
    # JSON keys cannot be numbers.
    return {str(value): count for value, count in sorted(Counter(values).items())}


def _print(report: dict[str, Any]) -> None:
    console = Console()
    say(
        console,
        f"{report['data']}: {report['clips']} clips in {report['groups']} groups, "
        f"{len(report['classes'])} classes, {report['hours']:.2f} hours",
    )
    console.print(_class_table(report))
    if report["without_label"]:
        say(console, f"Clips in which no class is heard: {report['without_label']}")
    say(console, f"Sample rates in Hz: {_join(report['sample_rates'])}")
    say(console, f"Channels: {_join(report['channels'])}")
    groups = ", ".join(f"{part} {count['groups']}" for part, count in report["split"].items())
    say(console, f"Groups in each part: {groups}")
    for note in report["notes"]:
        say(console, f"Note: {note}")
    _print_problems(console, report)


def _print_depths(depths: dict[str, Any]) -> None:
    from unfreeze.report.tables import depth_table

    console = Console(highlight=False)
    console.print()
    if depths["groups"]:
        console.print(depth_table(depths, "What each depth of the network knows"))
    say(console, depths["summary"])


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
        say(console, "No problems found.")
        return
    rules: dict[tuple[bool, str], list[dict[str, Any]]] = defaultdict(list)
    for problem in report["problems"]:
        rules[not problem["fatal"], problem["rule"]].append(problem)
    say(console, f"{report['bad']} of {report['clips'] + report['bad']} recordings left out.")
    for (warning, rule), problems in sorted(rules.items()):
        say(console, f"{rule} ({'warning' if warning else 'left out'}, {len(problems)}):")
        for problem in problems[:_SHOWN]:
            say(console, f"  {problem['path']}: {problem['cause']}")
        if len(problems) > _SHOWN:
            say(console, f"  and {len(problems) - _SHOWN} more; --json lists all")


def _join(counts: dict[str, int]) -> str:
    return ", ".join(
        f"{value} ({count} {'clip' if count == 1 else 'clips'})" for value, count in counts.items()
    )
