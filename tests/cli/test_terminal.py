"""Errors of the system: one message with the cure, exit code 2."""

import errno
import sys

import pytest

from unfreeze import cli
from unfreeze.cli.app import app
from unfreeze.cli.terminal import explain
from unfreeze.errors import UnfreezeError


class ResourceExhaustedError(Exception):
    """As TensorFlow calls it."""


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/a/b"),
            "/a/b: No space .*free disk space",
        ),
        (OSError(errno.EROFS, "Read-only file system"), "^Read-only .*that you can write to"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "x: .*change the permissions"),
        (OSError(errno.EIO, "Input/output error", "x"), "has failed"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "not enough memory .*smaller batches"),
        (MemoryError(), r"not enough memory \(MemoryError\)"),
        (ResourceExhaustedError("OOM when allocating\nmore"), r"\(OOM when allocating\): close"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "not enough memory"),
    ],
)
def test_they_are_told_with_the_cure(error, told, monkeypatch, capsys):
    def fail(words):
        raise error

    monkeypatch.setattr("unfreeze.cli.app.app_for", fail)
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    with pytest.raises(UnfreezeError, match=told):
        raise UnfreezeError(text.removeprefix("error: "))


@pytest.mark.parametrize("error", [RuntimeError("a defect"), OSError("no number"), KeyError("x")])
def test_a_defect_keeps_its_traceback(error, monkeypatch):
    def fail(words):
        raise error

    assert explain(error) is None
    monkeypatch.setattr("unfreeze.cli.app.app_for", fail)
    with pytest.raises(type(error)):
        cli.main()


def test_a_real_command_in_a_folder_that_is_a_file(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    target = tmp_path / "file" / "plan.yaml"
    monkeypatch.setattr(sys, "argv", ["unfreeze", "plan", "yamnet", "--write", str(target)])
    assert app is not None
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    told = capsys.readouterr().err
    assert "file" in told
    assert "choose another folder" in told
