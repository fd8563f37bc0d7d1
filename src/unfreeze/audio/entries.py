"""One recording, or a stretch of one, as the data name it, and what its label may be.

A class whose name says that it holds none of the sounds is silent: it takes probability
and is never reported as an event. Its name alone decides, so the rule holds for a run, a
single `.keras` file and your own folder.
"""

import os
import re
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from unfreeze.audio.label_sets import SEPARATOR, UNSURE, changed, classes_in, set_text
from unfreeze.audio.rules import Problem
from unfreeze.core import yaml_file
from unfreeze.errors import DataError, did_you_mean, show

#: The class of recordings without any of the sounds, and of sounds that only look like one.
BACKGROUND = "background"

# A sound of a class that the user leaves out: it is not trained on, and no background either.
DROPPED = "\0dropped"

# The parts of a split, by the names that data sets use for them.
SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}

# Other names of the silent class, without case and punctuation.
_BACKGROUND = {"background", "backgroundnoise", "backgroundsounds", "nocall", "noevent", "nosound"}
# Classes that may be meant as silent ones, or as sounds of their own.
_UNCLEAR = {"noise", "silence", "silent", "other", "others", "unknown", "none", "ambient", "quiet"}
# What programs write where a label is missing.
_MISSING = {"nan", "na", "null", "n/a", "-", "?", "??", "???"}
_ERROR = re.compile(r"#(?:n/a|ref!|value!|name\?|num!|null!|div/0!)|=.*", re.IGNORECASE)
_JOINED = re.compile(r"[,/+&]|\band\b|(?<=') (?=')")
_OF_SILENCE = re.compile(r"silen[ct]|quiet|empty", re.IGNORECASE)
# Where files are kept, or the state that they are in: rarely a sound.
_PLACES = set(SPLITS) - {"train"} | {
    *("unlabeled", "unlabelled", "unsorted", "unclassified", "todo", "misc", "tmp", "temp", "data"),
    *("audio", "wav", "wavs", "mp3", "flac", "recordings", "samples", "clips", "files", "raw"),
    *("processed", "augmented", "mono", "stereo", "spectrograms"),
}
# Who speaks or where it was recorded, with a number or a letter: rarely what a classifier
# should tell.
_NUMBERED = re.compile(
    r"(actor|speaker|spk|subject|person|people|user|participant|patient|child|bird|animal|"
    r"individual|site|station|recorder|device|mic|session|day|night|recording|file|track|"
    r"folder|id|plot|transect|location|loc|room|aru|audiomoth|am)"
    r"(?:[ _-]?\d+|[ _-][a-z]|(?-i:(?<=[a-z])[A-Z]))",
    re.IGNORECASE,
)
# When it was recorded, or how: days, years and months, and sample rates.
_DATED = re.compile(
    r"(?:19|20)\d\d(?:[ ._-]?\d\d?){0,2}|\d\d?[ ._-]\d\d?[ ._-](?:19|20)?\d\d|"
    r"(?:january|february|march|april|may|june|july|august|september|october|november|december)"
    r"(?:[ _-]?(?:19|20)?\d\d)?|\d+(?:[.,]\d+)? ?k(?:hz)?",
    re.IGNORECASE,
)
_SEVERAL = re.compile(r"[;|]|^\[.*\]$")


@dataclass(frozen=True, slots=True)
class Entry:
    """One recording that the data name, or a stretch of it.

    Attributes:
        path: where to open it.
        name: the same, relative to the data's folder.
        label: the class; where clips may have several, the text of their set
            (`unfreeze.audio.label_sets`).
        group: from the manifest; None where it names none.
        split: "train", "validation" or "test" from the manifest, or None.
        line: its line in the manifest; None for a folder per class.
        start: seconds, where the stretch begins; None for the whole recording.
        end: seconds, where it ends; None likewise.
        low: hertz, the lower bound of the sound in an annotation, or None.
        high: hertz, the upper bound, or None.
        complete: whether the label speaks of every class, so that what is not in it is not
            heard.
    """

    path: Path
    name: Path
    label: str
    group: str | None = None
    split: str | None = None
    line: int | None = None
    start: float | None = None
    end: float | None = None
    low: float | None = None
    high: float | None = None
    complete: bool = False


def is_quiet(label: str) -> bool:
    """Say whether a class is silent: when it is the likeliest, nothing is reported.

    So is the empty set of labels.
    """
    return label in (BACKGROUND, "")


def is_background_name(label: str) -> bool:
    """Say whether data that name a class so mean `background`, which has other names, too.

    Examples:
        >>> [is_background_name(name) for name in ("Background noise", "no call", "noise")]
        [True, True, False]
    """
    return _plain(label) in _BACKGROUND


def _plain(label: str) -> str:
    return re.sub(r"[\W_]", "", label.casefold())


def is_of_silence(label: str) -> bool:
    """Say whether a class may be one of silence, by its name, so that silence may be heard."""
    return bool(_OF_SILENCE.search(label))


