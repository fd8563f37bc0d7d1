"""Answers and refusals of the service, as plain data with an HTTP status.

The descriptions of the fields are shown at /docs. A refusal names the file, says what
is wrong with it and what to do.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi.responses import JSONResponse
from pydantic import Field


@dataclass(frozen=True)
class EventAnswer:
    """A sound in a recording."""

    start: Annotated[float, Field(description="Seconds from the start of the recording.")]
    end: Annotated[float, Field(description="Seconds, after `start`.")]
    label: Annotated[str, Field(description="The class.")]
    score: Annotated[float, Field(description="Its largest probability in the event, 0 to 1.")]


@dataclass(frozen=True)
class Spectrogram:
    """The log-mel spectrogram that the network sees, as a picture."""

    columns: Annotated[int, Field(description="Columns, in the order of time.")]
    bands: Annotated[int, Field(description="Mel bands in each column, the lowest first.")]
    seconds: Annotated[float, Field(description="Time that all columns together take.")]
    low_hz: Annotated[float, Field(description="Lower edge of the lowest band.")]
    high_hz: Annotated[float, Field(description="Upper edge of the highest band.")]
    levels: Annotated[
        str, Field(description="One byte per band, column by column, 0 quiet to 255 loud, Base64.")
    ]


@dataclass(frozen=True)
class Prediction:
    """What is in a recording, and when."""

    file: Annotated[str, Field(description="Name of the file as it was sent, made printable.")]
    duration: Annotated[float, Field(description="Seconds.")]
    sample_rate: Annotated[int, Field(description="Of the file, in hertz.")]
    classes: Annotated[
        dict[str, float],
        Field(description="Probability of each class for the whole recording, likeliest first."),
    ]
    heard: Annotated[
        list[str],
        Field(
            description="Classes heard in the recording as a whole: the likeliest one, none if "
            "that is background; or, where each class is judged by itself, those that reach "
            "their threshold."
        ),
    ]
    warnings: Annotated[
        list[str],
        Field(
            description="What is wrong with the file, such as a header that states another length."
        ),
    ]
    events: Annotated[list[EventAnswer], Field(description="In the order of their starts.")]
    spectrogram: Annotated[Spectrogram | None, Field(description="If it was requested, else null.")]


@dataclass(frozen=True)
class Costs:
    """What each threshold of a class did with sounds that the model was not trained on."""

    recall: Annotated[
        list[float] | None, Field(description="Share of the class's sounds that are found.")
    ]
    precision: Annotated[
        list[float | None], Field(description="Share of what is found that is right.")
    ]
    false_alarms: Annotated[
        list[float] | None, Field(description="In an hour of background; null without any.")
    ]


@dataclass(frozen=True)
class Labels:
    """The classes that the model knows, and the limits of the server."""

    labels: Annotated[list[str], Field(description="Its classes, in the model's order.")]
    multilabel: Annotated[
        bool,
        Field(description="Whether each class is judged by itself, so that several may be heard."),
    ]
    background: Annotated[
        bool,
        Field(description="Whether it may hear none of them; if not, noise is called one."),
    ]
    thresholds: Annotated[
        dict[str, float], Field(description="The score from which each class is an event.")
    ]
    levels: Annotated[list[float], Field(description="Thresholds that `costs` are known of.")]
    costs: Annotated[
        dict[str, Costs] | None,
        Field(description="Of each class, a number for each level; null where they are unknown."),
    ]
    sample_rate: Annotated[int, Field(description="The model's own, in hertz.")]
    max_mb: Annotated[float, Field(description="Largest file, in megabytes (10^6 bytes).")]
    max_seconds: Annotated[float, Field(description="Longest recording, in seconds.")]


@dataclass(frozen=True)
class Health:
    """The state of the server."""

    status: Annotated[str, Field(description="`ok`.")]
    version: Annotated[str, Field(description="Of unfreeze.")]
    waiting: Annotated[int, Field(description="Requests in the queue, the running one included.")]
    places: Annotated[int, Field(description="Length of the queue; when full, the answer is 503.")]


@dataclass(frozen=True)
class Refusal:
    """Why a request was refused."""

    detail: Annotated[str, Field(description="File, cause and cure in one text.")]
    file: Annotated[str | None, Field(description="Name of the file, if the refusal is about one.")]
    cause: Annotated[str, Field(description="What is wrong.")]
    cure: Annotated[str, Field(description="What to do.")]


# The rest of a request is read for this long after the answer: most clients read the
# answer only after they have sent everything.
_LINGER_SECONDS = 2.0


class Refused(Exception):
    """A request that the server refuses.

    Args:
        status: HTTP status, 400 to 599.
        cause: a clause that says what is wrong.
        cure: a sentence that says what to do.
        file: the client's name of the file, made printable.
        headers: additional headers of the answer.
    """

    def __init__(
        self,
        status: int,
        cause: str,
        cure: str,
        *,
        file: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(cause)
        self.status, self.cause, self.cure, self.file = status, cause, cure, file
        self.headers = dict(headers or {})

    def content(self) -> dict[str, str | None]:
        """The answer's body; `detail` is file, cause and cure in one text."""
        start = f"{self.file}: {self.cause}" if self.file else self.cause
        # Some causes are whole sentences.
        stop = "" if start.endswith((".", "!", "?")) else "."
        return {
            "detail": f"{start}{stop} {self.cure}",
            "file": self.file,
            "cause": self.cause,
            "cure": self.cure,
        }


class RefusalResponse(JSONResponse):
    """Answers before the request has been read, and then closes the connection.

    After the answer is sent, the rest of the request is read and discarded for a short
    time: closing at once would reset the connection, and a client that is still sending
    would never see the answer.
    """

    def __init__(self, refused: Refused) -> None:
        headers = {**refused.headers, "Connection": "close"}
        super().__init__(refused.content(), status_code=refused.status, headers=headers)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the answer, read the rest for a moment, and end."""
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                while (message := await receive()).get("more_body", False):
                    del message
        except TimeoutError:
            pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})
