"""`unfreeze studio`: choose recordings in the browser, train on them, and use the model."""

import contextlib
import secrets
import shlex
import sys
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import filelock
import typer

from unfreeze.backend import need_for_pages
from unfreeze.cli.sentences import tell
from unfreeze.errors import RunError, show

if TYPE_CHECKING:
    from socket import socket

    from unfreeze.serve.studio_app import Studio

_LOCK = "studio.lock"


def studio(
    folder: Annotated[
        Path, typer.Argument(help="Folder of your recordings; the page sees nothing else.")
    ] = Path(),
    runs: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the runs.",
            show_default="runs in FOLDER, or beside it if FOLDER has class folders itself",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 admits other machines.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 chooses a free one.")
    ] = 8002,
    max_mb: Annotated[
        float, typer.Option(min=0.001, help="Largest file that can be dropped, in megabytes.")
    ] = 200,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
) -> None:
    """Train in the browser: choose recordings, look at them, train, watch, use the model.

    The page shows the command behind each step. Ctrl-C ends the page, and stops a
    training so that it can be resumed.
    """
    need_for_pages("The page")
    from unfreeze.serve import server
    from unfreeze.serve.studio_folder import open_folder

    place = open_folder(folder, runs)
    with server.bind(host, port) as bound:
        from unfreeze.serve.studio_app import HOME, Studio

        with _alone(place.runs / HOME, place.root):
            _serve(Studio(place, max_mb), bound, browser)


def _serve(studio: "Studio", listening: "socket", browser: bool) -> None:
    from unfreeze.serve import server
    from unfreeze.serve.studio_app import create_studio_app

    token, local = secrets.token_urlsafe(24), server.is_loopback(listening)
    app = create_studio_app(studio, token, local_only=local)
    url = f"{server.url_of(listening)}/#{token}"
    typer.echo(f"{show(studio.folder.root)}: {url}")
    typer.echo(f"Runs are in {show(studio.folder.runs)}. Press Ctrl-C to stop.")
    running = studio.training.name()
    if running is not None:
        typer.echo(f"The training of {show(running)} is still running.")
    if not local:
        tell(
            "note: the page is open to other machines, without encryption: whoever has its "
            "address, with what is behind the #, can see the folder's names, add recordings to "
            "it, and train."
        )
    if browser and sys.stdout.isatty():
        webbrowser.open(url)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            server.make_server(app).run(sockets=[listening])
    finally:
        stopped = studio.close()
    if stopped is not None:
        command = shlex.join(["unfreeze", "studio", str(studio.folder.root)])
        typer.echo(f"The training of {show(stopped)} was stopped. To resume it: {command}")
    typer.echo("ended")


@contextlib.contextmanager
def _alone(home: Path, root: Path) -> Iterator[None]:
    """Hold a folder, so that no second studio starts trainings in it.

    Raises:
        RunError: another one holds it, or nothing can be written to it.
    """
    from unfreeze.files import make_folder

    lock = filelock.FileLock(home / _LOCK)
    try:
        make_folder(home)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise RunError(
            f"Another unfreeze studio is open for {show(root)}: use its page, or stop it first"
        ) from None
    except OSError as error:
        raise RunError(
            f"{show(home)} cannot be written ({error.strerror or error}): give another folder "
            "with --runs"
        ) from None
    try:
        yield
    finally:
        lock.release()
