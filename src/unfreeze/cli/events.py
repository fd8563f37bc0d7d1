"""The part of `unfreeze predict` that finds events in recordings of any length."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from unfreeze.audio.names import show
from unfreeze.detection.options import DetectOptions
from unfreeze.errors import RunError, UnfreezeError

if TYPE_CHECKING:
    from unfreeze.classifier import SoundClassifier
    from unfreeze.detection.many import Found
    from unfreeze.detection.recordings import Recording


def find(
    run: Path,
    paths: list[Path],
    options: DetectOptions,
    recursive: bool,
    form: str,
    out: Path | None,
    overwrite: bool,
) -> None:
    """Find the events of recordings and print or write them.

    Args:
        run: a run folder or a model file.
        paths: recordings and folders.
        options: how to find events.
        recursive: look into folders within folders.
        form: name of the format.
        out: where to write; None prints.
        overwrite: begin anew what is in `out`.

    Raises:
        UnfreezeError: what cannot work, before anything slow.
        typer.Exit: code 1, a recording could not be read.
    """
    from unfreeze.detection import results
    from unfreeze.detection.formats import FORMATS
    from unfreeze.detection.recordings import find_recordings

    if form not in FORMATS:
        raise UnfreezeError(f"no format {form!r}: give one of {', '.join(FORMATS)}")
    if overwrite and out is None:
        raise UnfreezeError("--overwrite begins anew what is in --out, and there is no --out")
    recordings = find_recordings(paths, recursive=recursive)
    if out is None:
        results.check_joins(form, recordings)
    elif form == "table":
        raise UnfreezeError("a table is for reading: with --out give --format csv, jsonl, ...")
    else:
        results.check_out(out)
        results.result_names(out, recordings, form)
    from unfreeze.backend import import_keras

    import_keras()
    from unfreeze.classifier import SoundClassifier

    classifier = SoundClassifier.load(run)
    if out is None:
        errors = _print(classifier, recordings, options, form)
    else:
        errors = _write(classifier, run, recordings, options, form, out, overwrite)
    for error in errors:
        typer.echo(f"error: {error}", err=True)
    if errors:
        raise typer.Exit(1)


def _print(
    classifier: "SoundClassifier", recordings: "list[Recording]", options: DetectOptions, form: str
) -> list[Exception]:
    from unfreeze.detection.formats import FORMATS
    from unfreeze.detection.many import in_order
    from unfreeze.detection.results import source_of

    errors: list[Exception] = []
    typer.echo(FORMATS[form].head, nl=False)
    for path, found in _search(classifier, [r.path for r in recordings], options, in_order):
        if found.error is not None:
            errors.append(found.error)
            continue
        source = source_of(path, classifier.front_end, found.sample_rate)
        typer.echo(FORMATS[form].rows(source, found.events), nl=False)
    return errors


def _write(
    classifier: "SoundClassifier",
    run: Path,
    recordings: "list[Recording]",
    options: DetectOptions,
    form: str,
    out: Path,
    overwrite: bool,
) -> list[Exception]:
    import filelock

    from unfreeze.detection import results
    from unfreeze.detection.formats import FORMATS
    from unfreeze.detection.journal import Journal
    from unfreeze.files import make_folder, remove

    place = results.journal_of(out)
    make_folder(place.parent)
    lock = filelock.FileLock(place.with_name(f".{place.name}.lock"))
    try:
        held = lock.acquire(timeout=0)
    except filelock.Timeout:
        raise RunError(f"another search is writing to {show(out)}: wait for it to end") from None
    files = [recording.path for recording in recordings]
    with held, closing(Journal(place, _settings(classifier, run, options), overwrite)) as journal:
        places = results.result_names(out, recordings, form) if results.is_folder(out) else {}

        results.sweep([place, *(places.values() or [out])])

        def write(path: Path) -> None:
            if path in places:
                results.write_result(
                    places[path], FORMATS[form], path, journal, classifier.front_end
                )

        def finish(path: Path, found: "Found") -> None:
            if path in places:
                # Of an earlier search: if we are killed before `write`, it must not pass for ours.
                remove(places[path])
            journal.add(path, found.events, {"sample_rate": found.sample_rate})
            write(path)

        todo = journal.unfinished(files)
        for path in files:
            if path in journal and path in places and not places[path].exists():
                write(path)
        if len(todo) < len(files):
            done = len(files) - len(todo)
            typer.echo(f"{done} of {len(files)} recordings are finished already", err=True)
        errors = _rest(classifier, todo, options, finish)
        if not places:
            results.write_joined(out, FORMATS[form], files, journal, classifier.front_end)
    typer.echo(f"Written to {show(out)}", err=True)
    return errors


def _rest(
    classifier: "SoundClassifier",
    todo: list[Path],
    options: DetectOptions,
    finish: "Callable[[Path, Found], None]",
) -> list[Exception]:
    """Search the recordings that are not finished, and say how it went."""
    errors: list[Exception] = []
    began, heard, events, done = time.perf_counter(), 0.0, 0, 0
    try:
        for path, found in _search(classifier, todo, options):
            if found.error is not None:
                errors.append(found.error)
                continue
            finish(path, found)
            heard, events, done = heard + found.seconds, events + len(found.events), done + 1
    except KeyboardInterrupt:
        typer.echo(
            f"stopped: {len(todo) - done} recordings are left; the same command does the rest",
            err=True,
        )
        raise typer.Exit(130) from None
    if todo:
        seconds = time.perf_counter() - began
        speed = heard / max(seconds, 1e-3)
        typer.echo(
            f"{done} recording{'' if done == 1 else 's'}, {heard / 3600:.2f} h, searched in "
            f"{seconds:.0f} s ({speed:.0f} times as fast as they play): {events} events",
            err=True,
        )
    return errors


def _search(
    classifier: "SoundClassifier",
    files: list[Path],
    options: DetectOptions,
    order: "Callable[[Iterator[Found]], Iterator[Found]]" = iter,
) -> "Iterator[tuple[Path, Found]]":
    """Yield what is found in each file, under a bar of bytes."""
    total = sum(file.stat().st_size for file in files if file.exists())
    with _bar(len(files), total) as (progress, finish):
        for found in order(classifier.detect_files(files, options, progress=progress)):
            finish()
            yield files[found.number], found


@contextmanager
def _bar(files: int, total: int) -> Iterator[tuple[Callable[[float], None], Callable[[], None]]]:
    """Yield callbacks for bytes done and for a recording finished."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    done = 0
    console = Console(stderr=True, highlight=False)
    display = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with display:
        task = display.add_task(f"Recording 0/{files}", total=max(total, 1))

        def finish() -> None:
            nonlocal done
            done += 1
            display.update(task, description=f"Recording {done}/{files}")

        yield lambda size: display.update(task, completed=size), finish


def _settings(classifier: "SoundClassifier", run: Path, options: DetectOptions) -> dict[str, Any]:
    """What decides which events are found, as JSON can hold it."""
    import hashlib

    from unfreeze import run_folder

    detector = classifier.detector(options)
    model = run / run_folder.MODEL if run.is_dir() else run
    with model.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    levels = [round(float(level), 6) for level in detector.thresholds]
    return {
        "model": digest[:16],
        "window": round(detector.window, 6),
        "hop": round(detector.hop_seconds, 6),
        "scores": levels[0]
        if len(set(levels)) == 1
        else dict(zip(detector.labels, levels, strict=True)),
        "smooth": detector.smooth,
        "merge": detector.merge,
    }
