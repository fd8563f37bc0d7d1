"""`unfreeze serve`: a trained classifier as a web page and an HTTP service."""

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from unfreeze.backend import need_for_pages


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
) -> None:
    """Serve a classifier as a web page, and to programs over HTTP.

    Uploaded files are not kept. Press Ctrl-C to stop the server.
    """
    need_for_pages("The server")
    from unfreeze.serve import server

    # Before the import of Keras, which takes seconds: a used port is reported at once.
    with server.bind(host, port) as bound:
        app, classes = _app(run, max_mb, max_seconds, server.is_loopback(bound))
        url = server.url_of(bound)
        typer.echo(f"{run} ({classes} classes) is at {url}")
        typer.echo(f"For programs: {url}/docs. Press Ctrl-C to stop.")
        if not server.is_loopback(bound):
            typer.echo(_open_to_all(*server.address_of(bound)), err=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.make_server(app).run(sockets=[bound])
        typer.echo("ended")


def _app(run: Path, max_mb: float, max_seconds: float, local_only: bool) -> tuple[object, int]:
    import numpy as np

    from unfreeze.classifier import SoundClassifier
    from unfreeze.serve.upload import Limits
    from unfreeze.serve.web_app import create_app

    classifier = SoundClassifier.load(run)
    # The first prediction compiles the model: do it before a user waits for it.
    classifier.predict(np.zeros(classifier.sample_rate, dtype=np.float32))
    limits = Limits(max_mb=max_mb, max_seconds=max_seconds)
    return create_app(classifier, limits, local_only=local_only), len(classifier.labels)


def _open_to_all(host: str, port: int) -> str:
    return (
        f"note: the server listens on {host}, port {port}, without authentication or encryption: "
        "everyone who can reach this machine can use it.\n"
        "Browsers allow the microphone only on this machine or over https."
    )
