"""A data set as a page: what is in it, and clips to look at and to listen to.

One HTML file that holds all it needs: pictures and sounds are in it, no script runs and nothing
is loaded from elsewhere. The odd clips come first, then some of each class. Pictures and sounds
are as the network hears them: mono, at its rate, slowed down where it is.
"""

import base64
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import soundfile
from PIL import Image

from unfreeze.audio.annotations import heard
from unfreeze.audio.decode_processes import Decoders
from unfreeze.audio.excerpts import Excerpt, Span, cut_excerpts
from unfreeze.audio.logmel import log_mel_frames
from unfreeze.audio.manifest import Clip, Manifest
from unfreeze.audio.rules import Problem
from unfreeze.audio.split import Split
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.errors import show
from unfreeze.files import atomic_path
from unfreeze.pipeline.odd_clips import Doubt, OddClips

#: Clips that are shown of each class, and of all classes together at most.
PER_CLASS, MOST_SHOWN = 6, 240
_SAME_BYTES = "duplicate_label"
# Clips of one set of copies, and problems of one rule, that are shown.
_COPIES_SHOWN, _PROBLEMS_SHOWN = 4, 20
_PARTS = ("train", "validation", "test")
# Levels of a picture: 32 are enough for the eye and halve its size.
_LEVELS = 32
# Height of a picture in pixels for each band.
_ZOOM = 2
# Peak of a sound in the page: quiet clips must be audible beside loud ones.
_PEAK = 0.9


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
    return Card(span_of(clip, window), name, f"{_labels(manifest, clip)} · {part}", reason)


def _labels(manifest: Manifest, clip: Clip) -> str:
    return ", ".join(manifest.classes_of(clip)) or "none of the classes"


