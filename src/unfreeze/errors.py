"""Errors for users: each message says what is wrong, where, and what to do.

The command line prints them without a traceback and exits with status 2; any
other exception is a bug in this package. `show` makes names from outside safe to
print, to log and to write as JSON: names on disk may hold newlines, terminal
escapes and bytes that are not UTF-8.
"""

import difflib
import os
from collections.abc import Iterable

# 1 is the same word, 0 shares no letter. Below this a guess is rarely what was meant.
_CLOSE = 0.5


class UnfreezeError(Exception):
    """Base class of all errors that a user can fix.

    Examples:
        >>> try:
        ...     unfreeze.fit(model, "two_stages", x, y)
        ... except unfreeze.UnfreezeError as error:
        ...     print(error)
        no schedule is named 'two_stages'. Did you mean 'two_stage'? Known: two_stage, ...
    """


class Stopped(KeyboardInterrupt):
    """A run that stopped early on request; its finished work is kept."""


class ScheduleError(UnfreezeError, ValueError):
    """A schedule that cannot run as it is written."""


class StageError(UnfreezeError, RuntimeError):
    """A stage that failed or did not do what it claims; the message says why."""


class DataError(UnfreezeError, ValueError):
    """Recordings, manifests or arrays that cannot be used."""


class WeightsError(UnfreezeError, RuntimeError):
    """Pretrained weights that cannot be found, downloaded or verified."""


class RunError(UnfreezeError, RuntimeError):
    """A run folder that is missing, damaged, in use, or holds another run."""


class ExportError(UnfreezeError, RuntimeError):
    """An export that cannot be made, or that does not agree with its model."""


def show(path: str | os.PathLike[str]) -> str:
    r"""Return a name on one line, with odd characters written as escapes.

    Args:
        path: a path, or any text that came from outside.

    Returns:
        Printable text that UTF-8 can encode; slashes as separators.

    Examples:
        >>> show("a\nb.wav")
        'a\\nb.wav'
        >>> show("größe.wav")
        'größe.wav'
    """
    text = path if isinstance(path, str) else path.__fspath__().replace(os.sep, "/")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def sentence(cause: str) -> str:
    """A cause as a sentence of its own.

    Examples:
        >>> sentence("no recording is above 8 kHz")
        'No recording is above 8 kHz.'
    """
    return f"{cause[:1].upper()}{cause[1:]}."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a sentence that names the known word closest to a wrong one.

    Args:
        word: what the user wrote.
        known: what would have been right.

    Returns:
        The sentence with a space before it, to follow another; empty when no
        word is close.

    Examples:
        >>> did_you_mean("trian", ("train", "test"))
        " Did you mean 'train'?"
        >>> did_you_mean("music", ("train", "test"))
        ''
    """
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=_CLOSE)
    return f" Did you mean {show(close[0])!r}?" if close else ""


def _escape(character: str) -> str:
    # A byte that is not UTF-8 reaches Python as a lone surrogate (PEP 383).
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
