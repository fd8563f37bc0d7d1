"""The web application of a review: clips to hear, answers to keep, trainings to begin.

What reads or changes anything needs the token that is in the address which the command prints
(behind `#`, so that it is never sent as part of an address, and stays out of logs and
referrers). The page sends it in a header of its own, which no other site can make a browser
send here; requests that say they come from another site are refused all the same. Clips are
named by their numbers: no request can name a file. All else is as in `unfreeze.serve.web_app`.
"""

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from unfreeze.errors import UnfreezeError, show
from unfreeze.review.label_files import KINDS
from unfreeze.review.label_store import Decision, TakenError
from unfreeze.review.review_session import Question, ReviewSession
from unfreeze.serve.answers import Refused
from unfreeze.serve.web_app import (
    CLIPS_POLICY,
    HTML,
    ICON,
    SCRIPT,
    STYLE,
    add_refusals,
    as_route,
    guarded,
    host_of,
    read_pages,
)
from unfreeze.version import __version__

#: The header that holds the token.
TOKEN_HEADER = "X-Unfreeze-Token"
_PAGES = {
    "/": ("review.html", HTML),
    "/page/style.css": ("style.css", STYLE),
    "/page/review.css": ("review.css", STYLE),
    "/page/icon.svg": ("icon.svg", ICON),
    "/page/review.js": ("review.js", SCRIPT),
    "/page/text.js": ("text.js", SCRIPT),
}
# Bytes of a request, characters of a text in it, and tabs that are remembered.
_MOST_BYTES, _MOST_TEXT = 16_384, 200
_RELOAD = "Load the page again."

Work = Callable[[dict[str, Any]], dict[str, Any]]


def create_review_app(session: ReviewSession, token: str, *, local_only: bool = True) -> Any:
    """Make the web application of a review.

    Args:
        session: the review; threads share it.
        token: that requests must bring.
        local_only: refuse requests for any host name but this machine's own; for a server
            that listens on a loopback address.

    Returns:
        An ASGI application.
    """
    app = FastAPI(title="unfreeze review", version=__version__, docs_url=None, redoc_url=None,
                  openapi_url=None)  # fmt: skip
    for url, (content, kind) in read_pages(_PAGES).items():
        app.add_api_route(
            url, as_route(content, kind), methods=["GET", "HEAD"], include_in_schema=False
        )
    answers: dict[str, Work] = {
        "state": lambda asked: _state(session, _text(asked, "label", "")),
        "next": lambda asked: _next(session, asked),
        "decide": lambda asked: _decide(session, asked),
        "undo": lambda asked: _undo(session, asked),
        "train": lambda asked: {"number": session.train()},
        "export": lambda asked: _export(session, asked),
    }
    for name, work in answers.items():
        app.add_api_route(f"/review/{name}", _route(work, token), methods=["POST"])
    add_refusals(app)
    return guarded(app, local_only=local_only, policy=CLIPS_POLICY)


