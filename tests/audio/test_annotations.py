"""Annotated recordings: tables beside them, what lies between the sounds, stretches of time."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from unfreeze.audio.annotations import (
    WINDOW,
    heard,
    read_sounds,
    recording_stem,
    settle_sounds,
    stretches,
    unlabelled,
)
from unfreeze.audio.entries import Entry
from unfreeze.audio.manifest import read_manifest
from unfreeze.audio.sources import Reading, find_source
from unfreeze.audio.split import clip_units, split_clips, split_notes
from unfreeze.detection.event_files import FORMATS, Source
from unfreeze.detection.events import Event
from unfreeze.errors import DataError

RATE = 16_000
RAVEN = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)"
    "\tSpecies\n"
)
SOUNDS = [(2.0 * n, 2.0 * n + 1.5, ("cat", "dog")[n % 2]) for n in range(6)]


def recording(path: Path, seconds: float = 12.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng([*path.name.encode()]).normal(0, 0.1, round(seconds * RATE))
    soundfile.write(path, noise.astype("float32"), RATE)
    return path


def raven(views=("Spectrogram 1",)) -> str:
    rows = [
        f"{n}\t{view}\t1\t{start}\t{end}\t100\t3000\t{label}\n"
        for n, (start, end, label) in enumerate(SOUNDS, start=1)
        for view in views
    ]
    return RAVEN + "".join(rows)


def audacity() -> str:
    return "".join(f"{start:.6f}\t{end:.6f}\t{label}\n" for start, end, label in SOUNDS)


def table(separator=",") -> str:
    rows = [f"{start},{end},{label}\n" for start, end, label in SOUNDS]
    return "start,end,label\n".replace(",", separator) + "".join(rows).replace(",", separator)


TABLES = {
    "site.Table.1.selections.txt": raven(),
    "site.selections.txt": raven(views=("Waveform 1", "Spectrogram 1")),
    "site.wav.selections.txt": raven(),
    "site_labels.txt": audacity(),
    "site.labels.txt": audacity(),
    "site.txt": audacity(),
    "site.csv": table(),
    "site.tsv": table("\t"),
    "site.annotations.csv": table(";"),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("given", ["table", "folder"])
def test_a_table_beside_a_recording(name: str, given: str, tmp_path: Path) -> None:
    wav = recording(tmp_path / "deep/site.wav")
    (tmp_path / "deep" / name).write_text(TABLES[name])
    found = find_source(tmp_path if given == "folder" else tmp_path / "deep" / name)
    assert [(e.start, e.end, e.label) for e in found.entries] == SOUNDS
    assert {e.path for e in found.entries} == {wav}
    bounds = {(100.0, 3000.0)} if "selections" in name else {(None, None)}
    assert {(e.low, e.high) for e in found.entries} == bounds


def test_names_of_tables() -> None:
    names = ("a.Table.1.selections.txt", "a.BirdNET.selection.table.txt", "a.b_labels.txt")
    assert [recording_stem(Path(name)) for name in names] == ["a", "a", "a.b"]


def test_audacitys_frequencies_are_in_lines_of_their_own(tmp_path: Path) -> None:
    recording(tmp_path / "site.wav")
    (tmp_path / "site.txt").write_text("0.5\t1.5\tcat\n\\\t100.0\t3000.5\n2\t3\tdog\n")
    entries, _ = read_sounds(tmp_path / "site.txt")
    assert [(e.low, e.high) for e in entries] == [(100.0, 3000.5), (None, None)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.5\t0.5\tcat\n", r"line 1: the label 'cat' marks a moment, 0\.5 s"),
        ("0.5\t1\tcat\n1\t2\n", "line 2: the label is empty"),
        ("0.5\t1\tcat\nx\t2\tdog\n", "line 2: the start 'x' is no time"),
        ("0.5\t1\tcat\n1 2 dog\n", "line 2: expected start, end and label, separated by tabs"),
    ],
)
def test_label_tracks_that_are_wrong(text: str, message: str, tmp_path: Path) -> None:
    recording(tmp_path / "site.wav")
    (tmp_path / "site.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_sounds(tmp_path / "site.txt")


def test_a_table_without_its_recording(tmp_path: Path) -> None:
    (tmp_path / "site.txt").write_text(audacity())
    with pytest.raises(DataError, match=r"no recording is named site beside it, such as site\.wav"):
        find_source(tmp_path / "site.txt")


def test_two_tables_and_recordings_without_one(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        recording(tmp_path / name)
    (tmp_path / "a.txt").write_text(audacity())
    (tmp_path / "notes.txt").write_text("it rained\n")
    found = find_source(tmp_path)
    assert {e.path.name for e in found.entries} == {"a.wav"}
    assert [(n.path.name, n.rule) for n in found.notes] == [("b.wav", "no_table")]
    (tmp_path / "a.csv").write_text(table())
    with pytest.raises(DataError, match=r"a\.wav has two tables, .*a\.csv and .*a\.txt"):
        find_source(tmp_path)


def test_class_folders_with_a_few_tables_are_asked_about(tmp_path: Path) -> None:
    for name in ("cat/a.wav", "cat/b.wav", "dog/c.wav"):
        recording(tmp_path / name)
    (tmp_path / "cat/a.txt").write_text(audacity())
    with pytest.raises(DataError, match="looks like a folder per class, but 1 of its 3 recordings"):
        find_source(tmp_path)
    # Sites with a table for each recording are no classes.
    for name in ("cat/b.txt", "dog/c.txt"):
        (tmp_path / name).write_text(audacity())
    assert len(find_source(tmp_path).entries) == 18


def test_our_own_events_come_back_to_the_millisecond(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    starts = np.sort(rng.uniform(0, 1700, 50))
    events = [
        Event(round(s, 3), round(s + d, 3), ("cat", "dog")[n % 2], 0.9)
        for n, (s, d) in enumerate(zip(starts, rng.uniform(0.5, 9, 50), strict=True))
    ]
    recording(tmp_path / "site.wav")
    source = Source("site.wav", 125.0, 7500.0)
    for kind, name in (("raven", "site.wav.selections.txt"), ("audacity", "site.wav.labels.txt")):
        (tmp_path / name).write_text(FORMATS[kind].head + FORMATS[kind].rows(source, events))
        entries, _ = read_sounds(tmp_path / name)
        assert [(e.start, e.end, e.label) for e in entries] == [
            (e.start, e.end, e.label) for e in events
        ]
    (tmp_path / "all.csv").write_text(FORMATS["csv"].head + FORMATS["csv"].rows(source, events))
    entries, _ = read_sounds(tmp_path / "all.csv")
    assert [(e.start, e.end) for e in entries] == [(e.start, e.end) for e in events]


def sound(start: float, end: float, label: str = "cat") -> Entry:
    return Entry(Path("/d/a.wav"), Path("a.wav"), label, start=start, end=end)


SPANS = st.lists(
    st.tuples(st.floats(0, 90), st.floats(0.05, 9)).map(lambda s: sound(s[0], s[0] + s[1])),
    min_size=1,
    max_size=20,
)


@settings(deadline=None)
@given(SPANS)
def test_what_is_unlabelled_and_the_sounds_are_the_recording(sounds: list[Entry]) -> None:
    free = unlabelled(sounds, 100.0, WINDOW)
    assert {e.label for e in free} <= {"background"}
    ticks = np.arange(0, 100, 0.01) + 0.005
    spans = [heard(s.start, s.end, WINDOW) for s in sounds]
    loud = np.any([(a <= ticks) & (ticks < b) for a, b in spans], axis=0)
    none = np.zeros(len(ticks), bool)
    quiet = np.any([none, *((e.start <= ticks) & (ticks < e.end) for e in free)], axis=0)
    assert not (loud & quiet).any()
    # What is left belongs to gaps that are too short for a window.
    left = np.flatnonzero(~loud & ~quiet)
    runs = np.split(left, np.flatnonzero(np.diff(left) > 1) + 1) if len(left) else []
    assert all(len(run) <= 100 * WINDOW + 1 for run in runs)


@settings(deadline=None)
@given(SPANS, st.integers(1, 10))
def test_windows_of_two_stretches_never_overlap(sounds: list[Entry], count: int) -> None:
    found = stretches(sounds, count, WINDOW)
    assert set(found) <= set(range(count))
    half = WINDOW / 2
    for a, mine in zip(sounds, found, strict=True):
        for b, other in zip(sounds, found, strict=True):
            if mine < other:
                last = max(a.end, (a.start + a.end) / 2 + half)
                first = min(b.start, (b.start + b.end) / 2 - half)
                # Sounds that touch, but for rounding, do not overlap.
                assert last <= first + 1e-6


def annotated(folder: Path, files: int = 1, each: int = 40) -> Path:
    for number in range(files):
        recording(folder / f"site{number}.wav", 4.0 * each)
        rows = [f"{4.0 * n + 1}\t{4.0 * n + 2.5}\t{('cat', 'dog')[n % 2]}\n" for n in range(each)]
        (folder / f"site{number}.txt").write_text("".join(rows))
    return folder


def test_one_recording_is_divided_by_time(tmp_path: Path) -> None:
    manifest = read_manifest(annotated(tmp_path))
    assert len(manifest.clips) == 40
    assert len({clip.group for clip in manifest.clips}) == 40
    split = split_clips(manifest, seed=0)
    assert all(len(part) for part in split.parts().values())
    spans = {
        name: [(manifest.clips[i].start, manifest.clips[i].end) for i in part]
        for name, part in split.parts().items()
    }
    apart = [
        abs(a[0] - b[0]) for a in spans["train"] for b in (*spans["test"], *spans["validation"])
    ]
    assert min(apart) >= 4.0
    (note,) = [note for note in split_notes(manifest, split) if "recording" in note]
    assert "The sounds are of 1 recording only, so its parts are stretches of time" in note


def test_many_recordings_are_the_groups(tmp_path: Path) -> None:
    manifest = read_manifest(annotated(tmp_path, files=6, each=6))
    groups = {clip.group for clip in manifest.clips}
    assert len(groups) == 6
    assert all(len({c.path for c in manifest.clips if c.group == g}) == 1 for g in groups)


def test_complete_annotations_give_background(tmp_path: Path) -> None:
    folder = annotated(tmp_path, files=2, each=10)
    partly, fully = (read_manifest(folder, how=Reading(full=full)) for full in (False, True))
    assert partly.labels == ("cat", "dog")
    assert fully.labels == ("background", "cat", "dog")
    quiet = [clip for clip in fully.clips if clip.label == "background"]
    # Before the first sound, 2.5 s between two, and after the last.
    assert sum(clip.seconds for clip in quiet) == pytest.approx(2 * (1 + 9 * 2.5 + 1.5))
    assert all(clip.group.startswith("site") for clip in quiet)


def test_sounds_behind_the_end(tmp_path: Path) -> None:
    recording(tmp_path / "a.wav", 10.0)
    rows = "1\t2\tcat\n3\t4\tdog\n5\t6\tcat\n7\t8\tdog\n9\t12\tcat\n15\t16\tdog\n"
    (tmp_path / "a.txt").write_text(rows)
    manifest = read_manifest(tmp_path, max_bad=0.5)
    assert [(c.start, c.end) for c in manifest.clips][-1] == (9.0, 10.0)
    assert [(p.rule, p.fatal) for p in manifest.problems] == [
        ("behind_end", False),
        ("behind_end", True),
    ]
    assert "the sound at 15 s lies behind its end, 10.00 s" in manifest.problems[1].cause


def test_short_sounds_leave_room_for_background_and_for_parts(tmp_path: Path) -> None:
    recording(tmp_path / "a.wav", 300.0)
    rows = [f"{5.0 * n + 1}\t{5.0 * n + 1.2}\t{('cat', 'dog')[n % 2]}\n" for n in range(58)]
    (tmp_path / "a.txt").write_text("".join(rows))
    manifest = read_manifest(tmp_path, how=Reading(full=True))
    assert len({clip.group for clip in manifest.clips}) == 40
    quiet = sorted(clip.start for clip in manifest.clips if clip.label == "background")
    # A window of 0.96 s around each sound is not background.
    assert quiet[0] == pytest.approx(1.1 + 0.48)
    assert quiet[1] == pytest.approx(6.1 + 0.48)


def test_a_recording_without_any_sound_is_background_where_annotations_are_complete(
    tmp_path: Path,
) -> None:
    for name in ("a.wav", "b.wav"):
        recording(tmp_path / name, 20.0)
    (tmp_path / "a.txt").write_text("1\t2\tcat\n5\t7\tdog\n")
    (tmp_path / "b.selections.txt").write_text(RAVEN)
    partly = read_manifest(tmp_path)
    assert [p.rule for p in partly.problems] == ["no_sounds"]
    fully = read_manifest(tmp_path, how=Reading(full=True))
    (whole,) = [clip for clip in fully.clips if clip.path.name == "b.wav"]
    assert (whole.label, whole.start, whole.end) == ("background", 0.0, 20.0)


def test_sounds_of_classes_that_are_dropped_are_no_background(tmp_path: Path) -> None:
    recording(tmp_path / "a.wav", 40.0)
    rows = [f"{4.0 * n}\t{4.0 * n + 2}\t{('cat', 'unsure')[n % 2]}\n" for n in range(10)]
    (tmp_path / "a.txt").write_text("".join(rows))
    (tmp_path / "names.yaml").write_text("unsure:\n")
    how = Reading(full=True, label_map=tmp_path / "names.yaml")
    manifest = read_manifest(tmp_path, how=how, least_classes=1)
    assert manifest.labels == ("background", "cat")
    unsure = [(4.0 * n, 4.0 * n + 2) for n in range(1, 10, 2)]
    for clip in manifest.clips:
        assert all(clip.end <= start or clip.start >= end for start, end in unsure)


def test_one_stretch_under_two_labels_is_neither(tmp_path: Path) -> None:
    recording(tmp_path / "a.wav", 20.0)
    rows = "0\t3\twren\n0\t3\trobin\n5\t8\twren\n9\t12\trobin\n"
    (tmp_path / "a.txt").write_text(rows)
    manifest = read_manifest(tmp_path, max_bad=0.6)
    assert [(c.start, c.label) for c in manifest.clips] == [(5.0, "wren"), (9.0, "robin")]
    assert [(p.rule, p.fatal) for p in manifest.problems] == [("duplicate_label", True)] * 2


@pytest.mark.parametrize(("apart", "units"), [(1, 1), (4, 45)])
def test_sounds_that_overlap_are_in_one_part_whatever_their_groups(apart, units, tmp_path: Path):
    recording(tmp_path / "a.wav", 200.0)
    rows = [f"a.wav,{n},{n + 1.5},{('cat', 'dog')[n // apart % 2]},{n}\n" for n in range(180)]
    table = "path,start,end,label,group\n" + "".join(rows[::apart])
    (tmp_path / "t.csv").write_text(table)
    assert len(clip_units(read_manifest(tmp_path / "t.csv").clips)) == units


def test_sounds_that_overlap_have_each_others_labels() -> None:
    spans = [("cat", 10, 12), ("dog", 10.5, 12.5), ("owl", 11.9, 20), ("cat", 30, 31)]
    spans += [("cow", 40, 42), ("dog", 40, 42), ("background", 50, 55)]
    made = [Entry(Path("/d/a.wav"), Path("a.wav"), x, start=a, end=b) for x, a, b in spans]
    found, problems = settle_sounds(made, {Path("/d/a.wav"): 60.0}, full=False, several=True)
    assert problems == []
    assert [(e.label, e.start, e.end) for e in found] == [
        ("cat;dog;owl?", 10, 12),
        ("cat;dog;owl?", 10.5, 12.5),
        ("owl;cat?;dog?", 11.9, 20),
        ("cat", 30, 31),
        ("cow;dog", 40, 42),
        ("", 50, 55),
    ]


def test_what_lies_between_the_sounds_has_no_label() -> None:
    made = [Entry(Path("/d/a.wav"), Path("a.wav"), "cat;dog", start=5.0, end=6.0)]
    found, _ = settle_sounds(made, {Path("/d/a.wav"): 20.0}, full=True, several=True)
    assert [(e.label, e.start, e.end) for e in found] == [
        ("", 0, 5),
        ("cat;dog", 5, 6),
        ("", 6, 20),
    ]


def test_times_in_milliseconds_are_asked_about() -> None:
    made = [Entry(Path("/d/a.wav"), Path("a.wav"), "cat", start=2500.0, end=3500.0)]
    _, (problem,) = settle_sounds(made, {Path("/d/a.wav"): 10.0}, full=False)
    assert "(are these milliseconds? Write seconds)" in problem.cause


def test_what_nobody_knows_stays_unknown_where_sounds_overlap() -> None:
    for spans in ([("cat", 1, 2), (";dog?", 1, 2)], [(";dog?", 1, 2), ("cat", 1, 2)]):
        made = [Entry(Path("/d/a.wav"), Path("a.wav"), x, start=a, end=b) for x, a, b in spans]
        found, _ = settle_sounds(made, {Path("/d/a.wav"): 9.0}, full=False, several=True)
        assert [e.label for e in found] == ["cat;dog?"]


def test_rows_that_speak_of_every_class_keep_their_word() -> None:
    spans = [("cat", 0, 3), ("", 1, 4), ("dog", 2, 5)]
    made = [
        Entry(Path("/d/a.wav"), Path("a.wav"), x, start=a, end=b, complete=True)
        for x, a, b in spans
    ]
    found, _ = settle_sounds(made, {Path("/d/a.wav"): 9.0}, full=False, several=True)
    assert [e.label for e in found] == ["cat", "", "dog"]


def test_a_network_that_hears_slower_hears_shorter_stretches() -> None:
    spans = [("pip", 1.0, 1.1), ("noc", 1.3, 1.35)]
    made = [Entry(Path("/d/a.wav"), Path("a.wav"), x, start=a, end=b) for x, a, b in spans]
    lengths = {Path("/d/a.wav"): 3.0}
    found, _ = settle_sounds(made, lengths, full=True, several=True, window=0.096)
    assert [(e.label, e.start, e.end) for e in found] == [
        ("", 0, 1), ("pip", 1, 1.1), ("", 1.1, pytest.approx(1.277)), ("noc", 1.3, 1.35),
        ("", pytest.approx(1.373), 3),
    ]  # fmt: skip
