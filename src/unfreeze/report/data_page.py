"""A data set as a page: what is in it, and clips to look at and to listen to.

One HTML file that holds all it needs: pictures and sounds are in it, no script runs and nothing
is loaded from elsewhere. The odd clips come first, then some of each class. Pictures and sounds
are as the network hears them: mono, at its rate, slowed down where it is.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from unfreeze.audio.excerpts import Span
from unfreeze.audio.manifest import Clip, Manifest
from unfreeze.audio.rules import Problem
from unfreeze.audio.split import PARTS, Split
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.errors import show
from unfreeze.files import write_text
from unfreeze.pipeline.odd_clips import Doubt, OddClips
from unfreeze.report.clip_media import Media, cut_media, span_of
from unfreeze.report.html_page import (
    clip_figure,
    counted,
    document,
    notes,
    paragraph,
    problem_list,
    table,
)
from unfreeze.report.svg_charts import share_bar

#: Clips that are shown of each class, and of all classes together at most.
PER_CLASS, MOST_SHOWN = 6, 240
_SAME_BYTES = "duplicate_label"
# Clips of one set of copies that are shown.
_COPIES_SHOWN = 4


@dataclass(frozen=True)
class Card:
    """A clip on the page.

    Attributes:
        span: what to show of which recording.
        title: the recording's name.
        facts: class, part and the like, short.
        reason: why it is shown, or "".
    """

    span: Span
    title: str
    facts: str
    reason: str = ""


@dataclass(frozen=True)
class Section:
    """Cards under one heading; those of a set belong together.

    Attributes:
        title: the heading.
        lead: one or two sentences below it.
        sets: cards side by side.
    """

    title: str
    lead: str
    sets: tuple[tuple[Card, ...], ...]


def odd_sections(manifest: Manifest, split: Split, odd: OddClips, window: float) -> list[Section]:
    """The clips to look at first.

    Args:
        manifest: the clips, and the files that are left out.
        split: their parts.
        odd: what stands out.
        window: seconds that the model hears at once.
    """
    part = part_names(split)

    def card(number: int, reason: str = "") -> Card:
        return _card(manifest, number, part[number], window, reason)

    doubts = [card(doubt.clip, _doubt(doubt)) for doubt in odd.doubts]
    sets = [(_why_copies(manifest, part, one), one) for one in odd.copies]
    # First those that spoil a test or a class.
    sets.sort(key=lambda pair: not pair[0])
    sections = [
        Section(
            "The same recording in several classes",
            "These files have the same bytes and different labels, so all of them are left out.",
            tuple((one,) for one in _left_out(manifest)),
        ),
        Section(
            "Perhaps a wrong label",
            "A classifier that was trained on the other groups hears another class here.",
            tuple((one,) for one in doubts),
        ),
        Section(
            "Copies in different groups",
            "The same recording under several names. Keep one, or give them the same group: where "
            "one is trained on and another is tested, the test is worth nothing.",
            tuple(tuple(card(n, why) for n in one[:_COPIES_SHOWN]) for why, one in sets),
        ),
        Section(
            "Clipped",
            "Many samples are at full scale: the recording was too loud.",
            tuple((card(n, f"{manifest.clips[n].clipped:.1%} clipped"),) for n in odd.clipped),
        ),
        Section(
            "Least like the others",
            "Of all clips, these are least like the others of their class, or farthest from all. "
            "Nothing need be wrong with them.",
            tuple((card(number),) for number in odd.outliers),
        ),
    ]
    return [section for section in sections if section.sets]


def _why_copies(manifest: Manifest, part: Mapping[int, str], one: Sequence[int]) -> str:
    """What is wrong with a set of copies beside that they are some."""
    parts = sorted({part[number] for number in one})
    labels = sorted({_labels(manifest, manifest.clips[number]) for number in one})
    said = [f"in {' and '.join(parts)}"] if len(parts) > 1 else []
    said += [f"labelled {' and '.join(labels)}"] if len(labels) > 1 else []
    said += [f"{len(one)} copies in all"] if len(one) > _COPIES_SHOWN else []
    return "; ".join(said)


def _doubt(doubt: Doubt) -> str:
    if doubt.label is None:
        return f"not labelled {doubt.suggested}: heard with {doubt.suggested_score:.2f}"
    if doubt.suggested is None:
        return f"labelled {doubt.label}: heard with {doubt.score:.2f} only"
    return (
        f"labelled {doubt.label} ({doubt.score:.2f}); perhaps {doubt.suggested} "
        f"({doubt.suggested_score:.2f})"
    )


def class_sections(
    manifest: Manifest, split: Split, shown: Iterable[int], window: float, seed: int
) -> list[Section]:
    """Some clips of each class, drawn at random from those that are not shown yet.

    Args:
        manifest: the clips.
        split: their parts.
        shown: numbers of clips that are shown as odd.
        window: seconds that the model hears at once.
        seed: of the draw.
    """
    part, known = part_names(split), set(shown)
    by_class: dict[str, list[int]] = defaultdict(list)
    for number, clip in enumerate(manifest.clips):
        for label in manifest.classes_of(clip) or ("",):
            by_class[label].append(number)
    count = max(min(PER_CLASS, MOST_SHOWN // max(len(by_class), 1)), 1)
    rng = np.random.default_rng(seed)
    sections = []
    for label, numbers in sorted(by_class.items()):
        order = rng.permutation(numbers).tolist()
        order.sort(key=lambda number: number in known)
        cards = [_card(manifest, number, part[number], window) for number in order[:count]]
        noun = "clip" if len(numbers) == 1 else "clips"
        lead = f"{len(cards)} of {len(numbers):,} {noun}."
        title = label or "None of the classes"
        sections.append(Section(title, lead, tuple((card,) for card in cards)))
    return sections


def part_names(split: Split) -> dict[int, str]:
    """The part of each clip, by its number."""
    return {int(i): name for name, clips in split.parts().items() for i in clips}


def _card(manifest: Manifest, number: int, part: str, window: float, reason: str = "") -> Card:
    clip = manifest.clips[number]
    name = show(clip.path.relative_to(manifest.root))
    span = span_of(clip.path, clip.start, clip.end, window)
    return Card(span, name, f"{_labels(manifest, clip)} · {part}", reason)


def _labels(manifest: Manifest, clip: Clip) -> str:
    return ", ".join(manifest.classes_of(clip)) or "none of the classes"


def _left_out(manifest: Manifest) -> list[Card]:
    found = [p for p in manifest.problems if p.rule == _SAME_BYTES and p.fatal]
    return [
        Card(Span(manifest.root / p.path), show(p.path), "left out", p.cause)
        for p in found[:MOST_SHOWN]
    ]


def write_data_page(
    path: Path,
    name: str,
    report: Mapping[str, Any],
    problems: Sequence[Problem],
    sections: tuple[Sequence[Section], Sequence[Section]],
    front_end: FrontEnd,
    remarks: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the page, atomically.

    Args:
        path: the file.
        name: of the data.
        report: from `unfreeze inspect`: counts, classes, split and notes.
        problems: of the files.
        sections: the odd clips, and those of the classes.
        front_end: of the network that the sounds are for.
        remarks: what else to say about the odd clips.
        progress: called as progress(done, total) with counts of clips.

    Raises:
        RunError: it cannot be written.
    """
    cards = [card for part in sections for one in part for each in one.sets for card in each]
    media, _ = cut_media([card.span for card in cards], front_end, progress=progress)
    write_text(path, _page(name, report, problems, sections, media, remarks))


