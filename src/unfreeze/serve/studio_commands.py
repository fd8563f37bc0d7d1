"""The commands that the studio runs and shows: the same as a person would type.

A form on the page has few of the options of `unfreeze train`; their defaults, ranges, choices
and help are those of `TrainOptions`. What is chosen becomes the words of a command, and nothing
else: the studio runs these words, and shows them as a line for a shell.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

from unfreeze.backbones.registry import BACKBONES
from unfreeze.core.presets import PRESETS
from unfreeze.errors import ExportError, RunError, UnfreezeError, show
from unfreeze.export.formats import FORMATS, check_request
from unfreeze.pipeline import run_folder
from unfreeze.pipeline.train_options import (
    OPTIONS,
    TrainOptions,
    command_words,
    default_of,
)

#: The options of the form; the first three are always in sight.
IN_SIGHT = ("schedule", "backbone", "augment")
IN_FORM = (
    *IN_SIGHT,
    *("epochs", "class_weight", "multilabel", "annotated", "group_regex", "gate", "in_noise"),
    *("validation", "test", "seed", "accept_licence"),
)
# Those that `unfreeze inspect` takes, too.
_OF_DATA = ("multilabel", "annotated", "group_regex", "validation", "test", "seed")
_TITLES = {
    "gate": "Name nothing where only background is heard",
    "in_noise": "Prepare for long recordings",
    "group_regex": "Groups by a regular expression",
    "multilabel": "Clips may have several labels",
    "accept_licence": "Accept the licence of the network's weights",
    "validation": "Share for validation",
    "test": "Share for the test",
    "annotated": "Sounds named in tables of annotated recordings",
}
_FILE = re.compile(r"[,;] or a YAML file[^.]*")
_LONGEST_PATTERN = 200


def fields() -> list[dict[str, Any]]:
    """The options of the form, for the page.

    Returns:
        For each `name`, `title`, `help`, `about` (a text for each choice, or None), `kind`
        ("choice", "flag", "whole", "number" or "text"), `choices`, `default`, `least`, `most`, and
        whether it is `in_sight`.
    """
    hints = get_type_hints(TrainOptions)
    known = {"schedule": tuple(PRESETS), "backbone": tuple(BACKBONES)}
    found = []
    for name in IN_FORM:
        option, types = OPTIONS[name], get_args(hints[name]) or (hints[name],)
        choices = known.get(name, option.choices)
        kinds = {bool: "flag", int: "whole", float: "number"}
        kind = next((kinds[one] for one in types if one in kinds), "text")
        found.append(
            {
                "name": name,
                "title": _TITLES.get(name, name.replace("_", " ").capitalize()),
                # On the command line a file may be named; the page names none.
                "help": _FILE.sub("", option.help),
                "about": _about(name),
                "kind": "choice" if choices else kind,
                "choices": choices,
                "default": default_of(name),
                "least": option.least,
                "most": option.most,
                "in_sight": name in IN_SIGHT,
            }
        )
    return found


def _about(name: str) -> dict[str, str] | None:
    """What each choice of an option is, in a sentence."""
    if name == "schedule":
        docs = {key: str(make.__doc__).partition("\n")[0] for key, make in PRESETS.items()}
        return {key: f"{doc.partition('. ')[0].rstrip('.')}." for key, doc in docs.items()}
    if name == "backbone":
        return {key: one.description for key, one in BACKBONES.items()}
    return None


def options_of(data: Path, run: Path, given: Mapping[str, Any]) -> TrainOptions:
    """The settings of a training that was chosen on the page.

    Args:
        data: the data.
        run: the run's folder.
        given: by the names of the form's options; those that are missing have their defaults.

    Raises:
        UnfreezeError: one is not in the form, or cannot have such a value.
    """
    form = {field["name"]: field for field in fields()}
    for name, value in given.items():
        if name not in form:
            raise UnfreezeError(f"{show(str(name)[:80])} is no option of the page")
        choices = form[name]["choices"]
        if choices and value not in choices:
            raise UnfreezeError(f"{name} is {value!r}: it must be one of {', '.join(choices)}")
        if isinstance(value, str) and len(value) > _LONGEST_PATTERN:
            raise UnfreezeError(f"{name} has more than {_LONGEST_PATTERN} characters")
    return TrainOptions(data=data, out=run, **given)


def train_words(options: TrainOptions) -> list[str]:
    """The words of the command that trains, after `unfreeze`."""
    words = command_words(options)[1:]
    return [
        *words,
        *(["--accept-licence"] if options.accept_licence else []),
        *(["--resume"] if options.resume else []),
    ]


def inspect_words(options: TrainOptions) -> list[str]:
    """The words of the command that looks at the same data."""
    alone = TrainOptions(options.data, **{name: getattr(options, name) for name in _OF_DATA})
    words = command_words(alone)[2:]
    schedule = words.index("--schedule")
    # It always names these two, of which `inspect` knows the seed.
    del words[schedule : schedule + 2]
    return ["inspect", *words]


def options_to_resume(run: Path, root: Path) -> TrainOptions:
    """The settings that an interrupted run is resumed with.

    Args:
        run: its folder.
        root: the folder of the studio.

    Raises:
        RunError: it is no interrupted run, or has settings that the page has not: a file, or
            data elsewhere. The message has the command that resumes it.
    """
    config = run_folder.read_config(run)
    if run_folder.is_finished(run):
        raise RunError(f"{show(run)} holds a finished run: there is nothing to resume")
    old = config.get("options")
    if not isinstance(old, dict) or not isinstance(old.get("data"), str):
        raise RunError(f"{show(run / run_folder.CONFIG)} does not contain the run's options")
    given = {name: old[name] for name in IN_FORM if name in old}
    others = [
        name
        for name, value in old.items()
        if name not in (*IN_FORM, "data", "out")
        and (name not in OPTIONS or value != default_of(name))
    ]
    data = Path(old["data"])
    elsewhere = not data.resolve().is_relative_to(root)
    if others or elsewhere:
        reason = f"it has the options {', '.join(others)}" if others else f"it reads {show(data)}"
        raise RunError(
            f"{show(run.name)} cannot be resumed on the page, as {reason}. In a terminal: "
            f"{show(str(config.get('command', '')))} --resume"
        )
    try:
        options = options_of(data, run, given)
    except UnfreezeError as error:
        raise RunError(f"{show(run)}: {error}") from None
    # The licence was accepted when the run began, and that is remembered.
    return TrainOptions(
        data, out=run, resume=True, **{name: getattr(options, name) for name in given}
    )


def export_words(run: Path, format: str) -> list[str]:
    """The words of the command that exports a run."""
    return ["export", str(run), "--format", format]


def serve_words(run: Path) -> list[str]:
    """The words of the command that serves a run as a page, to those who have its address."""
    return ["serve", str(run), "--token"]


def formats() -> list[dict[str, Any]]:
    """The formats of exports: `name`, `title`, and why one cannot be written here, or None."""
    found = []
    for form in FORMATS.values():
        try:
            check_request(form, None, None)
            problem = None
        except ExportError as error:
            problem = str(error)
        found.append({"name": form.name, "title": form.title, "problem": problem})
    return found


def as_line(words: Sequence[str]) -> str:
    """A command as a line for a shell."""
    return shlex.join(["unfreeze", *words])
