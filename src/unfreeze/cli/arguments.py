"""Options that several commands share.

Training options are declared in `unfreeze.pipeline.train_options`, with help, range and
default; `takes` adds them to a command.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from unfreeze.errors import UnfreezeError
from unfreeze.pipeline.train_options import OPTIONS, TrainOptions, default_of

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def read_seconds(text: str | float) -> float:
    """Read a time such as 90s, 30m or 1.5h; a bare number is seconds.

    Raises:
        UnfreezeError: it is not a time, or not greater than 0.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", str(text).strip())
    if match is None or not float(match.group(1)):
        raise UnfreezeError(f"{text!r} is not a time: give one such as 90s, 30m or 2h")
    return float(match.group(1)) * _UNITS[match.group(2) or "s"]


Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result.")]
Budget = Annotated[
    float | None,
    typer.Option(parser=read_seconds, metavar="TIME", help="Start no run after: 90s, 30m, 2h."),
]

Engine = Annotated[str, typer.Option(help=OPTIONS["engine"].help)]
Address = Annotated[str | None, typer.Option(help=OPTIONS["address"].help)]

_EVENTS = "Events"
Window = Annotated[
    float | None,
    typer.Option(
        help="Seconds scored together: the network's input length or a multiple of it.",
        show_default="its input length: 0.96 with YAMNet, 3 with BirdNET",
        rich_help_panel=_EVENTS,
    ),
]
Hop = Annotated[
    float | None,
    typer.Option(
        help="Seconds from one window to the next.",
        show_default="half of the input length: 0.48 with YAMNet, 1.5 with BirdNET",
        rich_help_panel=_EVENTS,
    ),
]
MinScore = Annotated[
    float | None,
    typer.Option(
        help="Score at which an event begins.",
        show_default="each class's own from the run, or 0.5",
        rich_help_panel=_EVENTS,
    ),
]
Precision = Annotated[
    float | None,
    typer.Option(
        help="Choose each class's threshold for this share of right events, such as 0.95, as "
        "estimated when the model was trained; instead of --min-score.",
        rich_help_panel=_EVENTS,
    ),
]
MaxFalseAlarms = Annotated[
    float | None,
    typer.Option(
        help="Choose the thresholds for so many false alarms in an hour of background, of all "
        "classes together, likewise.",
        rich_help_panel=_EVENTS,
    ),
]
Smooth = Annotated[
    bool | None,
    typer.Option(
        "--smooth", help="Take the median over every three windows.", rich_help_panel=_EVENTS
    ),
]

MACHINES = "Machines and other programs"
# Under which heading `--help` shows the options of training; those that most runs need have none.
_HEADINGS = {
    "Recordings": (
        *("group_regex", "path_column", "label_column", "audio_folder", "label_map", "annotated"),
        *("multilabel", "slow_down", "channel", "validation", "test", "strict", "max_bad"),
    ),
    "Network": ("weights", "accept_licence", "taps", "keep_published"),
    "Training": ("epochs", "batch_size", "learning_rate", "augment", "class_weight"),
    "Long recordings": (
        *("background", "negative", "in_noise", "gate", "precision", "max_false_alarms"),
    ),
    MACHINES: ("devices", "engine", "address", "tensorboard", "mlflow"),
}
_HEADING_OF = {name: heading for heading, names in _HEADINGS.items() for name in names}


def takes(
    *names: str,
    make: Callable[..., TrainOptions] = TrainOptions,
    required: tuple[str, ...] = ("data",),
    helps: Mapping[str, str] | None = None,
    **defaults: Any,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add training options to a command.

    The command's first parameter receives the options as one object. Only options that the
    user has given, and the command's own defaults, are passed to `make`.

    Args:
        *names: fields of `TrainOptions`, in the order of `--help`; "data" is an argument
            and comes after the command's own.
        make: makes the object.
        required: names of options that must be given.
        helps: help texts that differ from those of `unfreeze train`.
        **defaults: defaults that differ from those of `TrainOptions`.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in inspect.signature(command, eval_str=True).parameters.values()
        ][1:]
        shared = [
            _parameter(name, name in required, defaults, (helps or {}).get(name)) for name in names
        ]

        @wraps(command)
        def run(context: typer.Context, **values: Any) -> None:
            asked = {name: values.pop(name) for name in names}
            given = {
                name: value
                for name, value in asked.items()
                if name in required or name in defaults or _is_given(context, name)
            }
            command(make(**given), **values)

        # Typer reads these parameters, not those of the wrapped function.
        del run.__wrapped__
        parameters = sorted([*own, *shared], key=_place)
        context = inspect.Parameter(
            "context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context
        )
        parameters.insert(0, context)
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _place(parameter: inspect.Parameter) -> tuple[int, ...]:
    """The position of a parameter in `--help`: arguments first, headings in their order."""
    info = parameter.annotation.__metadata__[0]
    if isinstance(info, typer.models.ArgumentInfo):
        return (0,)
    if info.rich_help_panel in _HEADINGS:
        return (3, list(_HEADINGS).index(info.rich_help_panel))
    return (2,) if parameter.name in ("json", "quiet") else (1,)


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _parameter(
    name: str, required: bool, defaults: Mapping[str, Any], help: str | None
) -> inspect.Parameter:
    """A training option as a parameter for Typer."""
    option, kind = OPTIONS[name], get_type_hints(TrainOptions)[name]
    default = defaults.get(name, default_of(name))
    more: dict[str, Any] = {"help": help or option.help}
    if option.hidden:
        more["hidden"] = True
    if name in _HEADING_OF:
        more["rich_help_panel"] = _HEADING_OF[name]
    if name == "schedule":
        kind = str
    if option.least is not None or option.most is not None:
        more |= {"min": option.least, "max": option.most}
    plain = f"--{name.replace('_', '-')}"
    # What is on by default can be turned off.
    pair = f"{plain}/--no-{plain[2:]}" if default is True else plain
    flags = [pair, *([option.flag] if option.flag else [])]
    info = typer.Argument(help=more["help"]) if name == "data" else typer.Option(*flags, **more)
    if required:
        kind, default = _without_none(kind), inspect.Parameter.empty
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, info],
    )


def _without_none(kind: Any) -> Any:
    return Path if kind == Path | None else kind
