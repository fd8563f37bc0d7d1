"""The name of a class that someone typed: one that can be trained on and written, or an error.

It is refused where it is typed. Later it would make every training of the review fail, or be
a second class beside the one that was meant.
"""

from collections.abc import Collection

from unfreeze.audio.entries import BACKGROUND, check_label, is_background_name
from unfreeze.audio.label_sets import UNSURE
from unfreeze.audio.segments_file import folder_of
from unfreeze.errors import UnfreezeError, show

# A file system allows 255 bytes for the name of a class's folder.
_MOST_LETTERS, _MOST_BYTES = 100, 200


def named_class(label: str | None, known: Collection[str]) -> str:
    """The class that someone named.

    Args:
        label: as it was typed.
        known: the classes that there are.

    Raises:
        UnfreezeError: it is none, or one that could not be trained on or written.
    """
    named = check_label(" ".join((label or "").split()), "the other class")
    if named in known:
        return named
    if is_background_name(named):
        return BACKGROUND
    if len(named) > _MOST_LETTERS or len(folder_of(named).encode()) > _MOST_BYTES:
        raise UnfreezeError(
            "the name of the class is too long for a folder: give one of at most "
            f"{_MOST_LETTERS} letters, {_MOST_BYTES // 3} if they are not Latin"
        )
    if named.startswith("-") or named.endswith(UNSURE):
        raise UnfreezeError(
            f"the name of a class cannot begin with - or end with {UNSURE}, which would say that "
            "it is not heard, or perhaps: give another name"
        )
    for other in known:
        if other.casefold() == named.casefold():
            raise UnfreezeError(
                f"{named!r} differs from the class {show(other)!r} in capitals alone: choose that "
                "class, or give another name"
            )
    return named
