"""Errors of the system: one message with the cure, exit code 2."""

import errno
import io
import sys

import pytest
from rich.console import Console

from unfreeze import cli
from unfreeze.cli.app import app
from unfreeze.cli.terminal import explain, say
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


_SENTENCE = "Of the layer groups, each read alone, the seventh tells as much as any [block7] :cat:."


def _said(text, in_terminal, width=40):
    file = io.StringIO()
    say(Console(file=file, width=width, force_terminal=in_terminal, color_system=None), text)
    return file.getvalue()


def test_sentences_break_at_words_in_a_terminal_alone():
    lines = _said(_SENTENCE, in_terminal=True).splitlines()
    assert len(lines) == 3
    assert all(len(line) <= 40 for line in lines)
    assert [word for line in lines for word in line.split()] == _SENTENCE.split()
    assert _said(_SENTENCE, in_terminal=False) == _SENTENCE + "\n"


def test_a_path_that_is_longer_than_a_line_stays_whole():
    path = "recordings/" * 6 + "a.wav"
    assert _said(f"error: {path}: it is empty", in_terminal=True).splitlines() == [
        "error:",
        path + ":",
        "it is empty",
    ]
