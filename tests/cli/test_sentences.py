"""Sentences break at words in a terminal, and nowhere else."""

import io

from rich.console import Console

from unfreeze.cli.sentences import say

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


def test_a_command_in_backticks_stays_whole():
    command = "`unfreeze embed RECORDINGS --out INDEX --run RUN`"
    assert command in _said(f"error: it is of another model: make it with {command}", True)
