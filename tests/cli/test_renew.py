"""Processes that are renewed: the words of the command, and a real one."""

import os
import subprocess
import sys

import pytest

from unfreeze.cli.renew import OPTION, RUNS_A_PROCESS, budget_left, renewed_words, runs_a_process


def test_words_are_those_of_before():
    words = ["python", "unfreeze", "compare", "data", "--budget", "2h"]
    once = renewed_words(words, 90.0)
    assert once == [*words, OPTION, "90.000"]
    assert renewed_words(once, None) == [*words, OPTION, "-"]
    assert renewed_words(words, 0.0)[-1] == "0.001"


def test_the_budget_goes_on():
    assert budget_left(7200.0, None) == 7200.0
    assert budget_left(7200.0, "90.5") == 90.5
    assert budget_left(None, "-") is None


def test_tensorflow_alone_needs_it(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert runs_a_process() is None
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    assert runs_a_process() == (RUNS_A_PROCESS if os.name == "posix" else None)


@pytest.mark.skipif(os.name != "posix", reason="other systems start another process")
def test_a_process_begins_again_with_its_own_id(tmp_path):
    script = tmp_path / "work.py"
    script.write_text(
        "import os, sys\n"
        "from unfreeze.cli.renew import renew\n"
        "print(os.getpid(), *sys.argv[1:])\n"
        "if '--renewed' not in sys.argv:\n"
        "    renew(12.5)\n"
    )
    words = [sys.executable, str(script), "some", "words"]
    found = subprocess.run(words, capture_output=True, text=True, check=True)
    first, second = (line.split() for line in found.stdout.splitlines())
    assert first[1:] == ["some", "words"]
    assert second[1:] == ["some", "words", "--renewed", "12.500"]
    assert first[0] == second[0]
