"""Times on the command line."""

import re

from unfreeze.errors import UnfreezeError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def read_seconds(text: str) -> float:
    """Read a time such as 90s, 30m or 1.5h; a bare number is seconds.

    Raises:
        UnfreezeError: it is something else, or not above 0.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if match is None or not float(match.group(1)):
        raise UnfreezeError(f"{text!r} is no time: give one such as 90s, 30m or 2h")
    return float(match.group(1)) * _UNITS[match.group(2) or "s"]
