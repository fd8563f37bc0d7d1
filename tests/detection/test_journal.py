import json
import os

import pytest

from faults import no_large_files
from unfreeze.detection.events import Event
from unfreeze.detection.journal import Journal, each_line, read_settings
from unfreeze.errors import RunError

SETTINGS = {"hop": 0.48, "scores": {"cat": 0.5}}
FOUND = [Event(0.1, 1.25, "Katze", 0.75), Event(2.0, 3.0, "dog", 1.0)]


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / name for name in ("a.wav", "b \udcff.wav", "c.wav")]
    for path in paths:
        path.write_bytes(b"sound")
    return paths


def open_journal(tmp_path, **changes):
    return Journal(tmp_path / "journal.jsonl", {**SETTINGS, **changes})


def test_what_is_finished_is_known_by_the_next_run(tmp_path, files):
    journal = open_journal(tmp_path)
    assert journal.unfinished(files) == files
    journal.add(files[0], FOUND, {"sample_rate": 8000})
    journal.add(files[1], [], {"sample_rate": 1})
    journal.close()
    again = open_journal(tmp_path)
    assert again.unfinished(files) == files[2:]
    assert again.events(files[0]) == (FOUND, {"sample_rate": 8000})
    again.add(files[2], FOUND[:1], {})
    assert again.events(files[2]) == (FOUND[:1], {})
    assert again.events(files[1]) == ([], {"sample_rate": 1})


def test_a_line_that_a_kill_cut_short_is_dropped_wherever_it_was_cut(tmp_path, files):
    journal = open_journal(tmp_path)
    journal.unfinished(files)
    journal.add(files[0], FOUND, {})
    whole = journal.path.stat().st_size
    journal.add(files[2], FOUND, {})
    journal.close()
    content = journal.path.read_bytes()
    for end in range(whole, len(content), 7):
        journal.path.write_bytes(content[:end])
        again = open_journal(tmp_path)
        assert again.unfinished(files) == files[1:]
        again.add(files[2], FOUND[1:], {})
        again.close()
        last = open_journal(tmp_path)
        assert last.unfinished(files) == [files[1]]
        assert last.events(files[2]) == (FOUND[1:], {})
        last.close()


def test_a_last_line_with_zeros_in_it_is_dropped_and_damage_before_it_is_told(tmp_path, files):
    journal = open_journal(tmp_path)
    journal.unfinished(files)
    journal.add(files[0], FOUND, {})
    middle = journal.path.stat().st_size
    journal.add(files[1], FOUND, {})
    journal.close()
    content = journal.path.read_bytes()
    for end in (bytes(len(content) - middle), bytes(30) + content[middle + 30 :], b"[1]\n"):
        journal.path.write_bytes(content[:middle] + end)
        again = open_journal(tmp_path)
        assert again.unfinished(files) == files[1:]
        again.close()
        assert journal.path.read_bytes() == content[:middle]
    journal.path.write_bytes(content[: middle - 9] + bytes(8) + content[middle - 1 :])
    with pytest.raises(RunError, match=r"damaged at byte \d+: begin again with --overwrite"):
        open_journal(tmp_path)


def test_a_recording_that_changed_is_searched_again(tmp_path, files):
    journal = open_journal(tmp_path)
    journal.unfinished(files)
    files[0].write_bytes(b"more sound, written while it was searched")
    journal.add(files[0], FOUND, {})
    assert journal.unfinished(files) == files
    journal.add(files[0], [], {})
    assert journal.unfinished(files) == files[1:]
    os.utime(files[0], ns=(1, 1))
    assert files[0] in journal.unfinished(files)
    files[2].unlink()
    assert files[2] in journal.unfinished(files)


def test_other_settings_are_refused_with_the_difference(tmp_path, files):
    open_journal(tmp_path).close()
    with pytest.raises(RunError, match=r"hop was 0\.48 and is 0\.24"):
        open_journal(tmp_path, hop=0.24)
    journal = Journal(tmp_path / "journal.jsonl", {"hop": 0.24}, overwrite=True)
    assert journal.unfinished(files) == files


@pytest.mark.parametrize(
    "text", ["", "thesis", "[1]\n", '{"unfreeze_events": 2, "settings": {}}\n']
)
def test_what_is_no_journal_is_left_alone(tmp_path, text):
    (tmp_path / "journal.jsonl").write_text(text)
    with pytest.raises(RunError, match="is not a journal"):
        open_journal(tmp_path)
    assert (tmp_path / "journal.jsonl").read_text() == text


def test_the_first_line_says_what_it_is(tmp_path):
    open_journal(tmp_path).close()
    head = json.loads((tmp_path / "journal.jsonl").read_text())
    assert head == {"unfreeze_events": 1, "settings": SETTINGS}


def test_several_are_finished_with_one_write_and_a_full_disk_leaves_whole_lines(tmp_path, files):
    journal = open_journal(tmp_path)
    journal.unfinished(files)
    journal.add_together([(files[0], FOUND, {"n": 1}), (files[1], (), {"n": 2})])
    assert journal.events(files[0]) == (FOUND, {"n": 1})
    assert journal.events(files[1]) == ([], {"n": 2})
    size = journal.path.stat().st_size
    with no_large_files(size + 40), pytest.raises(OSError, match="File too large"):
        journal.add(files[2], FOUND, {})
    assert journal.path.stat().st_size == size
    journal.add(files[2], FOUND, {})
    journal.close()
    assert open_journal(tmp_path).unfinished(files) == []
    lines = [line.row for line in each_line(journal.path)]
    assert [None if row is None else row["about"] for row in lines] == [
        None,
        {"n": 1},
        {"n": 2},
        {},
    ]
    assert read_settings(journal.path) == SETTINGS
