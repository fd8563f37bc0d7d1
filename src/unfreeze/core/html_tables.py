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
    head = "".join(f"<th style='text-align:left'>{_text(name)}</th>" for name in headers)
    body = "".join(f"<tr>{''.join(_cell(cell) for cell in row)}</tr>" for row in rows)
    above = f"<caption style='text-align:left'><b>{_text(title)}</b></caption>" if title else ""
    below = "".join(f"<div>{_text(note)}</div>" for note in notes)
    return f"<table>{above}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"


def _cell(value: Any) -> str:
    if isinstance(value, Real) and not isinstance(value, bool):
        shown = f"{value:,}" if isinstance(value, int) else f"{float(value):.3g}"
        return f"<td style='text-align:right'>{shown}</td>"
    return f"<td style='text-align:left'>{'' if value is None else _text(value)}</td>"


def _text(value: Any) -> str:
    return escape(show(str(value)))
