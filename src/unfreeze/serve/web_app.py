"""The web application: its addresses, the files of its page, and the guards of all answers.

Only the files in the table here are ever served. Every answer has security headers. On
this machine only, requests by foreign host names are refused: a page of another site can
make a browser call this server by a name that resolves to 127.0.0.1 (DNS rebinding), and
could then read the answers; such a request has the foreign name in `Host`.
"""

import asyncio
import ipaddress
import logging
from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.requests import ClientDisconnect

from unfreeze.audio.entries import is_quiet
from unfreeze.classifier import SoundClassifier
from unfreeze.pipeline.thresholds import LEVELS, counts_of
from unfreeze.serve.analysis import analyse
from unfreeze.serve.answers import (
    Costs,
    Health,
    Labels,
    Prediction,
    Refusal,
    RefusalResponse,
    Refused,
)
from unfreeze.serve.upload import FIELD, Limits, Line, received
from unfreeze.version import __version__

# Not from `mimetypes`: it asks the system, which may call JavaScript plain text, and
# browsers do not run such a script.
HTML = "text/html; charset=utf-8"
SCRIPT = "text/javascript; charset=utf-8"
STYLE = "text/css; charset=utf-8"
ICON = "image/svg+xml"
_PAGES = {
    "/": ("index.html", HTML),
    "/docs": ("docs.html", HTML),
    "/page/style.css": ("style.css", STYLE),
    "/page/icon.svg": ("icon.svg", ICON),
    "/page/app.js": ("app.js", SCRIPT),
    "/page/docs.js": ("docs.js", SCRIPT),
    "/page/figure.js": ("figure.js", SCRIPT),
    "/page/player.js": ("player.js", SCRIPT),
    "/page/recorder.js": ("recorder.js", SCRIPT),
    "/page/recordings.js": ("recordings.js", SCRIPT),
    "/page/thresholds.js": ("thresholds.js", SCRIPT),
    "/page/tap.js": ("tap.js", SCRIPT),
    "/page/text.js": ("text.js", SCRIPT),
}


def pages() -> dict[str, tuple[bytes, str]]:
    """Read the page's files.

    Returns:
        Content and media type for each address.
    """
    return read_pages(_PAGES)


def read_pages(table: Mapping[str, tuple[str, str]]) -> dict[str, tuple[bytes, str]]:
    """Read files of the package's pages.

    Args:
        table: the file's name and its media type for each address.

    Returns:
        Content and media type for each address.
    """
    folder = files("unfreeze.serve") / "page"
    return {url: ((folder / name).read_bytes(), kind) for url, (name, kind) in table.items()}


_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'{pictures}; "
    "connect-src 'self'; media-src {sounds}; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
#: The content policy of the page that is given recordings, and of one that is given clips.
UPLOADS_POLICY = _POLICY.format(pictures="", sounds="blob:")
CLIPS_POLICY = _POLICY.format(pictures=" data:", sounds="data:")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    # Answers describe private recordings; the page is small.
    "Cache-Control": "no-store",
}


def guarded(app: Any, *, local_only: bool, policy: str = UPLOADS_POLICY) -> Any:
    """Wrap an ASGI application.

    Args:
        app: the application.
        local_only: refuse requests whose `Host` is not `localhost` or a loopback
            address.
        policy: the content policy of all answers that have none of their own.

    Returns:
        An ASGI application.
    """
    headers = {"Content-Security-Policy": policy, **_HEADERS}
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def run(scope: Any, receive: Any, send: Any) -> None:
        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = list(message.get("headers", ()))
                named = {name for name, _ in own}
                message = {**message, "headers": own + [h for h in raw if h[0] not in named]}
            await send(message)

        if scope["type"] != "http":
            await app(scope, receive, send)
        elif local_only and not names_this_machine(host_of(scope)):
            refused = Refused(
                400,
                "the request is for another host than this machine",
                "Open the server as http://127.0.0.1 or http://localhost with its port.",
            )
            await RefusalResponse(refused)(scope, receive, send_with_headers)
        else:
            await app(scope, receive, send_with_headers)

    return run