class _Plain(JSONResponse):
    """An answer in ASCII: folders may have names that are not UTF-8."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def _route(work: Work, token: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        _admit(request, token)
        content = await _body(request)
        try:
            return await done(_parsed(content))
        except Refused as refused:
            # The request has been read to its end: nothing is left to wait for.
            return JSONResponse(refused.content(), status_code=refused.status)

    async def done(asked: dict[str, Any]) -> Response:
        try:
            # Reading sounds and flushing to disk take a while.
            return _Plain(await asyncio.to_thread(work, asked))
        except TakenError as error:
            taken = {"taken": _said(error.decision), "detail": str(error)}
            return JSONResponse(taken, status_code=409)
        except UnfreezeError as error:
            raise Refused(422, str(error), "Change it and try again.") from None

    return answer


def _admit(request: Request, token: str) -> None:
    """Refuse a request without the token, or from a page of another site.

    Raises:
        Refused: 403.
    """
    origin = request.headers.get("origin")
    if origin is not None and _site(origin) != host_of(request.scope):
        raise Refused(403, "the request comes from another site", "Open the page itself.")
    given = request.headers.get(TOKEN_HEADER, "")
    if not hmac.compare_digest(given.encode(), token.encode()):
        cure = "Open the whole address that `unfreeze review` printed, with what is behind the #."
        raise Refused(403, "the token is missing or wrong", cure)


def _site(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


async def _body(request: Request) -> bytes:
    """What a request sends.

    Raises:
        Refused: it is too large (413).
    """
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > _MOST_BYTES:
            raise Refused(413, f"a request has at most {_MOST_BYTES} bytes", _RELOAD)
    return content


def _parsed(content: bytes) -> dict[str, Any]:
    """The JSON object that a request sent.

    Raises:
        Refused: it is none (422).
    """
    try:
        found = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refused(422, "the request is no JSON object", _RELOAD)
    return found


def _text(asked: dict[str, Any], name: str, default: str | None = None) -> str:
    value = asked.get(name, default)
    if not isinstance(value, str) or len(value) > _MOST_TEXT:
        raise Refused(422, f"{name} must be a text of at most {_MOST_TEXT} characters", _RELOAD)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused(422, f"{name} has half of a character", _RELOAD) from None
    return value


def _number(asked: dict[str, Any], name: str) -> int:
    value = asked.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Refused(422, f"{name} must be a whole number", _RELOAD)
    return value


def _state(session: ReviewSession, label: str) -> dict[str, Any]:
    """What the page shows beside the clip; `label` is the class that is counted."""
    density, known = session.density(label) if label else (None, {"known": 0, "unsure": 0})
    return {
        "run": show(session.run),
        "labels": list(session.labels),
        "known": [label for label in session.run_labels if label in session.labels],
        "several": session.several,
        "background": "background" in session.run_labels,
        "notes": session.notes,
        "folder": show(session.folder),
        "counts": session.counts(),
        "training": session.training(),
        "density": None if density is None else asdict(density),
        "sample": known,
        "seconds": session.seconds,
    }


def _next(session: ReviewSession, asked: dict[str, Any]) -> dict[str, Any]:
    tab, label = _text(asked, "tab"), _text(asked, "label", "")
    question = session.next(tab, _text(asked, "order"), label or None)
    return {"question": None if question is None else _shown(session, question)}


def _decide(session: ReviewSession, asked: dict[str, Any]) -> dict[str, Any]:
    decision = session.decide(
        _text(asked, "tab"),
        _number(asked, "clip"),
        _text(asked, "answer"),
        asked=_text(asked, "asked"),
        label=_text(asked, "label", "") or None,
        order=_text(asked, "order", ""),
        replace=asked.get("replace") is True,
    )
    return {"decision": _said(decision)}


def _undo(session: ReviewSession, asked: dict[str, Any]) -> dict[str, Any]:
    question = session.undo(_text(asked, "tab"))
    return {"question": None if question is None else _shown(session, question)}


def _export(session: ReviewSession, asked: dict[str, Any]) -> dict[str, Any]:
    kind = _text(asked, "kind")
    if kind not in KINDS:
        raise Refused(422, f"kind must be one of {', '.join(KINDS)}", _RELOAD)
    place, count = session.export(kind)
    return {"place": show(place), "clips": count}


def _shown(session: ReviewSession, question: Question) -> dict[str, Any]:
    media = session.media(question.clip)
    return {
        "clip": question.clip,
        "recording": show(question.recording.name),
        "start": question.start,
        "end": question.end,
        "asked": question.asked,
        "score": question.score,
        "likeliest": [[label, score] for label, score in question.likeliest],
        "order": question.order,
        "picture": None if media is None else media.picture,
        "sound": None if media is None else media.sound,
    }


def _said(decision: Decision) -> dict[str, Any]:
    return {
        "number": decision.number,
        "answer": decision.answer,
        "label": decision.label,
        "asked": decision.asked,
    }
