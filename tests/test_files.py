import json
import os
import threading

import pytest

from unfreeze.files import (
    atomic_path,
    partial_folder,
    plain_path,
    remove_dead_folders,
    same_file,
    write_json,
    write_text,
)

DEAD = "0123456789abcdef"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "a.txt"
    write_text(file, "old")

    with pytest.raises(RuntimeError), atomic_path(file) as partial:
        partial.write_text("new")
        raise RuntimeError
    assert file.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["a.txt"]


def test_the_partial_file_keeps_the_suffix_and_is_hidden(tmp_path):
    with atomic_path(tmp_path / "deep" / "m.weights.h5") as partial:
        partial.write_bytes(b"x")
        assert partial.name.startswith(".partial-")
        assert partial.name.endswith(".weights.h5")
    assert (tmp_path / "deep" / "m.weights.h5").read_bytes() == b"x"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_files_get_the_mode_that_the_umask_allows(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_many_threads_write_one_file_and_a_reader_sees_whole_ones(tmp_path):
    file = tmp_path / "n.json"

    def write(number):
        for _ in range(20):
            write_json(file, [number] * 1000)

    write_json(file, [0] * 1000)
    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    seen = [json.loads(file.read_text()) for _ in range(200)]
    for thread in threads:
        thread.join()
    assert all(len(value) == 1000 and len(set(value)) == 1 for value in seen)


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", [float("nan")])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_removed_when_its_maker_is_gone_and_not_before(tmp_path):
    for name in (f".partial-{DEAD}", ".partial-unlocked"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows").touch()
    (tmp_path / f".lock-{DEAD}").touch()
    (tmp_path / f".lock-{DEAD[::-1]}").touch()
    # Of another program.
    (tmp_path / ".lock-mine").touch()
    with partial_folder(tmp_path) as folder:
        (folder / "rows").touch()
        remove_dead_folders(tmp_path)
        assert (folder / "rows").exists()
        assert {p.name for p in tmp_path.glob(".partial-*")} == {folder.name, ".partial-unlocked"}
        folder.rename(tmp_path / "whole")
    assert {p.name for p in tmp_path.iterdir()} == {"whole", ".partial-unlocked", ".lock-mine"}
    with pytest.raises(RuntimeError), partial_folder(tmp_path) as folder:
        raise RuntimeError
    assert not folder.exists()


def test_names_that_are_not_utf8_are_written_and_come_back(tmp_path):
    name = os.fsdecode(b"caf\xe9.wav")
    write_json(tmp_path / "a.json", {"file": name, "plain": "größe"})
    content = (tmp_path / "a.json").read_bytes()
    assert "größe" in content.decode("utf-8")
    assert json.loads(content) == {"file": name, "plain": "größe"}
    write_text(tmp_path / "a.txt", name, "surrogateescape")
    assert (tmp_path / "a.txt").read_bytes() == b"caf\xe9.wav"


def test_names_of_a_file(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert plain_path(tmp_path / "link" / "x") == tmp_path / "link" / "x"
    # The parent of what a link leads to.
    assert plain_path(tmp_path / "link" / ".." / "a" / "x") == (tmp_path / "a" / "x").resolve()
    assert same_file(tmp_path / "link" / "x", tmp_path / "a" / "x")
    assert not same_file(tmp_path / "a" / "x", tmp_path / "a")
    assert not same_file(tmp_path / "none", tmp_path / "none")
    assert not same_file(tmp_path / "a\0", tmp_path / "a")