def names_this_machine(host: str) -> bool:
    """Return whether a `Host` header is `localhost` or a loopback address.

    Args:
        host: name or address, with or without a port.

    Examples:
        >>> [names_this_machine(h) for h in ("localhost:8000", "[::1]:80", "evil.example")]
        [True, True, False]
    """
    if host.startswith("["):
        name, closed, port = host[1:].partition("]")
        if not closed or (port and not port.startswith(":")):
            return False
    else:
        name = host.partition(":")[0]
    if name.lower().removesuffix(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def host_of(scope: Any) -> str:
    """The `Host` header of a request; empty if there is none, or several."""
    values = [value for name, value in scope["headers"] if name == b"host"]
    return values[0].decode("latin-1") if len(values) == 1 else ""


# The smallest hop, as a share of a patch: YAMNet's of 0.1 s takes more than a minute for ten
# minutes of sound. A hop longer than a patch would leave gaps.
LEAST_HOP = 5 / 48

_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {
                        FIELD: {
                            "type": "string",
                            "format": "binary",
                            "description": "WAV, FLAC, MP3, OGG, AIFF or any other format that "
                            "libsndfile reads, at any sample rate.",
                        }
                    },
                }
            }
        },
    }
}
_REFUSALS = {
    400: "The form is damaged, or the host name is not this machine's.",
    403: "The server wants a token, which is missing or wrong.",
    408: "The file arrived too slowly.",
    413: "The file is too large, or the recording too long.",
    415: "The body is not a form.",
    422: "The file is not a sound file, or a parameter is out of range.",
    503: "Too many recordings are waiting; `Retry-After` says when to try again.",
    507: "The disk is full.",
}


def create_app(
    classifier: SoundClassifier,
    limits: Limits | None = None,
    *,
    local_only: bool = True,
    admit: Callable[[Request], None] | None = None,
) -> Any:
    """Make the web application of one classifier.

    Args:
        classifier: the model; only one thread at a time uses it.
        limits: what a request may ask for.
        local_only: refuse requests for any host name but this machine's own; for a
            server that listens on a loopback address.
        admit: refuses requests for what the classifier knows or hears, such as those without a
            token; the page itself and the server's health are open to all. None admits all.

    Returns:
        An ASGI application.
    """
    limits = limits or Limits()
    app = FastAPI(
        title="unfreeze",
        version=__version__,
        description="Which sounds are in a recording, and when.",
        docs_url=None,
        redoc_url=None,
    )

    async def admitted(request: Request) -> None:
        if admit is not None:
            admit(request)

    _add_predict(app, classifier, limits, line := Line(limits.places), admitted)

    async def labels() -> Labels:
        """List the classes that the model knows, and the limits of the server."""
        return Labels(
            list(classifier.labels),
            classifier.multilabel,
            classifier.knows_background,
            *_thresholds(classifier),
            classifier.sample_rate,
            limits.max_mb,
            limits.max_seconds,
        )

    async def healthz() -> Health:
        """Report that the server works, and how long its queue is."""
        return Health("ok", __version__, line.taken, line.places)

    app.add_api_route(
        "/labels", labels, summary="Classes and limits", dependencies=[Depends(admitted)]
    )
    app.add_api_route("/healthz", healthz, summary="Health")
    for url, (content, kind) in pages().items():
        app.add_api_route(
            url, as_route(content, kind), methods=["GET", "HEAD"], include_in_schema=False
        )
    add_refusals(app)
    return guarded(app, local_only=local_only)


