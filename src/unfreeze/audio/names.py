"""File names as text that is safe to print, to log and to write as JSON.

Names on disk may hold newlines, terminal escapes and bytes that are not UTF-8.
"""

import os


def show(path: str | os.PathLike[str]) -> str:
    r"""Return a name on one line, with odd characters written as escapes.

    Args:
        path: a path, or any text that came from outside.

    Returns:
        Printable text that UTF-8 can encode; slashes as separators.

    Example:
        >>> show("a\nb.wav")
        'a\\nb.wav'
        >>> show("größe.wav")
        'größe.wav'
    """
    text = path if isinstance(path, str) else path.__fspath__().replace(os.sep, "/")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    # A byte that is not UTF-8 reaches Python as a lone surrogate (PEP 383).
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
