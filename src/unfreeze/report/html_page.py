"""The frame of every page that is written as one file, and the pieces that pages are made of.

A page holds all it needs: style, script, pictures and sounds are in it, nothing is loaded
from elsewhere, and all of it can be read without the script. Its content policy allows the
one style and the one script by their hashes, and nothing else, so that no name of a class or
file could ever run. Everything that is given as text is escaped here.
"""

import base64
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from unfreeze.audio.rules import Problem
from unfreeze.core.html_tables import as_text
from unfreeze.errors import RunError, UnfreezeError, show
from unfreeze.report.clip_media import Media

#: Bytes of a page at most.
LIMIT = 5_000_000
#: Where the script shows the clips behind a cell.
DIALOG = (
    "<dialog id='behind' aria-labelledby='behind-title'><div class='bar-top'>"
    "<h2 id='behind-title'>Clips</h2><button type='button' data-close>Close</button></div>"
    "<div class='cards'></div><p class='more lead'></p></dialog>"
)
# Problems of one rule that are shown.
_PROBLEMS_SHOWN = 20
#: In the place of a number that is not known.
UNKNOWN = "–"


def document(title: str, body: str, *, script: bool = False) -> str:
    """A whole page.

    Args:
        title: of the window.
        body: HTML.
        script: whether the page has clips that cells open, or sounds.
    """
    style = _resource("report.css")
    code = _resource("report.js") if script else ""
    policy = (
        "default-src 'none'; img-src data:; media-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_digest(style)}'" + (f"; script-src '{_digest(code)}'" if code else "")
    )
    return _FRAME.format(
        title=as_text(title),
        policy=policy,
        style=style,
        body=body,
        script=f"<script>{code}</script>" if code else "",
    )


@contextmanager
def files_that_fit(folder: Path, cure: str) -> Iterator[None]:
    """Refuse a folder whose files cannot be what a report is made of.

    Args:
        folder: that is read.
        cure: what to do, for the message.

    Raises:
        RunError: a value is missing, or is not what it should be.
    """
    try:
        yield
    except UnfreezeError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise RunError(
            f"The report of {show(folder)} cannot be written, as its files do not fit each other "
            f"({type(error).__name__}: {show(str(error)[:200])}): {cure}"
        ) from error