def _thresholds(
    classifier: SoundClassifier,
) -> tuple[dict[str, float], list[float], dict[str, Costs] | None]:
    """The thresholds of the classes that are reported, and what others would cost."""
    own = dict(zip(classifier.labels, classifier.thresholds.tolist(), strict=True))
    counts = counts_of(classifier.metrics, classifier.labels)
    levels, costs = LEVELS.tolist(), None
    if counts is not None:
        costs = {}
        for number, label in enumerate(counts.labels):
            there, found = counts.there[number], counts.found[number]
            taken = found + counts.wrong[number]
            rates = (counts.alarms[number] / counts.hours).tolist() if counts.hours else None
            costs[label] = Costs(
                (found / there).tolist() if there else None,
                [int(a) / int(b) if b else None for a, b in zip(found, taken, strict=True)],
                rates,
            )
    loud = [label for label in classifier.labels if not is_quiet(label)]
    kept = None if costs is None else {label: costs[label] for label in loud}
    return {label: own[label] for label in loud}, levels, kept


def _scores_by_class(given: list[str]) -> dict[str, float]:
    """`dog:0.7` and the like, as a mapping.

    Raises:
        Refused: one has another form (422).
    """
    scores = {}
    for text in given:
        label, colon, number = text.rpartition(":")
        try:
            scores[label] = float(number)
        except ValueError:
            colon = ""
        if not colon:
            cause = f"class_score: {text!r} is not a class and its score"
            raise Refused(422, cause, "Give it as in class_score=dog:0.7.")
    return scores


def _add_predict(
    app: FastAPI,
    classifier: SoundClassifier,
    limits: Limits,
    line: Line,
    admitted: Callable[[Request], Awaitable[None]],
) -> None:
    patch = classifier.front_end.patch_seconds

    async def predict(
        request: Request,
        hop: Annotated[
            float | None,
            Query(
                ge=round(LEAST_HOP * patch, 6),
                le=patch,
                description="Seconds from one scored patch to the next, for events.",
            ),
        ] = None,
        min_score: Annotated[
            float | None,
            Query(
                gt=0, le=1, description="Smallest score of an event; else each class's threshold."
            ),
        ] = None,
        class_score: Annotated[
            list[str] | None,
            Query(description="The same for one class, such as `dog:0.7`; may be repeated."),
        ] = None,
        spectrogram: Annotated[
            bool, Query(description="Add the picture of what the network sees.")
        ] = False,
    ) -> Prediction:
        """Classify a recording as a whole, and find the events in it."""
        least: float | dict[str, float] | None = min_score
        if class_score:
            # All that are not named keep `min_score` or, without it, their own thresholds.
            all_alike = {} if min_score is None else dict.fromkeys(classifier.labels, min_score)
            least = {**all_alike, **_scores_by_class(class_score)}
        with line.place():
            async with received(request, limits) as upload, line.turn():
                if await request.is_disconnected():
                    # The client no longer waits for the answer.
                    raise ClientDisconnect
                return await asyncio.to_thread(
                    analyse, classifier, upload, limits, hop, least, spectrogram
                )

    app.add_api_route(
        "/predict",
        predict,
        methods=["POST"],
        summary="Classify a recording",
        dependencies=[Depends(admitted)],
        openapi_extra=_FORM,
        responses={
            status: {"model": Refusal, "description": text} for status, text in _REFUSALS.items()
        },
    )


def as_route(content: bytes, kind: str) -> Callable[[], Any]:
    """What answers requests for a file of a page."""

    async def page() -> Response:
        return Response(content, media_type=kind)

    return page


def add_refusals(app: FastAPI) -> None:
    """Make an application answer what it refuses, and its own faults, as JSON for people."""
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RequestValidationError, _bad_parameter)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _failed)


async def _refused(request: Request, refused: Refused) -> Response:
    return RefusalResponse(refused)


async def _bad_parameter(request: Request, error: RequestValidationError) -> Response:
    causes = [f"{item['loc'][-1]}: {item['msg']}" for item in error.errors()]
    return RefusalResponse(Refused(422, "; ".join(causes), "Change it and send it again."))


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=400)


async def _failed(request: Request, error: Exception) -> Response:
    # The server's log has the traceback; the client must not see internal details.
    logging.getLogger("unfreeze.serve").error("a request failed", exc_info=error)
    refused = Refused(
        500, "the server failed on this request", "Report it to the server's operator."
    )
    return RefusalResponse(refused)
