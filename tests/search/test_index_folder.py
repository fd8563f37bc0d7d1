"""An index on disk: rows by number, checks, old rows, faults."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from faults import cut, flip, no_large_files
from made_index import write_index
from unfreeze.errors import DataError, RunError
from unfreeze.search.index_folder import (
    JOURNAL,
    SCORES,
    VECTORS,
    Finished,
    IndexWriter,
    Settings,
    held_index,
    open_index,
)

SETTINGS = Settings(1, "abc", "run", 4, ("cat", "dog"), False, 0.5, 1.0, 100.0, 8000.0)


def finished(path, rows, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(rows, 4)).astype(np.float16)
    return Finished(path, vectors, rng.random((rows, 2)).astype(np.float16), rows * 0.5, 16_000)


def write(folder, *groups, settings=SETTINGS):
    folder.mkdir(exist_ok=True)
    writer = IndexWriter(folder, settings)
    for group in groups:
        writer.unfinished([item.recording for item in group])
        writer.add(group)
    writer.close()


@pytest.fixture
def made(tmp_path):
    """Five recordings, the third anew, one of them without a window, one of three blocks."""
    items = []
    for number, rows in enumerate((3, 1200, 5, 0, 7)):
        path = tmp_path / f"{number}.wav"
        path.write_bytes(b"sound")
        items.append(finished(path, rows, number))
    write(tmp_path / "index", items[:2], items[2:4], items[4:])
    items[2].recording.write_bytes(b"longer sound")
    items[2] = finished(items[2].recording, 600, 9)
    write(tmp_path / "index", items[2:3])
    order = [items[n] for n in (0, 1, 3, 4, 2)]
    return open_index(tmp_path / "index"), order


def test_rows_are_those_that_were_added_without_the_old_ones(made):
    index, items = made
    vectors = np.concatenate([item.vectors for item in items])
    scores = np.concatenate([item.scores for item in items])
    assert index.rows == len(vectors) == 1810
    assert index.labels == ("cat", "dog")
    np.testing.assert_array_equal(index.vectors(0, index.rows), vectors)
    rng = np.random.default_rng(0)
    for start, stop in rng.integers(0, index.rows + 3, size=(40, 2)):
        np.testing.assert_array_equal(index.vectors(start, stop), vectors[start:stop])
        np.testing.assert_array_equal(index.scores(start, stop), scores[start:stop])


def test_a_place_is_within_its_recording(made):
    index, items = made
    assert [(r.path, r.rows) for r in index.recordings if r.rows] == [
        (item.recording, len(item.vectors)) for item in items if len(item.vectors)
    ]
    first = index.place(3)
    assert (first.recording, first.start, first.end) == (items[1].recording, 0.0, 1.0)
    last = index.place(1202)
    assert (last.start, last.end) == (599.5, 600.0)
    with pytest.raises(IndexError):
        index.place(index.rows)


def test_places_in_the_files_are_of_new_rows_only(made):
    index, _ = made
    rows = np.arange(index.rows)
    places = index.in_file(rows)
    np.testing.assert_array_equal(index.from_file(places), rows)
    old = np.setdiff1d(np.arange(places.max() + 1), places)
    assert len(old) == 5
    assert set(index.from_file(old)) == {-1}


@pytest.mark.parametrize("name", [VECTORS, SCORES])
@pytest.mark.parametrize("place", [0, 3000, -1])
def test_a_flipped_bit_is_found_when_it_is_read(made, name, place):
    index, _ = made
    flip(index.folder / name, place)
    damaged = open_index(index.folder)
    with pytest.raises(DataError, match=rf"{name} is damaged.*embed --overwrite"):
        damaged.vectors(0, index.rows), damaged.scores(0, index.rows)


def test_a_file_that_is_cut_or_gone_is_found_when_the_index_is_opened(made):
    index, _ = made
    cut(index.folder / VECTORS)
    with pytest.raises(DataError, match=r"vectors\.f16 ends too early: make the index again"):
        open_index(index.folder)
    with pytest.raises(DataError, match=r"ends too early"):
        IndexWriter(index.folder, SETTINGS)
    (index.folder / VECTORS).unlink()
    with pytest.raises(DataError, match=r"vectors\.f16 is missing"):
        open_index(index.folder)


def test_what_is_not_an_index_is_refused(tmp_path, made):
    with pytest.raises(DataError, match=r"does not exist; make one with `unfreeze embed"):
        open_index(tmp_path / "nothing")
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match=r"has no recordings\.jsonl: it is not an index"):
        open_index(tmp_path / "other")
    index, _ = made
    journal = index.folder / JOURNAL
    lines = journal.read_text().splitlines(keepends=True)
    for change, said in (
        (('"format": 1', '"format": 7'), "has format 7; this version of unfreeze reads 1"),
        (('"format": 1', '"format": 7, "zoom": 3'), "has format 7"),
        (('"numbers"', '"number"'), "cannot be read as an index"),
        (('"numbers": 4', '"numbers": "x"'), "is damaged"),
        (('"hop": 0.5', '"hop": 0'), "is damaged"),
        (('"hop": 0.5', '"hop": NaN'), "is damaged"),
        (('"labels": ["', '"labels": [5, "'), "is damaged"),
        (('"unfreeze_events": 1', '"something": 1'), "is not a journal"),
    ):
        journal.write_text("".join([lines[0].replace(*change), *lines[1:]]))
        with pytest.raises(DataError, match=said):
            open_index(index.folder)
    row = json.loads(lines[1])
    for key, value in (
        *(("first", 1), ("rows", -3), ("vectors", []), ("seconds", "long")),
        *(("rows", 10**17), ("rows", 10**30), ("scores", []), ("vectors", [1, 2, 3])),
        *(("seconds", float("nan")), ("seconds", -1.0), ("sample_rate", -8000)),
    ):
        changed = {**row, "about": {**row["about"], key: value}}
        journal.write_text("".join([lines[0], json.dumps(changed) + "\n", *lines[2:]]))
        with pytest.raises(DataError, match="is damaged"):
            open_index(index.folder)
    # The first of all windows: no other recording would overlap it.
    journal.write_text(
        lines[0] + json.dumps({**row, "about": {**row["about"], "first": -5}}) + "\n"
    )
    with pytest.raises(DataError, match="is damaged"):
        open_index(index.folder)


def test_what_was_added_before_a_kill_told_of_it_is_cut_off(made):
    index, items = made
    for name in (VECTORS, SCORES):
        with (index.folder / name).open("ab") as file:
            file.write(b"half a row")
    with (index.folder / JOURNAL).open("ab") as file:
        file.write(b'{"path": "half a li')
    assert open_index(index.folder).rows == index.rows
    more = finished(items[0].recording.with_name("more.wav"), 2, 4)
    more.recording.write_bytes(b"sound")
    write(index.folder, [more])
    again = open_index(index.folder)
    np.testing.assert_array_equal(again.vectors(0, index.rows), index.vectors(0, index.rows))
    np.testing.assert_array_equal(again.vectors(index.rows, again.rows), more.vectors)
    np.testing.assert_array_equal(again.scores(index.rows, again.rows), more.scores)


def test_a_full_disk_keeps_what_is_finished(tmp_path, made):
    index, items = made
    more = finished(items[0].recording.with_name("more.wav"), 900, 4)
    more.recording.write_bytes(b"sound")
    writer = IndexWriter(index.folder, SETTINGS)
    writer.unfinished([more.recording])
    for most in ((index.folder / VECTORS).stat().st_size + 100, 15_800):
        with no_large_files(most), pytest.raises(RunError, match="free some space and repeat"):
            writer.add([more])
    writer.close()
    assert open_index(index.folder).rows == index.rows
    write(index.folder, [more])
    np.testing.assert_array_equal(open_index(index.folder).vectors(1810, 2710), more.vectors)


def test_other_settings_and_a_second_process_are_refused(made):
    index, _ = made
    with pytest.raises(RunError, match=r"hop was 0\.5 and is 0\.25"):
        IndexWriter(index.folder, replace(SETTINGS, hop=0.25))
    with (
        held_index(index.folder, False),
        pytest.raises(RunError, match="Another process is writing"),
        held_index(index.folder, False),
    ):
        pass


def test_a_recording_that_is_gone_or_has_changed_is_told(made):
    index, items = made
    assert [item.change() for item in index.recordings] == [None] * 5
    items[0].recording.unlink()
    items[1].recording.write_bytes(b"other")
    items[1].recording.write_bytes(b"other sound")
    assert index.recordings[0].change() == "is no longer there"
    assert index.recordings[1].change() == "has changed since"


def test_a_recording_is_known_by_each_of_its_names(tmp_path):
    index = write_index(tmp_path / "index", [np.ones((2, 4)), np.ones((1, 4))])
    first, second = index.recordings
    home = first.path.parent
    (tmp_path / "link").symlink_to(home)
    (tmp_path / "hard.wav").hardlink_to(second.path)
    for name in (
        first.path,
        tmp_path / "x" / ".." / home.name / "r0.wav",
        tmp_path / "link/r0.wav",
    ):
        assert index.recording(name) is first
    assert index.recording(tmp_path / "hard.wav") is second
    # A copy is another recording, and so is what has changed.
    copy = shutil.copy2(first.path, tmp_path / "copy.wav")
    assert index.recording(copy) is index.recording(tmp_path / "nothing.wav") is None
    (tmp_path / "hard.wav").write_bytes(b"another sound")
    assert index.recording(tmp_path / "hard.wav") is None
    first.path.unlink()
    assert index.recording(first.path) is first


def test_a_folder_with_other_things_is_refused_and_one_barely_begun_is_not(tmp_path):
    (tmp_path / "encoder.keras").write_bytes(b"")
    (tmp_path / VECTORS).write_bytes(b"")
    with held_index(tmp_path, False) as begun:
        assert not begun
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(RunError, match="holds no unfreeze index"), held_index(tmp_path, False):
        pass