def _page(
    name: str,
    report: Mapping[str, Any],
    problems: Sequence[Problem],
    sections: tuple[Sequence[Section], Sequence[Section]],
    media: Mapping[Span, Media],
    remarks: Sequence[str],
) -> str:
    odd, classes = sections
    line = (
        f"{counted(report['clips'], 'clip')} in {counted(report['groups'], 'group')}, "
        f"{counted(len(report['classes']), 'class', 'classes')}, {report['hours']:.2f} hours"
    )
    first = "Look at these first" if odd else "Nothing odd was found"
    body = [
        f"<header>{paragraph('unfreeze inspect', 'over')}<h1>{escape(show(name))}</h1>",
        f"{paragraph(line, 'lead')}{notes([*report['notes'], *remarks])}</header><main id='main'>",
        _class_table(report),
        _problems(problems),
        f"<section><h2>{first}</h2>",
        *(_section(section, media) for section in odd),
        "</section><section><h2>Classes</h2>",
        *(_section(section, media) for section in classes),
        "</section></main><footer>Sounds and pictures are as the network hears them: mono, at its "
        "rate, the loudest 5 seconds of long clips, levels evened out. Made by <code>unfreeze "
        "inspect</code>.</footer>",
    ]
    return document(f"{name}: the clips", "\n".join(filter(None, body)))


def _class_table(report: Mapping[str, Any]) -> str:
    largest = max((row["clips"] for row in report["classes"].values()), default=1)
    rows = []
    for label, row in report["classes"].items():
        counts = (row["clips"], f"{row['seconds'] / 60:.1f}", *(row[part] for part in PARTS))
        bar = share_bar(row["clips"] / max(largest, 1))
        rows.append((escape(show(label)), *map(str, counts), bar))
    headers = ("class", "clips", "minutes", *PARTS, "")
    return table("Clips of each class", headers, rows, "bar")


def _problems(problems: Sequence[Problem]) -> str:
    found = problem_list(problems)
    return f"<section><h2>Problems</h2>{found}</section>" if found else ""


def _section(section: Section, media: Mapping[Span, Media]) -> str:
    sets = []
    for one in section.sets:
        cards = "".join(_figure(card, media.get(card.span)) for card in one)
        sets.append(f"<div class='set'>{cards}</div>" if len(one) > 1 else cards)
    return (
        f"<h3>{escape(show(section.title))}</h3>{paragraph(section.lead, 'lead')}"
        f"<div class='cards'>{''.join(sets)}</div>"
    )


def _figure(card: Card, media: Media | None) -> str:
    reason = paragraph(card.reason, "reason")
    inside = clip_figure(card.title, card.facts, media, "It cannot be read.", reason)
    return f"<figure>{inside}</figure>"
