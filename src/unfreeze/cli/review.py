"""`unfreeze review`: hear clips in the browser, say what they are, and train again."""

import contextlib
import secrets
import shlex
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unfreeze.backend import need_for_pages
from unfreeze.cli.sentences import tell
from unfreeze.errors import DataError, UnfreezeError, show

if TYPE_CHECKING:
    from socket import socket

    from unfreeze.review.review_session import ReviewSession
    from unfreeze.search.index_folder import Index


def review(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    paths: Annotated[
        list[Path],
        typer.Argument(help="An index of `unfreeze embed --run RUN`, or recordings and folders."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder for the labels.", show_default="RUN's name with -review"
        ),
    ] = None,
    length: Annotated[float, typer.Option(help="Seconds of a clip.")] = 3.0,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Search subfolders, too.")
    ] = False,
    export: Annotated[
        str | None,
        typer.Option(help="Write the labels as csv, raven or folders, and open no page."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 admits other machines.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 chooses a free one.")
    ] = 8001,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
) -> None:
    """Review clips in the browser: confirm, correct, train again, count calls.

    One clip after the other is shown and played; keys say what it is. Labels are saved
    as they are made. Stop with Ctrl-C, and resume with the same command.
    """
    from unfreeze.output_folder import locked
    from unfreeze.review.label_files import KINDS

    if export is not None and export not in KINDS:
        raise UnfreezeError(f"--export {export}: give one of {', '.join(KINDS)}")
    if export is None:
        need_for_pages("The page")
    folder = out or run.with_name(f"{run.name}-review")
    command = shlex.join(
        ["unfreeze", "review", str(run), *map(str, paths), "--out", str(folder)]
        + ([] if length == 3.0 else ["--length", f"{length:g}"])
        + (["--recursive"] if recursive else [])
    )
    _refuse_other_folder(folder)
    with locked(folder), contextlib.ExitStack() as stack:
        bound = None
        if export is None:
            from unfreeze.serve import server

            # Before anything slow: a used port is reported at once.
            bound = stack.enter_context(server.bind(host, port))
        from unfreeze.review.review_session import ReviewSession

        index = _index(run, paths, recursive, folder)
        session = ReviewSession(run, index, folder, length=length, command=command)
        stack.callback(session.close)
        for note in session.notes:
            tell(f"note: {note}")
        if bound is not None:
            _serve(session, bound, browser)
        elif export is not None:
            place, count = session.export(export)
            typer.echo(f"{count} clips in {place}")


def _serve(review: "ReviewSession", listening: "socket", browser: bool) -> None:
    from unfreeze.serve import server
    from unfreeze.serve.review_app import create_review_app

    token, local = secrets.token_urlsafe(24), server.is_loopback(listening)
    app = create_review_app(review, token, local_only=local)
    url = f"{server.url_of(listening)}/#{token}"
    typer.echo(f"{review.counts()['left']} clips to review: {url}")
    typer.echo(f"Labels are saved in {review.folder} as you make them. Press Ctrl-C to stop.")
    if review.resumed is not None:
        typer.echo(f"Training {review.resumed}, or the writing of its model, is resumed.")
    if not local:
        tell(
            "note: the page is open to other machines, without encryption: whoever has its "
            "address, with what is behind the #, can hear the clips and change labels."
        )
    if browser and sys.stdout.isatty():
        webbrowser.open(url)
    with contextlib.suppress(KeyboardInterrupt):
        server.make_server(app).run(sockets=[listening])
    typer.echo("ended")


def _refuse_other_folder(folder: Path) -> None:
    """Refuse a folder that holds something else than a review.

    Raises:
        RunError: it does.
    """
    from unfreeze.output_folder import holds
    from unfreeze.review.label_store import STORE_NAME

    if not (folder / "index").is_dir():
        holds(folder, STORE_NAME, "review")


def _index(run: Path, paths: list[Path], recursive: bool, folder: Path) -> "Index":
    """The index to review: the one that was given, or one of the recordings that were."""
    from unfreeze.search.index_folder import JOURNAL, open_index

    given = [path for path in paths if (path / JOURNAL).is_file()]
    if given:
        if len(paths) > 1:
            raise DataError(f"{show(given[0])} is an index: give it alone, or recordings alone")
        return open_index(given[0])
    from unfreeze.detection.recordings import find_recordings

    files = [item.path for item in find_recordings(paths, recursive=recursive)]
    from unfreeze.backend import import_keras

    import_keras()
    from unfreeze.cli.terminal import bar
    from unfreeze.search.embedding import Embedded, embed

    def told(item: Embedded) -> None:
        if item.error is not None:
            tell(f"error: {item.error}; it is left out")

    total = sum(path.stat().st_size for path in files)
    with bar("Listening", shown=True, share=True) as progress:
        return embed(
            files,
            folder / "index",
            run=run,
            on_progress=lambda done: progress(done, total),
            on_recording=told,
        )
