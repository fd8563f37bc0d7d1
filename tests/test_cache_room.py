import os
from pathlib import Path

import filelock
import pytest

from unfreeze import cache_room
from unfreeze.cache_room import LOCK, CacheRoom, make_room, remove_cache


def cache(home: Path, name: str, used: float, size: int = 100) -> Path:
    """A cache of `size` bytes, last used at a time."""
    (home / name).mkdir()
    (home / name / "part").write_bytes(b"x" * size)
    os.utime(home / name, (used, used))
    return home / name


def names(home: Path) -> set[str]:
    return {item.name for item in home.iterdir()}


def test_without_a_limit_half_of_the_free_disk_is_allowed(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("unfreeze.cache_room.shutil.disk_usage", lambda path: usage)
    assert CacheRoom(tmp_path / "not" / "there").allowed() == 500
    assert CacheRoom(tmp_path, limit=3).allowed() == 3


def test_the_caches_used_longest_ago_go_until_the_others_fit(tmp_path):
    caches = [cache(tmp_path, name, used) for name, used in (("b", 2), ("a", 1), ("c", 3))]
    make_room(caches, 300)
    assert names(tmp_path) == {"a", "b", "c"}
    make_room(caches, 299)
    assert names(tmp_path) == {"b", "c"}
    # One of them is gone by now.
    make_room(caches, 0)
    assert names(tmp_path) == set()


def test_what_is_kept_counts_and_stays(tmp_path):
    kept, other = cache(tmp_path, "kept", 1), cache(tmp_path, "other", 2)
    make_room([kept, other], 150, keep=kept)
    assert names(tmp_path) == {"kept"}


def test_only_the_given_folders_are_touched(tmp_path):
    mine = cache(tmp_path, "mine", 2)
    cache(tmp_path, "not mine", 1)
    make_room([mine], 0)
    assert names(tmp_path) == {"not mine"}


def test_one_that_another_process_builds_stays_and_the_next_goes(tmp_path):
    busy, idle = cache(tmp_path, "busy", 1), cache(tmp_path, "idle", 3)
    with filelock.FileLock(busy / LOCK):
        os.utime(busy, (1, 1))
        assert not remove_cache(busy)
        make_room([busy, idle], 150)
        assert names(tmp_path) == {"busy"}
        assert (busy / "part").is_file()
    assert remove_cache(busy)
    assert names(tmp_path) == set()


@pytest.mark.skipif(os.name == "nt", reason="Windows does not rename a folder in use")
def test_nobody_finds_a_half_removed_cache_and_a_reader_reads_on(tmp_path, monkeypatch):
    mine = cache(tmp_path, "mine", 1)
    seen = []
    remove = cache_room.shutil.rmtree

    def look(path, **options):
        seen.append(names(tmp_path))
        remove(path, **options)

    monkeypatch.setattr("unfreeze.cache_room.shutil.rmtree", look)
    with (mine / "part").open("rb") as reader:
        assert remove_cache(mine)
        assert len(reader.read()) == 100
    assert len(seen) == 1
    assert all(name.startswith(".partial-") for name in seen[0])
    assert names(tmp_path) == set()


def test_one_that_is_not_there_is_no_error(tmp_path):
    assert not remove_cache(tmp_path / "missing")
    make_room([tmp_path / "missing"], 0)
