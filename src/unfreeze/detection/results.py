"""Where the events of recordings are written: one file, or a folder with one for each.

Beside the results lies a journal (`unfreeze.detection.journal`), so that a
search that was broken off goes on, and a changed format needs no new search.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from unfreeze.audio.names import show
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.detection.formats import FORMATS, Format, Source
from unfreeze.detection.journal import Journal
from unfreeze.detection.recordings import Recording
from unfreeze.errors import DataError, RunError
from unfreeze.files import atomic_path, remove_partials, write_text

JOURNAL = "unfreeze-events.jsonl"


def source_of(file: Path, front_end: FrontEnd, sample_rate: int) -> Source:
    """Describe a recording for the formats."""
    high = min(front_end.high_hz, sample_rate / 2) if sample_rate else front_end.high_hz
    return Source(show(file), min(front_end.low_hz, high), high)


def is_folder(out: Path) -> bool:
    """Tell whether results go into a folder, a file for each recording.

    So it is for a folder that is there and for a name without an ending.
    """
    return out.is_dir() or (not out.exists() and not out.suffix)


def journal_of(out: Path) -> Path:
    """Name of the journal that belongs to results."""
    return out / JOURNAL if is_folder(out) else out.with_name(f"{out.name}.{JOURNAL}")


def result_names(out: Path, recordings: Sequence[Recording], form: str) -> dict[Path, Path]:
    """Name the file of results of each recording.

    Args:
        out: a folder, or a file.
        recordings: all of the search.
        form: name of the format.

    Returns:
        By recording; all the same file where `out` is no folder.

    Raises:
        DataError: two recordings would have the same file of results, or one
            file cannot hold several recordings.
    """
    if not is_folder(out):
        check_joins(form, recordings)
        return {recording.path: out for recording in recordings}
    places: dict[Path, Path] = {}
    taken: dict[Path, Path] = {}
    for recording in recordings:
        place = out / recording.name.with_name(recording.name.name + FORMATS[form].ending)
        if place in taken:
            raise DataError(
                f"{show(taken[place])} and {show(recording.path)} would both have their events "
                f"in {show(place)}: search them one after the other, with an --out for each"
            )
        taken[place] = recording.path
        places[recording.path] = place
    return places


def check_joins(form: str, recordings: Sequence[Recording]) -> None:
    """Refuse several recordings for a format that holds the events of one.

    Raises:
        DataError: they are several.
    """
    if len(recordings) > 1 and not FORMATS[form].joins:
        raise DataError(
            f"the {form} format holds the events of one recording and these are "
            f"{len(recordings)}: give a folder with --out"
        )


def write_result(
    place: Path, form: Format, file: Path, journal: Journal, front_end: FrontEnd
) -> None:
    """Write the file of results of one finished recording."""
    write_text(place, form.head + _rows(form, file, journal, front_end))


def write_joined(
    place: Path, form: Format, files: Sequence[Path], journal: Journal, front_end: FrontEnd
) -> None:
    """Write the events of all finished recordings into one file, in their order."""
    with atomic_path(place) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        file.write(form.head)
        for path in files:
            if path in journal:
                file.write(_rows(form, path, journal, front_end))


def sweep(places: Iterable[Path]) -> None:
    """Remove what a killed search left half-written of these files."""
    names: dict[Path, set[str]] = {}
    for place in places:
        names.setdefault(place.parent, set()).add(place.name)
    for folder, own in names.items():
        remove_partials(folder, own)


def check_out(out: Path) -> None:
    """Refuse an `--out` that holds something else.

    Raises:
        RunError: a file that is no result of ours would be replaced.
    """
    if out.is_file() and not journal_of(out).exists():
        raise RunError(f"{show(out)} exists and was not written by a search: give another --out")


def _rows(form: Format, file: Path, journal: Journal, front_end: FrontEnd) -> str:
    events, about = journal.events(file)
    return form.rows(source_of(file, front_end, about["sample_rate"]), events)
