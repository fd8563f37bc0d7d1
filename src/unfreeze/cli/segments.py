"""`unfreeze segments`: cut clips that are worth reviewing out of recordings."""

import json as json_module
import shlex
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unfreeze.cli.arguments import Json
from unfreeze.cli.sentences import tell

if TYPE_CHECKING:
    from unfreeze.review.candidate_clips import Candidate


def segments(
    run: Annotated[Path, typer.Argument(help="A run folder, or a .keras file.")],
    paths: Annotated[list[Path], typer.Argument(help="Recordings, or folders of them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the clips.")],
    per_class: Annotated[int, typer.Option(min=1, help="Maximum number of clips per class.")] = 50,
    uncertain: Annotated[
        bool, typer.Option("--uncertain", help="Cut the least certain clips, not the surest.")
    ] = False,
    length: Annotated[float, typer.Option(min=0.1, help="Seconds of a clip.")] = 3.0,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Search subfolders, too.")
    ] = False,
    json: Json = False,
) -> None:
    """Cut clips out of recordings for you to review, one folder per class.

    Move clips that are in the wrong folder, delete useless ones, and make folders
    for new classes. Then `unfreeze train OUT --add-to RUN --out NEW` learns from
    your corrections. A file that cannot be read is reported and the others are
    processed; the exit code is then 1.
    """
    from unfreeze.detection.recordings import find_recordings
    from unfreeze.output_folder import holds
    from unfreeze.review.candidate_clips import best_of, find_candidates, write_folder

    holds(out, None, "clips")
    files = [item.path for item in find_recordings(paths, recursive=recursive)]
    from unfreeze.classifier import SoundClassifier
    from unfreeze.cli.terminal import bar
    from unfreeze.errors import DataError

    classifier = SoundClassifier.load(run)
    chosen, failed = dict[str, "list[Candidate]"](), list[dict[str, str]]()
    with bar("Listening", shown=not json) as progress:
        for done, file in enumerate(files, start=1):
            try:
                found = find_candidates(
                    classifier, file, per_class=per_class, length=length, uncertain=uncertain
                )
                # After each recording, so that memory does not grow with their number.
                chosen = best_of(chain(*chosen.values(), found), per_class, uncertain)
            except DataError as error:
                failed.append({"file": str(file), "error": str(error)})
            progress(done, len(files))
    command = ["unfreeze", "segments", str(run), *map(str, paths), "--out", str(out)]
    command += ["--per-class", str(per_class), "--length", f"{length:g}"]
    command += [
        f"--{name}" for name, on in (("uncertain", uncertain), ("recursive", recursive)) if on
    ]
    write_folder(
        out,
        chosen,
        run=str(run.absolute()),
        command=shlex.join(command),
        labels=classifier.labels,
        uncertain=uncertain,
    )
    counts = {label: len(members) for label, members in chosen.items()}
    for item in failed:
        tell(f"error: {item['error']}")
    if json:
        report = {"out": str(out), "recordings": len(files), "clips": counts, "failed": failed}
        typer.echo(json_module.dumps(report, indent=2, ensure_ascii=False))
    else:
        _say(run, out, counts, len(files) - len(failed), uncertain, classifier.multilabel)
    if failed:
        raise typer.Exit(1)


def _say(
    run: Path,
    out: Path,
    counts: dict[str, int],
    recordings: int,
    uncertain: bool,
    several: bool,
) -> None:
    from unfreeze.errors import show

    width = max((len(show(label)) for label in counts), default=0)
    for label, count in counts.items():
        typer.echo(f"{show(label):{width}}  {count:4d}")
    if several:
        typer.echo(
            f"{sum(counts.values())} clips from {recordings} recordings in {out}. Each is in one "
            "of the classes that may be heard in it. Listen to them, add them to your table with "
            "all their labels, and train a new run."
        )
        return
    order = "the least certain" if uncertain else "the surest"
    typer.echo(
        f"{sum(counts.values())} clips from {recordings} recordings in {out}, {order} first.\n"
        f"Move clips that are in the wrong folder, delete useless ones, and make folders for new "
        f"classes. Then run:\n"
        f"unfreeze train {shlex.quote(str(out))} --add-to {shlex.quote(str(run))} --out NEW"
    )
