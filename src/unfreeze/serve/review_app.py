"""The web application of a review: clips to hear, answers to keep, trainings to begin.

What reads or changes anything needs a token (`unfreeze.serve.json_requests`). Clips are named by
their numbers: no request can name a file. All else is as in `unfreeze.serve.web_app`.
"""

from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse

from unfreeze.audio.entries import BACKGROUND
from unfreeze.errors import show
from unfreeze.review.label_files import KINDS
from unfreeze.review.label_store import Decision, TakenError
from unfreeze.review.review_session import Question, ReviewSession
from unfreeze.serve.answers import Refused
from unfreeze.serve.json_requests import RELOAD, Work, json_route, number_in, text_in
from unfreeze.serve.web_app import (
    CLIPS_POLICY,
    HTML,
    ICON,
    SCRIPT,
    STYLE,
    add_refusals,
    as_route,
    guarded,
    read_pages,
)
from unfreeze.version import __version__

_PAGES = {
    "/": ("review.html", HTML),
    "/page/style.css": ("style.css", STYLE),
    "/page/review.css": ("review.css", STYLE),
    "/page/icon.svg": ("icon.svg", ICON),
    "/page/review.js": ("review.js", SCRIPT),
    "/page/text.js": ("text.js", SCRIPT),
}


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
        "state": lambda asked: _state(session, text_in(asked, "label", "")),
        "next": lambda asked: _next(session, asked),
        "decide": lambda asked: _decide(session, asked),
        "undo": lambda asked: _undo(session, asked),
        "train": lambda asked: {"number": session.train()},
        "write": lambda asked: {"number": session.write_model()},
        "export": lambda asked: _export(session, asked),
    }
    for name, work in answers.items():
        route = json_route(work, token, "unfreeze review")
        app.add_api_route(f"/review/{name}", route, methods=["POST"])
    add_refusals(app)
    return guarded(app, local_only=local_only, policy=CLIPS_POLICY)


def _state(session: ReviewSession, label: str) -> dict[str, Any]:
    """What the page shows beside the clip; `label` is the class that is counted."""
    density, known = session.density(label) if label else (None, {"known": 0, "unsure": 0})
    return {
        "run": show(session.run),
        "labels": list(session.labels),
        "known": [label for label in session.run_labels if label in session.labels],
        "several": session.several,
        # A gate adds it to the classes that the run was trained on.
        "background": BACKGROUND in (*session.run_labels, *session.index.labels),
        "notes": session.notes,
        "folder": show(session.folder),
        "counts": session.counts(),
        "training": session.training(),
        "density": None if density is None else asdict(density),
        "sample": known,
        "seconds": session.seconds,
    }


def _next(session: ReviewSession, asked: dict[str, Any]) -> dict[str, Any]:
    tab, label = text_in(asked, "tab"), text_in(asked, "label", "")
    question = session.next(tab, text_in(asked, "order"), label or None)
    return {"question": None if question is None else _shown(session, question)}


def _decide(session: ReviewSession, asked: dict[str, Any]) -> dict[str, Any] | Response:
    try:
        decision = session.decide(
            text_in(asked, "tab"),
            number_in(asked, "clip"),
            text_in(asked, "answer"),
            asked=text_in(asked, "asked"),
            label=text_in(asked, "label", "") or None,
            order=text_in(asked, "order", ""),
            replace=asked.get("replace") is True,
        )
    except TakenError as error:
        taken = {"taken": _said(error.decision), "detail": str(error)}
        return JSONResponse(taken, status_code=409)
    return {"decision": _said(decision)}


def _undo(session: ReviewSession, asked: dict[str, Any]) -> dict[str, Any]:
    question = session.undo(text_in(asked, "tab"))
    return {"question": None if question is None else _shown(session, question)}


def _export(session: ReviewSession, asked: dict[str, Any]) -> dict[str, Any]:
    kind = text_in(asked, "kind")
    if kind not in KINDS:
        raise Refused(422, f"kind must be one of {', '.join(KINDS)}", RELOAD)
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
