"""Several labels of one clip, written as one text: `cat;dog`.

Where clips may have several labels, a label is a set of classes: those that are heard,
and those of which the data do not say whether they are (`dog?`), which count neither as
heard nor as not heard. A clip without any is one in which no class is heard. The text is
in one form (sorted, no doubles), so equal sets are equal texts.
"""

import re
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from functools import lru_cache

SEPARATOR, UNSURE = ";", "?"
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")


def set_text(heard: Iterable[str], unsure: Iterable[str] = ()) -> str:
    """The text of a set of labels.

    Examples:
        >>> set_text(["dog", "cat"], ["owl", "cat"])
        'cat;dog;owl?'
    """
    sure = set(heard)
    parts = [*sorted(sure), *(f"{x}{UNSURE}" for x in sorted(set(unsure) - sure))]
    # So that it cannot be taken for a class whose name ends in a question mark.
    return SEPARATOR.join(parts if sure or len(parts) != 1 else ["", *parts])


def is_set(text: str) -> bool:
    """Whether a label can only be that of a clip that may have several."""
    return not text or SEPARATOR in text


@lru_cache(maxsize=65536)
def heard_in(text: str) -> tuple[str, ...]:
    """The classes that a text says are heard, sorted."""
    if SEPARATOR not in text:
        # A single class, whatever its name ends in.
        return (text,) if text else ()
    return tuple(x for x in text.split(SEPARATOR) if x and not x.endswith(UNSURE))


@lru_cache(maxsize=65536)
def unsure_in(text: str) -> tuple[str, ...]:
    """The classes of which a text does not say whether they are heard, sorted."""
    if SEPARATOR not in text:
        return ()
    return tuple(x[: -len(UNSURE)] for x in text.split(SEPARATOR) if x.endswith(UNSURE))


def classes_of(text: str, several: bool) -> tuple[str, ...]:
    """The classes of a clip: those heard in it, or its only one."""
    return heard_in(text) if several else (text,)


def union(*texts: str) -> str:
    """What several texts say of the same clip together: heard in one is heard."""
    heard = [label for text in texts for label in heard_in(text)]
    return set_text(heard, [label for text in texts for label in unsure_in(text)])


def classes_in(text: str, several: bool) -> tuple[str, ...]:
    """All classes that a text names, those that may be heard, too."""
    return (*heard_in(text), *unsure_in(text)) if several else (text,)


def changed(text: str, change: Callable[[str], str | None]) -> str:
    """A text with each class renamed, or left out where the new name is None."""

    def names(labels: Iterable[str]) -> list[str]:
        return [name for name in map(change, labels) if name is not None]

    return set_text(names(heard_in(text)), names(unsure_in(text)))


def split_labels(
    text: str, listed: bool = False, alone: AbstractSet[str] = frozenset()
) -> list[str]:
    """The labels that a cell names, as written.

    Args:
        text: such as `cat;dog`, `cat | dog`, `['cat', 'dog']` or `["cat","dog"]`.
        listed: whether a comma separates labels, too.
        alone: labels that occur by themselves; where `,`, `+` or `&` stands between
            such ones, it separates them.
    """
    inside = text.strip()
    for mark in ",+&" if inside not in alone else "":
        parts = [part.strip() for part in inside.split(mark)]
        if len(parts) > 1 and all(part in alone for part in parts):
            return parts
    if inside.startswith("[") and inside.endswith("]"):
        inside, listed = inside[1:-1], True
        quoted = [a or b for a, b in _QUOTED.findall(inside)]
        if quoted:
            return [part.strip() for part in quoted]
    parts = re.split(r"[;|,]" if listed else r"[;|]", inside)
    return [part.strip().strip("\"'").strip() for part in parts if part.strip()]


def read_set(parts: Iterable[str], check: Callable[[str], str]) -> str:
    """The text of a set of labels as a cell names them; "" for none.

    Args:
        parts: from `split_labels`.
        check: returns a label in the form to use, or raises an error.
    """
    heard, unsure = list[str](), list[str]()
    for part in parts:
        name = check(part.rstrip(f"{UNSURE} "))
        (unsure if part.endswith(UNSURE) else heard).append(name)
    return set_text(heard, unsure)
