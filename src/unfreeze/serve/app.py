"""The web application: its addresses, and how a request goes through it."""

import asyncio
import logging
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.requests import ClientDisconnect

from unfreeze.classifier import SoundClassifier
from unfreeze.serve.analysis import analyse
from unfreeze.serve.answers import Health, Labels, Prediction, Refusal
from unfreeze.serve.guard import guarded
from unfreeze.serve.limits import Limits, Line
from unfreeze.serve.pages import pages
from unfreeze.serve.refusals import RefusalResponse, Refused
from unfreeze.serve.upload import FIELD, received
from unfreeze.version import __version__

# Less than the front end's own hop of 0.48 s by far; more would cost a minute
# of computing for ten minutes of sound, and a gap would open beyond a patch.
LEAST_HOP, LARGEST_HOP = 0.1, 0.96

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
                            "description": "WAV, FLAC, MP3, OGG, AIFF and all else that "
                            "libsndfile reads, any sample rate.",
                        }
                    },
                }
            }
        },
    }
}
_REFUSALS = {
    400: "The form is damaged, or the host name is not this machine's.",
    408: "The file came too slowly.",
    413: "Too large or too long.",
    415: "The body is no form.",
    422: "The file is no sound, or a parameter is out of range.",
    503: "Too many recordings are waiting; `Retry-After` says when to come again.",
    507: "The disk is full.",
}


def create_app(
    classifier: SoundClassifier, limits: Limits | None = None, *, local_only: bool = True
) -> Any:
    """Make the web application of one classifier.

    Args:
        classifier: the model; only one thread at a time uses it.
        limits: what a request may ask for.
        local_only: refuse requests for any host name but this machine's own.
            For a server that listens on a loopback address.

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
    _add_predict(app, classifier, limits, line := Line(limits.places))

    async def labels() -> Labels:
        """Tell the classes that the model knows, and what may be sent."""
        return Labels(
            list(classifier.labels), classifier.sample_rate, limits.max_mb, limits.max_seconds
        )

    async def healthz() -> Health:
        """Tell that the server answers, and how long its line is."""
        return Health("ok", __version__, line.taken, line.places)

    app.add_api_route("/labels", labels, summary="Classes and limits")
    app.add_api_route("/healthz", healthz, summary="Health")
    for url, (content, kind) in pages().items():
        app.add_api_route(
            url, _page(content, kind), methods=["GET", "HEAD"], include_in_schema=False
        )
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RequestValidationError, _bad_parameter)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _failed)
    return guarded(app, local_only=local_only)


def _add_predict(app: FastAPI, classifier: SoundClassifier, limits: Limits, line: Line) -> None:
    async def predict(
        request: Request,
        hop: Annotated[
            float | None,
            Query(
                ge=LEAST_HOP,
                le=LARGEST_HOP,
                description="Seconds from one scored patch to the next, for events.",
            ),
        ] = None,
        min_score: Annotated[
            float | None,
            Query(gt=0, le=1, description="Least score of an event; else each class's threshold."),
        ] = None,
        spectrogram: Annotated[
            bool, Query(description="Add the picture of what the network sees.")
        ] = False,
    ) -> Prediction:
        """Classify a recording as a whole, and find the events in it."""
        with line.place():
            async with received(request, limits) as upload, line.turn():
                if await request.is_disconnected():
                    # Nobody waits for it any more.
                    raise ClientDisconnect
                return await asyncio.to_thread(
                    analyse, classifier, upload, limits, hop, min_score, spectrogram
                )

    app.add_api_route(
        "/predict",
        predict,
        methods=["POST"],
        summary="Classify a recording",
        openapi_extra=_FORM,
        responses={
            status: {"model": Refusal, "description": text} for status, text in _REFUSALS.items()
        },
    )


def _page(content: bytes, kind: str) -> Callable[[], Any]:
    async def page() -> Response:
        return Response(content, media_type=kind)

    return page


async def _refused(request: Request, refused: Refused) -> Response:
    return RefusalResponse(refused)


async def _bad_parameter(request: Request, error: RequestValidationError) -> Response:
    causes = [f"{item['loc'][-1]}: {item['msg']}" for item in error.errors()]
    return RefusalResponse(Refused(422, "; ".join(causes), "Change it and send it again."))


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=400)


async def _failed(request: Request, error: Exception) -> Response:
    # The server's log has the traceback; the client learns nothing of our inside.
    logging.getLogger("unfreeze.serve").error("a request failed", exc_info=error)
    refused = Refused(500, "the server failed on this request", "Tell who runs the server.")
    return RefusalResponse(refused)
