"""What a data source yields before any sound is read: names, labels, groups."""

import os
import sys
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from unfreeze.audio.names import show
from unfreeze.errors import DataError

MANIFEST_NAME = "manifest.csv"

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
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One recording that the data claim to have.

    Attributes:
        path: where to open it.
        name: the same, relative to the data's folder.
        label: the class.
        group: from the manifest; None where it names none.
        split: "train", "validation" or "test" from the manifest, or None.
        line: of the manifest; None for a folder per class.
    """

    path: Path
    name: Path
    label: str
    group: str | None = None
    split: str | None = None
    line: int | None = None


def check_label(label: str, where: str) -> str:
    """Return a label in one Unicode form; refuse one that cannot be printed.

    Args:
        label: as found.
        where: the file and line, for the error.

    Raises:
        DataError: it is empty, has control characters or is not UTF-8.
    """
    if not label:
        raise DataError(f"{where}: the label is empty. Every recording needs one.")
    if not label.isprintable():
        raise DataError(
            f"{where}: the label {show(label)!r} has characters that cannot be printed or are "
            f"not UTF-8. Rename it."
        )
    # macOS writes names in decomposed form; a manifest made elsewhere does not.
    # Interned: a hundred thousand clips share the few labels.
    return sys.intern(unicodedata.normalize("NFC", label))


def is_within(path: str, root: str) -> bool:
    """Tell whether `path` is `root` or lies in it; both absolute and normalized."""
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)