def quiet_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the silent ones among some classes, in their order.

    Examples:
        >>> quiet_labels(("background", "dog"))
        ('background',)
    """
    return tuple(label for label in labels if is_quiet(label))


def check_label(label: str, where: str) -> str:
    """Return a label in one Unicode form; refuse one that cannot be used as it is.

    Args:
        label: as found.
        where: the file and line, for the error.

    Raises:
        DataError: it is empty, has control characters, is not UTF-8, or names several
            classes.
    """
    if not label:
        raise DataError(f"{where}: the label is empty. Every recording needs one.")
    if not label.isprintable():
        raise DataError(
            f"{where}: the label {show(label)!r} has characters that cannot be printed or are "
            f"not UTF-8. Rename it."
        )
    if _SEVERAL.search(label):
        raise DataError(
            f"{where}: the label {show(label)!r} names several classes. List such clips in a table "
            "with the columns path,label or, if it is one class, write its name without these "
            "marks."
        )
    # macOS writes names in decomposed form; a manifest made elsewhere does not.
    # Interned: a hundred thousand clips share the few labels.
    return sys.intern(unicodedata.normalize("NFC", label))


def settle_labels(
    entries: Sequence[Entry], several: bool = False
) -> tuple[list[Entry], list[Problem]]:
    """Recognize the silent class under its other names, and ask about unclear ones.

    Args:
        entries: of a data set.
        several: whether clips may have several labels. The silent class is then no class:
            a clip of it has no label.

    Returns:
        The entries, with `background` for its other names, and notes on that and on
        classes that may be meant as silent.

    Raises:
        DataError: a class is named like samples that are not of a class.
    """
    notes, names, alike = [], dict[str, str](), defaultdict[str, list[str]](list)
    found = {label for text in {e.label for e in entries} for label in classes_in(text, several)}
    for label in sorted(found - {DROPPED}):
        alike[" ".join(re.split(r"[\s_-]+", label.casefold().strip()))].append(label)
        if label.casefold() in _MISSING or _ERROR.fullmatch(label):
            cause = "is a class like any other; programs write it where a label is missing"
            notes.append(Problem(Path(label), "no_label", cause, False))
        lost = _misread(label)
        if lost is not None:
            notes.append(Problem(Path(label), "encoding", lost, False))
        plain = _plain(label)
        if label.startswith("-") and label.strip("-"):
            raise DataError(
                f"The class {show(label)!r} looks like sounds that are not {label.lstrip('-')!r}. "
                f"Move them to a folder of their own and give it with --negative, or rename "
                "the class."
            )
        if plain in _BACKGROUND and (several or label != BACKGROUND):
            names[label] = BACKGROUND
            cause = f"is taken as {BACKGROUND!r}, the class that is never reported"
            cause = "is no class: clips of it are clips without a label" if several else cause
            notes.append(Problem(Path(label), "background", cause, False))
        elif plain in _UNCLEAR:
            cause = (
                f"is a class like any other and will be reported; if it stands for none of the "
                f"sounds, name it {BACKGROUND!r}"
            )
            notes.append(Problem(Path(label), "background", cause, False))
        elif plain in _PLACES:
            cause = (
                "is a class like any other and will be reported, but is named like a place for "
                "files; if it is no sound, move it elsewhere or drop it (--map)"
            )
            notes.append(Problem(Path(label), "no_sound", cause, False))
    found.discard(DROPPED)
    for label in sorted(found):
        if not several and label.endswith(UNSURE) and label.rstrip(f"{UNSURE} ") in found:
            cause = "is a class of its own; with --multilabel it means that nobody is sure"
            notes.append(Problem(Path(label), "unsure", cause, False))
        parts = [part.strip(" '\"()[]{}") for part in _JOINED.split(label)]
        if len(parts) > 1 and found.intersection(parts) - {label}:
            cause = "looks like several classes; to say so, write ; between them"
            notes.append(Problem(Path(label), "joined", cause, False))
    speakers = [_NUMBERED.fullmatch(label) for label in found]
    numbered = len({m and m[1].casefold() for m in speakers}) == 1 and bool(speakers[0])
    if len(found) > 1 and (numbered or all(_DATED.fullmatch(label) for label in found)):
        first = sorted(found)[0]
        kind = "who or where is heard" if numbered else "when or how it was recorded"
        cause = (
            f"the classes are {len(found)} such names: if they are {kind}, not "
            "what, give the sounds' classes in a table, or these as groups (--group-regex)"
        )
        notes.append(Problem(Path(first), "speakers", cause, False))
    for same in alike.values():
        if len(same) > 1:
            others = ", ".join(map(show, same[1:]))
            cause = f"differs from {others} in case, spaces, - and _ only (--map)"
            notes.append(Problem(Path(same[0]), "alike", cause, False))
    if several:
        own = {e.label: _without(_settled(e.label, found), names) for e in entries}
        return [replace(entry, label=own[entry.label]) for entry in entries], notes
    if not names:
        return list(entries), notes
    return [replace(e, label=names.get(e.label, e.label)) for e in entries], notes


def _misread(label: str) -> str | None:
    """What is wrong with letters that went through a wrong encoding; None if nothing is."""
    if "\N{REPLACEMENT CHARACTER}" in label:
        return "has letters that were lost when it was saved in another encoding (--map renames it)"
    for wrong in ("cp1252", "latin-1"):
        with suppress(UnicodeError):
            meant = label.encode(wrong).decode("utf-8")
            if meant != label:
                return f"is perhaps {show(meant)!r}, read in a wrong encoding (--map renames it)"
    return None


def _settled(text: str, classes: Collection[str]) -> str:
    """`dog?` alone is unsure where `dog` is a class; else it is the name of one."""
    name = text.rstrip(f"{UNSURE} ")
    unsure = text.endswith(UNSURE) and SEPARATOR not in text and name in classes
    return set_text((), [name]) if unsure else text


def _without(text: str, left_out: Collection[str]) -> str:
    if text == DROPPED:
        return text
    return changed(text, lambda label: None if label in left_out else label)


def read_label_map(file: Path) -> dict[str, str | None]:
    """Read the new names of classes: a YAML file with lines `old: new`; `old:` drops a class.

    Raises:
        ScheduleError: it cannot be read.
        DataError: a new name cannot be a label.
    """
    root = yaml_file.compose(yaml_file.read_text(file), str(file))
    read = yaml_file.optional(yaml_file.plain)
    found: dict[str, str | None] = {}
    for old, (_, node) in yaml_file.pairs(root, "names of classes").items():
        new, where = read(node, old), f"{file}:{node.start_mark.line + 1}"
        if isinstance(new, list):
            raise DataError(f"{where}: {old} has several new names. Give one.")
        name = unicodedata.normalize("NFC", old)
        found[name] = None if new is None else check_label(str(node.value).strip(), where)
    return found


def rename_labels(
    entries: Sequence[Entry],
    names: Mapping[str, str | None],
    file: Path,
    several: bool = False,
) -> list[Entry]:
    """Rename, merge or drop classes.

    Args:
        entries: of a data set.
        names: the new name of each class that has one; None drops it.
        file: where they come from, for the error.
        several: whether clips may have several labels; a clip is dropped with its last.

    Raises:
        DataError: it names a class that is not there.
    """
    labels = {x for text in {e.label for e in entries} for x in classes_in(text, several)}
    for old in names:
        if old not in labels:
            hint = did_you_mean(old, sorted(labels)) or f" Classes: {', '.join(sorted(labels))}"
            raise DataError(f"{show(file)}: no class is named {show(old)!r}.{hint}")
    for old, to in names.items():
        if several and to is not None and to.endswith(UNSURE):
            raise DataError(
                f"{show(file)}: {show(old)!r} would be renamed to {show(to)!r}, which means that "
                "nobody knows. Give it a name without the question mark."
            )
    found = []
    for entry in entries:
        new = names.get(entry.label, entry.label)
        if several:
            kept = changed(entry.label, lambda label: names.get(label, label))
            new = None if entry.label and not kept else kept
        if new is not None:
            found.append(replace(entry, label=new))
        elif entry.start is not None:
            found.append(replace(entry, label=DROPPED))
    return found


def read_split(text: str, where: str) -> str | None:
    """The part that a word stands for; None for an empty one.

    Raises:
        DataError: it is no part.
    """
    name = text.strip().lower()
    if not name:
        return None
    if name not in SPLITS:
        raise DataError(
            f"{where}: unknown split {show(text)!r}; it must be train, validation or test "
            f"(or val, valid, dev, eval).{did_you_mean(name, SPLITS)}"
        )
    return SPLITS[name]


def is_within(path: str, root: str) -> bool:
    """Say whether `path` is `root` or lies in it; both absolute and normalized."""
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


def heard_classes(
    labels: Sequence[str], chances: np.ndarray, levels: np.ndarray | None, *, silent: bool
) -> tuple[str, ...]:
    """The classes that are heard in a clip.

    Args:
        labels: name of each class.
        chances: (classes,) their probabilities.
        levels: (classes,) from which each is heard, the likeliest first; None for clips with
            one class, the likeliest, and none if that is background.
        silent: whether the clip holds digital silence alone: then no class is heard but one of
            silence.
    """
    if silent:
        known = np.array([is_of_silence(label) for label in labels])
        chances = np.where(known, chances, 0.0)
        if not known.any():
            return ()
    order = np.argsort(-chances, kind="stable")
    if levels is not None:
        reached = chances >= levels
        return tuple(labels[i] for i in order if reached[i])
    likeliest = labels[order[0]]
    return () if is_quiet(likeliest) else (likeliest,)
