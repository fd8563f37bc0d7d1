"""The command line's table of commands.

A command's module is imported when that command is asked for; for `unfreeze --help` none is.
`app` is the table with all of them.
"""

import functools
import importlib
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from unfreeze.version import __version__

_ABOUT = "Train sound classifiers in stages: freeze a pretrained base, train the head, unfreeze."
#: Each command, a function in a module of its own name, and the first line of its help.
COMMANDS = {
    "train": "Train a classifier on labelled recordings, in stages, and test it.",
    "compare": "Compare training schedules on the same splits: means, paired differences, a "
    "verdict.",
    "tune": "Search for learning rates, depth and BatchNorm policy on the training clips.",
    "evaluate": "Score a trained classifier on recordings with known classes.",
    "report": "Write report.html of a finished run, a comparison or an evaluation again.",
    "predict": "Name the classes of recordings, or find when each class is heard in them.",
    "listen": "Print each sound event as soon as it begins, and again once it ends; Ctrl-C stops.",
    "segments": "Cut clips out of recordings for you to review, one folder per class.",
    "review": "Review clips in the browser: confirm, correct, train again, count calls.",
    "embed": "Read recordings once, and keep a vector of each window in an index.",
    "search": "Find places in recordings by their sound, in an index that `unfreeze embed` made.",
    "head": "Train a head on labelled places of an index, in seconds: no recording is read.",
    "export": "Write a classifier as LiteRT, ONNX, OpenVINO, SavedModel or TensorFlow.js.",
    "serve": "Serve a classifier as a web page, and to programs over HTTP.",
    "inspect": "Show the clips, hours, classes, sample rates, problems and split of a data set.",
    "plan": "Show what each stage of a schedule would train; write the schedule to edit it.",
    "backbones": "List the pretrained networks: what they hear, their licence, and where weights "
    "come from.",
    "weights": "Show where the pretrained weights are; download or verify them.",
    "demo": "Train on 20 classes of synthetic sounds, to see that everything works.",
}


def app_for(words: Sequence[str]) -> typer.Typer:
    """The table, with as many commands as some words of a command line need.

    Args:
        words: what comes after `unfreeze`.
    """
    first = words[0] if words else "--help"
    if first in COMMANDS:
        return _table((first,))
    if first == "--help":
        table = _table(())
        for name, text in COMMANDS.items():
            table.command(name, help=text)(_named)
        return table
    return _whole()


@functools.cache
def _whole() -> typer.Typer:
    return _table(tuple(COMMANDS))


def _table(names: Sequence[str]) -> typer.Typer:
    table = typer.Typer(
        help=_ABOUT,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    table.callback()(_options)
    for name in names:
        table.command(name)(getattr(importlib.import_module(f"unfreeze.cli.{name}"), name))
    return table


def _named() -> None:
    """Stands for a command that is only named."""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"unfreeze {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_version),
    ] = False,
) -> None:
    """What comes before the command."""


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _whole()
