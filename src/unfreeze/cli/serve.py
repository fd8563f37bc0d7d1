"""`unfreeze serve`: a trained classifier as a web page and an HTTP service."""

import contextlib
import secrets
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from unfreeze.backend import need_for_pages
from unfreeze.cli.sentences import tell


def serve(
    run: Annotated[Path, typer.Argument(help="A run folder, or a .keras file.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 admits other machines.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 chooses a free one.")
    ] = 8000,
    max_mb: Annotated[float, typer.Option(min=0.001, help="Largest file, in megabytes.")] = 50,
    max_seconds: Annotated[float, typer.Option(min=1, help="Longest recording, in seconds.")] = 600,
    token: Annotated[
        bool, typer.Option("--token", help="Serve only those who have the token that is printed.")
    ] = False,
) -> None:
    """Serve a classifier as a web page, and to programs over HTTP.

    Uploaded files are not kept. Press Ctrl-C to stop the server.
    """
    need_for_pages("The server")
    from unfreeze.serve import server

    # Before the import of Keras, which takes seconds: a used port is reported at once.
    with server.bind(host, port) as bound:
        own = secrets.token_urlsafe(24) if token else None
        app, classes = _app(run, max_mb, max_seconds, server.is_loopback(bound), own)
        from unfreeze.serve.json_requests import TOKEN_HEADER

        url = server.url_of(bound)
        typer.echo(f"{run} ({classes} classes) is at {url}{f'/#{own}' if own else ''}")
        header = f", with the header {TOKEN_HEADER}: {own}" if own else ""
        typer.echo(f"For programs: {url}/docs{header}. Press Ctrl-C to stop.")
        if not server.is_loopback(bound):
            tell(_open_to_all(*server.address_of(bound), token))
        with contextlib.suppress(KeyboardInterrupt):
            server.make_server(app).run(sockets=[bound])
        typer.echo("ended")


def _app(
    run: Path, max_mb: float, max_seconds: float, local_only: bool, token: str | None
) -> tuple[object, int]:
    import numpy as np

    from unfreeze.classifier import SoundClassifier
    from unfreeze.serve.json_requests import admit
    from unfreeze.serve.upload import Limits
    from unfreeze.serve.web_app import create_app

    classifier = SoundClassifier.load(run)
    # The first prediction compiles the model: do it before a user waits for it.
    classifier.predict(np.zeros(classifier.sample_rate, dtype=np.float32))
    limits = Limits(max_mb=max_mb, max_seconds=max_seconds)
    admitted = None
    if token is not None:
        admitted = partial(admit, token=token, command="unfreeze serve --token")
    app = create_app(classifier, limits, local_only=local_only, admit=admitted)
    return app, len(classifier.labels)


def _open_to_all(host: str, port: int, token: bool) -> str:
    without = "encryption" if token else "authentication or encryption"
    who = "everyone who has its address" if token else "everyone who can reach this machine"
    return (
        f"note: the server listens on {host}, port {port}, without {without}: {who} can use it.\n"
        "Browsers allow the microphone only on this machine or over https."
    )
