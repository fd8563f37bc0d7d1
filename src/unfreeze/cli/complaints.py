"""Errors of the system as users can mend them: disk, rights, memory."""

import errno

from unfreeze.core.memory import first_line, is_out_of_memory

# What a user can do, by the system's number of the error.
_CURES = {
    errno.ENOSPC: "make room on the disk, then run it again",
    errno.EDQUOT: "make room on the disk, then run it again",
    errno.EFBIG: "the file would be larger than the system allows (see ulimit -f)",
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: "change the rights, or choose another folder",
    errno.EPERM: "change the rights, or choose another folder",
    errno.ENOENT: "it was there before, or its folder was: look what has removed it",
    errno.ENOTDIR: "choose another folder",
    errno.EEXIST: "choose another folder",
    errno.EIO: "the disk or its connection has failed: run it again with another folder",
    errno.ESTALE: "the disk or its connection has failed: run it again with another folder",
    errno.EMFILE: "too many files are open (see ulimit -n)",
    errno.ENFILE: "too many files are open on this machine",
}
_NO_MEMORY = "close other programs, or work with less at once (smaller batches, shorter files)"


def explain(error: BaseException) -> str | None:
    """What to tell of an error of the system; None where it is none that a user can mend."""
    if is_out_of_memory(error) or getattr(error, "errno", None) == errno.ENOMEM:
        return f"there is not enough memory ({first_line(error)}): {_NO_MEMORY}"
    if not isinstance(error, OSError) or error.errno not in _CURES:
        return None
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}; {_CURES[error.errno]}"
