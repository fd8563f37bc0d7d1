"""Tables as HTML, for results that a notebook shows; names from users are escaped.

They follow the notebook's own look: no colours, no scripts, numbers to the right.
"""

from collections.abc import Iterable, Sequence
from html import escape
from numbers import Real
from typing import Any

from unfreeze.errors import show


def html_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[Any]],
    title: str = "",
    notes: Iterable[str] = (),
) -> str:
    """A table as HTML.

    Args:
        headers: of the columns.
        rows: cells of each row: text, numbers (shown with separators or three digits), or None
            for an empty cell.
        title: shown above the table.
        notes: lines below it.

    Returns:
        HTML in which everything that was given is text.
    """
    head = "".join(f"<th style='text-align:left'>{as_text(name)}</th>" for name in headers)
    body = "".join(f"<tr>{''.join(_cell(cell) for cell in row)}</tr>" for row in rows)
    above = f"<caption style='text-align:left'><b>{as_text(title)}</b></caption>" if title else ""
    below = "".join(f"<div>{as_text(note)}</div>" for note in notes)
    return f"<table>{above}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"


def _cell(value: Any) -> str:
    if isinstance(value, Real) and not isinstance(value, bool):
        shown = f"{value:,}" if isinstance(value, int) else f"{float(value):.3g}"
        return f"<td style='text-align:right'>{shown}</td>"
    return f"<td style='text-align:left'>{'' if value is None else as_text(value)}</td>"


def as_text(value: Any) -> str:
    """Anything as text in HTML, on one line, in elements and in quoted attributes alike."""
    return escape(show(str(value)))
