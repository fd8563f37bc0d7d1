"""`unfreeze embed`: an index of recordings, to search by sound."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unfreeze.audio.cluster import LOCAL, chosen_cluster
from unfreeze.cli.arguments import Address, Engine
from unfreeze.cli.sentences import tell
from unfreeze.errors import show

if TYPE_CHECKING:
    from unfreeze.search.embedding import Embedded
    from unfreeze.search.index_folder import Index


def embed(
    paths: Annotated[list[Path], typer.Argument(help="Recordings, or folders of them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the index.")],
    run: Annotated[
        Path | None,
        typer.Option(
            help="A run folder, or a .keras file: search by its classes, too, and for what is "
            "alike as far as they are concerned.",
            show_default="none: the backbone as published",
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Without --run, the pretrained network; `unfreeze backbones` lists them.",
            show_default="yamnet",
        ),
    ] = None,
    hop: Annotated[
        float | None,
        typer.Option(
            help="Seconds from one window to the next.",
            show_default="a window: 0.96 with YAMNet, 3 with BirdNET",
        ),
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Look into subfolders, too.")
    ] = False,
    approximate: Annotated[
        bool,
        typer.Option(
            "--approximate", help="Also make a graph for `search --approximate` (needs USearch)."
        ),
    ] = False,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept that of the backbone's weights.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the index that is there.")
    ] = False,
    engine: Engine = LOCAL,
    address: Address = None,
) -> None:
    """Read recordings once, and keep a vector of each window in an index.

    Then `unfreeze search` finds sounds in them within a second. Run it again with more
    recordings to add them, or to resume: those that are in the index are not read again,
    unless they have changed. A file that cannot be read is reported and the others are
    added; the exit code is then 1.
    """
    from unfreeze.detection.recordings import find_recordings

    cluster = chosen_cluster(engine, address)

    files = [item.path for item in find_recordings(paths, recursive=recursive)]
    from unfreeze.backend import import_keras

    import_keras()
    from unfreeze.audio.sound_file import file_size
    from unfreeze.cli.terminal import bar
    from unfreeze.search.embedding import embed as make

    seen: list[Embedded] = []
    began, total = time.perf_counter(), sum(map(file_size, files))
    try:
        with bar("Embedding", shown=True, share=True) as progress:
            index = make(
                files,
                out,
                run=run,
                backbone=backbone,
                hop=hop,
                accept_licence=accept_licence,
                overwrite=overwrite,
                cluster=cluster,
                on_progress=lambda done: progress(done, total),
                on_recording=seen.append,
            )
        if approximate:
            _make_graph(index)
    except KeyboardInterrupt:
        tell(f"stopped: {len(seen)} recordings are finished; repeat the command to resume")
        raise typer.Exit(130) from None
    _say(index, files, seen, time.perf_counter() - began)
    if any(item.error is not None for item in seen):
        raise typer.Exit(1)


def _make_graph(index: "Index") -> None:
    from unfreeze.cli.terminal import bar
    from unfreeze.search.index_folder import held_index
    from unfreeze.search.neighbours import make_neighbours

    with held_index(index.folder, False), bar("Neighbours", shown=True) as progress:
        make_neighbours(index, progress)


def _say(index: "Index", files: list[Path], seen: "list[Embedded]", seconds: float) -> None:
    for item in seen:
        for warning in item.warnings:
            tell(f"warning: {show(item.recording)}: {warning}")
        if item.error is not None:
            tell(f"error: {item.error}")
    for old in index.recordings:
        change = old.change()
        if change is not None:
            tell(f"warning: {show(old.path)} is in the index and {change}")
    added = [item for item in seen if item.error is None]
    if len(seen) < len(files):
        done = len(files) - len(seen)
        tell(f"{done} of {len(files)} recordings are in the index already")
    if added:
        heard = sum(item.seconds for item in added)
        tell(
            f"{len(added)} recording{'' if len(added) == 1 else 's'}, {heard / 3600:.2f} h, "
            f"embedded in {seconds:.0f} s ({heard / max(seconds, 1e-3):.0f} times as fast as they "
            f"play): {sum(item.windows for item in added)} windows"
        )
    of = "a run's classes" if index.labels else index.settings.of
    tell(
        f"{show(index.folder)} holds {len(index.recordings)} recordings, {index.rows} windows of "
        f"{index.settings.numbers} numbers ({of}). Search it with `unfreeze search`."
    )