def _resource(name: str) -> str:
    return (resources.files("unfreeze.report") / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of text; nothing for none."""
    # A number and its percent sign stay on one line.
    shown = as_text(text).replace(" %", "&nbsp;%")
    return f"<p{_kind(kind)}>{shown}</p>" if text else ""


def notes(texts: Iterable[str]) -> str:
    """Warnings, one under the other."""
    items = "".join(f"<li>{as_text(text)}</li>" for text in texts)
    return f"<ul class='notes' aria-label='Warnings'>{items}</ul>" if items else ""


class Part(NamedTuple):
    """A section of a page.

    Attributes:
        short: its name in the contents.
        html: empty where there is nothing to say.
    """

    short: str
    html: str


def section(short: str, title: str, *parts: str) -> Part:
    """A section with a heading that links can lead to; nothing where all parts are empty.

    Args:
        short: its name in the contents.
        title: the heading.
        *parts: HTML.
    """
    name, inside = _slug(short), "\n".join(filter(None, parts))
    if not inside:
        return Part(short, "")
    return Part(
        short,
        f"<section id='{name}' aria-labelledby='{name}-title'>"
        f"<h2 id='{name}-title'>{as_text(title)}</h2>\n{inside}\n</section>\n",
    )


def _slug(short: str) -> str:
    return short.lower().replace(" ", "-")


def contents(parts: Iterable[Part]) -> str:
    """Links to the sections that are there."""
    links = (f"<li><a href='#{_slug(n)}'>{as_text(n)}</a></li>" for n, html in parts if html)
    return f"<nav aria-label='Sections'><ul>{''.join(links)}</ul></nav>"


def details(summary: str, inside: str, name: str = "") -> str:
    """What is hidden until it is asked for; nothing where there is nothing."""
    place = f" id='{name}'" if name else ""
    return (
        f"<details{place}><summary>{as_text(summary)}</summary>{inside}</details>" if inside else ""
    )


def table(
    caption: str,
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    kind: str = "",
    plain: int = 1,
) -> str:
    """A table whose first column names the rows.

    Args:
        caption: what it shows; for those who do not see it.
        headers: of the columns, as text.
        rows: HTML of each cell, the name of the row first.
        kind: class of the table.
        plain: how many columns, from the first, hold words, not numbers.
    """
    head = "".join(
        f"<th scope='col'{_kind('text' if n < plain else '')}>{as_text(name)}</th>"
        # Bars need no name: they show what stands beside them.
        if name
        else "<td></td>"
        for n, name in enumerate(headers)
    )
    body = []
    for first, *rest in rows:
        cells = "".join(
            f"<td{_kind('text' if n < plain else '')}>{cell}</td>" for n, cell in enumerate(rest, 1)
        )
        body.append(f"<tr><th scope='row'>{first}</th>{cells}</tr>")
    if not body:
        return ""
    return scrolled(
        caption,
        f"<table{_kind(kind)}><caption class='hidden'>{as_text(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>",
    )


def scrolled(label: str, inside: str) -> str:
    """What may be wider than a phone, and then is scrolled by itself."""
    return (
        f"<div class='wide' role='group' tabindex='0' aria-label='{as_text(label)}'>{inside}</div>"
    )


def facts(pairs: Mapping[str, str], kind: str = "facts") -> str:
    """Names with what is to be said of them, as HTML; those without are left out.

    Args:
        pairs: HTML by name.
        kind: "facts" side by side, "terms" one under the other.
    """
    rows = "".join(
        f"<div><dt>{as_text(name)}</dt><dd>{value}</dd></div>"
        for name, value in pairs.items()
        if value
    )
    return f"<dl class='{kind}'>{rows}</dl>" if rows else ""


def clip_figure(
    title: str, facts_line: str, media: Media | None, why_not: str = "", more: str = ""
) -> str:
    """A clip: its spectrogram, its sound and what is to be said of it.

    Args:
        title: the recording's name.
        facts_line: what to say of it, short.
        media: to show and play; None where there is none.
        why_not: why there is none; "" leaves the place out.
        more: HTML below the facts.
    """
    at = ""
    if media is not None:
        name = as_text(title)
        seen = (
            f"<img src='{media.picture}' alt='Spectrogram of {name}'>"
            f"<audio controls preload='none' aria-label='Sound of {name}' src='{media.sound}'>"
            "</audio>"
        )
        at = f" · {media.seconds:.1f} s" + (f" from {media.start:.1f} s" if media.start else "")
    else:
        seen = f"<p class='missing'>{as_text(why_not)}</p>" if why_not else ""
    return (
        f"{seen}<figcaption><b>{as_text(title)}</b>"
        f"<span>{as_text(facts_line)}{at}</span>{more}</figcaption>"
    )


def percent(share: float | None, digits: int = 0) -> str:
    """A share, 0 to 1, in words; nearly all is not all, and hardly anything not nothing."""
    if share is None:
        return UNKNOWN
    text = f"{100 * share:.{digits}f}"
    least = 10.0**-digits
    if share < 1 and float(text) >= 100:
        text = f"{100 - least:.{digits}f}"
    if share > 0 and float(text) <= 0:
        text = f"{least:.{digits}f}"
    return f"{text} %"


def number(value: float | None, digits: int = 3) -> str:
    """A number with some digits, or a dash where there is none."""
    return UNKNOWN if value is None else f"{value:.{digits}f}"


def rate(value: float) -> str:
    """A number of things in an hour, with about two digits."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def bounds_text(bounds: Sequence[float] | None, digits: int = 2) -> str:
    """An interval, or a dash where there is none."""
    if bounds is None:
        return UNKNOWN
    return f"{bounds[0]:.{digits}f} to {bounds[1]:.{digits}f}"


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number of things.

    Examples:
        >>> counted(1, "clip"), counted(1200, "class", "classes")
        ('1 clip', '1,200 classes')
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def problem_list(problems: Iterable[Problem]) -> str:
    """What is wrong with files, by rule: first what is left out, then warnings."""
    rules: dict[tuple[bool, str], list[Problem]] = defaultdict(list)
    for problem in problems:
        rules[not problem.fatal, problem.rule].append(problem)
    parts = []
    for (warning, rule), own in sorted(rules.items()):
        items = [f"<li><b>{as_text(p.path)}</b>: {as_text(p.cause)}</li>" for p in own]
        more = len(items) - _PROBLEMS_SHOWN
        rest = f"<li>and {more:,} more</li>" if more > 0 else ""
        kind = "warning" if warning else "left out"
        inside = f"<ul>{''.join(items[:_PROBLEMS_SHOWN])}{rest}</ul>"
        parts.append(details(f"{rule} ({kind}, {len(own):,})", inside))
    return "".join(parts)


def _kind(kind: str) -> str:
    return f" class='{kind}'" if kind else ""


_FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
{body}
{script}
</body>
</html>
"""
