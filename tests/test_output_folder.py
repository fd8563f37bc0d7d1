"""Folders for results: may I write here, is it the same work, is another process at it."""

import re
import subprocess
import sys

import pytest

from unfreeze.errors import RunError
from unfreeze.output_folder import differences, holds, lock_held, locked


@pytest.mark.parametrize("left", [(), (".lock",), (".partial-ab-x", ".lock-cd"), (".DS_Store",)])
def test_a_folder_with_nothing_of_anybodys_is_free(left, tmp_path):
    for name in left:
        (tmp_path / name).touch()
    assert not holds(tmp_path, "config.yaml", "unfreeze run")
    assert not holds(tmp_path, None, "clips")
    assert not holds(tmp_path / "new", "config.yaml", "unfreeze run")


def test_earlier_work_is_known_by_its_marker_and_anything_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(RunError, match="holds no unfreeze run: give another folder"):
        holds(tmp_path, "config.yaml", "unfreeze run")
    with pytest.raises(RunError, match="is not empty: give a folder that does not exist"):
        holds(tmp_path, None, "clips")
    with pytest.raises(RunError, match="is a file"):
        holds(tmp_path / "thesis.txt", "config.yaml", "unfreeze run")
    (tmp_path / "config.yaml").touch()
    assert holds(tmp_path, "config.yaml", "unfreeze run")


def test_each_difference_is_described_once():
    before = {"seed": 0, "data": {"clips": 3, "root": "/a"}, "more": 1}
    now = {"seed": 4, "data": {"clips": 3, "root": "/b"}, "new": None}
    assert differences(before, now, ["data.root"]) == ["seed was 0 and is 4"]
    assert differences(before, now) == ["seed was 0 and is 4", "data.root was '/a' and is '/b'"]
    assert differences(before, before) == []
    assert differences({}, {"test": 0.2}) == ["test was None and is 0.2"]


def test_a_held_folder_is_refused_to_another_process_and_free_afterwards(tmp_path):
    folder = tmp_path / "run"
    code = (
        "import sys; from pathlib import Path; from unfreeze.output_folder import locked\n"
        "with locked(Path(sys.argv[1])): pass"
    )
    command = [sys.executable, "-c", code, str(folder)]
    with locked(folder):
        (folder / "result").touch()
        other = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "Another process is writing to" in other.stderr
        assert other.returncode == 1
    assert [item.name for item in folder.iterdir()] == ["result"]
    assert subprocess.run(command, check=False).returncode == 0


def test_a_folder_made_for_nothing_is_removed(tmp_path):
    with pytest.raises(ValueError, match="refused"), locked(tmp_path / "run"):
        raise ValueError("refused")
    assert not (tmp_path / "run").exists()


def test_where_nothing_can_be_written_the_cause_is_named(tmp_path):
    (tmp_path / "file").touch()
    below = tmp_path / "file" / "run"
    for hold in (locked(below), lock_held(below / ".lock", below)):
        with pytest.raises(RunError, match=re.escape(str(below)) + " cannot be written"), hold:
            pass
