"""The bodies of all answers, as plain data; their descriptions are shown at /docs."""

from dataclasses import dataclass
from typing import Annotated

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
        str, Field(description="A byte a band, column after column, 0 quiet to 255 loud, Base64.")
    ]


@dataclass(frozen=True)
class Prediction:
    """What is in a recording, and when."""

    file: Annotated[str, Field(description="The name that was sent, made printable.")]
    duration: Annotated[float, Field(description="Seconds.")]
    sample_rate: Annotated[int, Field(description="Of the file, in hertz.")]
    classes: Annotated[
        dict[str, float],
        Field(description="Probability of each class for the whole recording, likeliest first."),
    ]
    events: Annotated[list[EventAnswer], Field(description="In the order of their starts.")]
    spectrogram: Annotated[Spectrogram | None, Field(description="When asked for, else null.")]


@dataclass(frozen=True)
class Labels:
    """What the model knows and what it takes."""

    labels: Annotated[list[str], Field(description="Its classes, in the model's order.")]
    sample_rate: Annotated[int, Field(description="That the model hears at, in hertz.")]
    max_mb: Annotated[float, Field(description="Largest file, in megabytes (10^6 bytes).")]
    max_seconds: Annotated[float, Field(description="Longest recording, in seconds.")]


@dataclass(frozen=True)
class Health:
    """That the server answers."""

    status: Annotated[str, Field(description="`ok`.")]
    version: Annotated[str, Field(description="Of unfreeze.")]
    waiting: Annotated[int, Field(description="Requests in the line, the running one included.")]
    places: Annotated[int, Field(description="Length of the line; beyond it the answer is 503.")]


@dataclass(frozen=True)
class Refusal:
    """Why a request was not done."""

    detail: Annotated[str, Field(description="All of it as one text.")]
    file: Annotated[str | None, Field(description="The file, if it is about one.")]
    cause: Annotated[str, Field(description="What is wrong.")]
    cure: Annotated[str, Field(description="What to do.")]
