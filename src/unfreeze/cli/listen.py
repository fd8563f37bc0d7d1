"""`unfreeze listen`: events in live sound, from a microphone or a pipe."""

import json as json_module
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unfreeze.cli.arguments import MaxFalseAlarms, MinScore, Precision
from unfreeze.errors import UnfreezeError

if TYPE_CHECKING:
    from unfreeze.classifier import SoundClassifier
    from unfreeze.detection.events import Event, EventStart
    from unfreeze.detection.live import LiveDetector, Summary
    from unfreeze.detection.live_sources import Inbox

_FORMATS = ("table", "jsonl")


def listen(
    run: Annotated[Path, typer.Argument(help="A run folder, or a .keras file.")],
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[-]",
            help="- reads sound from standard input: WAV, or raw 16-bit little-endian mono.",
            show_default="a microphone",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Microphone, by name or number.", show_default="the system's"),
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option(
            min=1, help="Hertz of raw samples on standard input.", show_default="the model's"
        ),
    ] = None,
    min_score: MinScore = None,
    precision: Precision = None,
    max_false_alarms: MaxFalseAlarms = None,
    min_duration: Annotated[
        float,
        typer.Option(
            help="Seconds that an event lasts at least: it is told once it has lasted so long."
        ),
    ] = 0.0,
    max_gap: Annotated[
        float,
        typer.Option(
            help="Seconds: events of a class that are at most so far apart become one, and their "
            "end is told so much later."
        ),
    ] = 0.0,
    form: Annotated[str, typer.Option("--format", help="table or jsonl.")] = "table",
) -> None:
    """Print each sound event as soon as it begins, and again once it ends; Ctrl-C stops.

    Times are counted from the start. Warns when the network falls behind: sound
    from a microphone is dropped when more than 10 s of it are waiting; a pipe is
    paused.
    """
    if source not in (None, "-"):
        raise UnfreezeError(f"{source!r} is not a source: leave it out for a microphone, or give -")
    if source == "-" and device is not None:
        raise UnfreezeError(
            "--device is for a microphone, but - reads standard input: leave out one of them"
        )
    if source is None and rate is not None:
        raise UnfreezeError(
            "--rate is for raw samples on standard input: give - as the source, too"
        )
    from unfreeze.detection.events import DetectOptions

    if form not in _FORMATS:
        raise UnfreezeError(f"There is no format {form!r}: give one of {', '.join(_FORMATS)}")
    if source == "-" and sys.stdin.isatty():
        raise UnfreezeError("Standard input is a terminal: pipe sound into this command")
    # Checked before anything slow.
    options = DetectOptions(
        min_score=min_score,
        min_duration=min_duration,
        max_gap=max_gap,
        precision=precision,
        max_false_alarms=max_false_alarms,
    )
    from unfreeze.classifier import SoundClassifier
    from unfreeze.cli.sentences import say_what_is_granted
    from unfreeze.detection.live import LIMIT
    from unfreeze.detection.live_sources import Inbox, microphone

    classifier = SoundClassifier.load(run)
    detector = classifier.live(
        options.min_score,
        min_duration=options.min_duration,
        max_gap=options.max_gap,
        precision=options.precision,
        max_false_alarms=options.max_false_alarms,
    )
    say_what_is_granted(classifier, options)
    # Before any sound arrives, which would have to wait.
    detector.warm_up()
    inbox = Inbox(round(LIMIT * classifier.sample_rate), waits=source is not None)
    if source is None:
        with microphone(device, classifier.sample_rate, inbox) as name:
            total = _run(classifier, detector, inbox, name, form)
    else:
        front_end = classifier.front_end
        _feed(inbox, rate or front_end.sample_rate, front_end.sample_rate, front_end.channel)
        total = _run(classifier, detector, inbox, "standard input", form)
    dropped = f", {total.dropped:.1f} s dropped" if total.dropped else ""
    _say(
        f"{total.events} event{'' if total.events == 1 else 's'} in {total.seconds:.1f} s of "
        f"sound{dropped}; at most {max(total.worst, 0):.1f} s behind"
    )


def _run(
    classifier: "SoundClassifier", detector: "LiveDetector", inbox: "Inbox", name: str, form: str
) -> "Summary":
    from unfreeze.cli.sentences import say_without_background
    from unfreeze.detection.event_files import as_plain, clock
    from unfreeze.detection.events import Event
    from unfreeze.detection.live import listen as listen_to

    _say(f"Listening to {name}; press Ctrl-C to stop")
    say_without_background(classifier)
    width = max(map(len, classifier.labels))

    def show(event: "EventStart | Event") -> None:
        over = isinstance(event, Event)
        if form == "jsonl":
            row = {"event": "end" if over else "start", **as_plain(event)}
            line = json_module.dumps(row, ensure_ascii=False)
        else:
            start = clock(event.start)
            end = clock(event.end) if isinstance(event, Event) else "begins"
            line = f"{start}  {end:<{len(start)}}  {event.label:<{width}}  {event.score:.3f}"
        print(line, flush=True)

    def lag(behind: float, dropped: float) -> None:
        if dropped:
            _say(f"cannot keep up: {dropped:.1f} s of sound was dropped")
        elif behind:
            _say(f"cannot keep up: {behind:.1f} s behind")
        else:
            _say("caught up")

    return listen_to(detector, inbox, classifier.sample_rate, show, lag)


def _feed(inbox: "Inbox", rate: int, sample_rate: int, channel: int) -> None:
    """Read standard input into the inbox, in a thread."""
    from unfreeze.detection.live_sources import pipe_blocks

    # A copy: nothing else in this process can close or read it.
    descriptor = os.dup(sys.stdin.fileno())

    def read() -> None:
        try:
            for samples in pipe_blocks(descriptor, rate, sample_rate, channel):
                if len(samples) and not inbox.put(samples):
                    return
        except BaseException as error:
            inbox.close(error)
        else:
            inbox.close()

    threading.Thread(target=read, name="unfreeze-listen", daemon=True).start()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