def span_of(clip: Clip, window: float) -> Span:
    """What a model hears of a clip: of a short sound, what surrounds it, too."""
    if clip.start is None or clip.end is None:
        return Span(clip.path)
    start, end = heard(clip.start, clip.end, window)
    return Span(clip.path, max(start, 0.0), end)


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
    notes: Sequence[str] = (),
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
        notes: what else to say about the odd clips.
        progress: called as progress(done, total) with counts of clips.

    Raises:
        RunError: it cannot be written.
    """
    cards = [card for part in sections for one in part for each in one.sets for card in each]
    spans = list(dict.fromkeys(card.span for card in cards))
    media: dict[Span, _Media] = {}
    with Decoders() as decoders:
        for number, excerpt in cut_excerpts(spans, front_end, decoders):
            media[spans[number]] = _media(excerpt, front_end)
            if progress is not None:
                progress(len(media), len(spans))
    page = _page(name, report, problems, sections, media, notes)
    with atomic_path(path) as partial:
        Path(partial).write_text(page, encoding="utf-8")


@dataclass(frozen=True)
class _Media:
    picture: str
    sound: str
    seconds: float
    start: float


def _media(excerpt: Excerpt, front_end: FrontEnd) -> _Media:
    seconds = len(excerpt.waveform) / front_end.sample_rate
    return _Media(
        _data_url("image/png", spectrogram(excerpt.waveform, front_end)),
        _data_url(*_sound(excerpt.waveform, front_end)),
        seconds,
        excerpt.start,
    )


def spectrogram(waveform: np.ndarray, front_end: FrontEnd) -> bytes:
    """The log-mel frames that the network hears, as a PNG: low bands at the bottom.

    Args:
        waveform: (samples,) mono, at the front end's rate.
        front_end: the settings.
    """
    front_end = front_end.picture
    frames = log_mel_frames(waveform, front_end)
    frames = frames[: max(-(-len(waveform) // front_end.hop), 1)]
    low, high = np.percentile(frames, 2), frames.max()
    levels = np.clip((frames - low) / max(high - low, 1e-6), 0, 1) * (_LEVELS - 1)
    picture = Image.fromarray(np.repeat(levels.T[::-1].round().astype(np.uint8), _ZOOM, axis=0))
    colours = matplotlib.colormaps["magma"](np.linspace(0, 1, _LEVELS))[:, :3]
    picture.putpalette((255 * colours).astype(np.uint8).tobytes())
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def _sound(waveform: np.ndarray, front_end: FrontEnd) -> tuple[str, bytes]:
    peak = float(np.abs(waveform).max())
    samples = waveform * (_PEAK / peak) if peak > 0 else waveform
    form = "MP3" if "MP3" in soundfile.available_formats() else "FLAC"
    file = io.BytesIO()
    rate = round(front_end.sample_rate / front_end.slow_down)
    soundfile.write(file, samples, rate, format=form)
    return ("audio/mpeg" if form == "MP3" else "audio/flac"), file.getvalue()


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _page(
    name: str,
    report: Mapping[str, Any],
    problems: Sequence[Problem],
    sections: tuple[Sequence[Section], Sequence[Section]],
    media: Mapping[Span, _Media],
    notes: Sequence[str],
) -> str:
    odd, classes = sections
    title = escape(name)
    facts = (
        f"{report['clips']:,} clips in {report['groups']:,} groups, {len(report['classes']):,} "
        f"classes, {report['hours']:.2f} hours"
    )
    said = [*report["notes"], *notes]
    body = [
        f"<h1>{title}</h1><p class='lead'>{escape(facts)}</p>",
        "".join(f"<p class='note'>{escape(note)}</p>" for note in said),
        _class_table(report),
        _problem_list(problems),
        "<h2>Look at these first</h2>" if odd else "<h2>Nothing odd was found</h2>",
        *(_section(section, media) for section in odd),
        "<h2>Classes</h2>",
        *(_section(section, media) for section in classes),
        "<footer>Sounds and pictures are as the network hears them: mono, at its rate, the "
        "loudest 5 seconds of long clips, levels evened out. Made by <code>unfreeze "
        "inspect</code>.</footer>",
    ]
    return _FRAME.format(title=title, style=_style(), body="\n".join(filter(None, body)))


def _style() -> str:
    return (resources.files("unfreeze.report") / "data_page.css").read_text(encoding="utf-8")


def _class_table(report: Mapping[str, Any]) -> str:
    largest = max((row["clips"] for row in report["classes"].values()), default=1)
    rows = []
    for label, row in report["classes"].items():
        cells = (row["clips"], f"{row['seconds'] / 60:.1f}", *(row[part] for part in _PARTS))
        numbers = "".join(f"<td>{cell}</td>" for cell in cells)
        width = 100 * row["clips"] / max(largest, 1)
        bar = f"<td class='bar'><span style='width:{width:.1f}%'></span></td>"
        rows.append(f"<tr><th scope='row'>{escape(label)}</th>{numbers}{bar}</tr>")
    head = "".join(f"<th scope='col'>{name}</th>" for name in ("clips", "minutes", *_PARTS))
    return (
        f"<table><thead><tr><th scope='col'>class</th>{head}<th></th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _problem_list(problems: Sequence[Problem]) -> str:
    rules: dict[tuple[bool, str], list[Problem]] = defaultdict(list)
    for problem in problems:
        rules[not problem.fatal, problem.rule].append(problem)
    parts = []
    for (warning, rule), own in sorted(rules.items()):
        items = [f"<li><b>{escape(show(p.path))}</b>: {escape(p.cause)}</li>" for p in own]
        more = len(items) - _PROBLEMS_SHOWN
        rest = f"<li>and {more:,} more</li>" if more > 0 else ""
        kind = "warning" if warning else "left out"
        parts.append(
            f"<details><summary>{escape(rule)} ({kind}, {len(own):,})</summary>"
            f"<ul>{''.join(items[:_PROBLEMS_SHOWN])}{rest}</ul></details>"
        )
    return f"<h2>Problems</h2>{''.join(parts)}" if parts else ""


def _section(section: Section, media: Mapping[Span, _Media]) -> str:
    sets = []
    for one in section.sets:
        cards = "".join(_figure(card, media.get(card.span)) for card in one)
        sets.append(f"<div class='set'>{cards}</div>" if len(one) > 1 else cards)
    return (
        f"<section><h3>{escape(section.title)}</h3><p>{escape(section.lead)}</p>"
        f"<div class='cards'>{''.join(sets)}</div></section>"
    )


def _figure(card: Card, media: _Media | None) -> str:
    reason = f"<p class='reason'>{escape(card.reason)}</p>" if card.reason else ""
    if media is None:
        seen = "<p class='missing'>It cannot be read.</p>"
        at = ""
    else:
        seen = (
            f"<img src='{media.picture}' alt='Spectrogram of "
            f"{escape(card.title, quote=True)}'>"
            f"<audio controls preload='none' src='{media.sound}'></audio>"
        )
        at = f" · {media.seconds:.1f} s" + (f" from {media.start:.1f} s" if media.start else "")
    return (
        f"<figure>{seen}<figcaption><b>{escape(card.title)}</b>"
        f"<span>{escape(card.facts)}{at}</span>{reason}</figcaption></figure>"
    )


_FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'">
<title>{title}: the clips</title>
<style>{style}</style>
</head>
<body><main>
{body}
</main></body>
</html>
"""
