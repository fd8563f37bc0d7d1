"""What `fit` prints: right numbers, one line that is replaced, and lines that stay."""

import re

import pytest

from small_runs import HEAD, TWO, X, Y, make, run
from unfreeze.core import progress
from unfreeze.core.fit import fit
from unfreeze.core.progress import Progress, progress_for
from unfreeze.core.schedule import Schedule, Stage
from unfreeze.errors import DataError

pytestmark = pytest.mark.slow_on("jax")


def test_a_file_gets_one_line_per_epoch(capsys):
    result = run(
        schedule=Schedule([Stage("s", "head", solve=True, epochs=2), *TWO]), verbose="auto"
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "stage s: trains head (1 layer, 8 of 74 weights)"
    epochs = [line for line in lines if re.match(r"\w+ \d/\d  ", line)]
    assert [line.split("  ")[0] for line in epochs] == [
        *("s 1/2", "s 2/2", "head 1/2", "head 2/2", "all 1/2", "all 2/2")
    ]
    for line, row in zip(epochs, result.history, strict=True):
        assert f"  loss {row['loss']:.4g}" in line
        assert f"  val_loss {row['val_loss']:.4g}" in line
    assert "stage 'all': not cached: no frozen layer with weights" in "\n".join(lines)
    assert lines[-1].startswith(f"stage all: best of 2 epochs is {result.stages[-1].best_epoch} (")
    assert "\r" not in "".join(lines)


@pytest.mark.several_steps
@pytest.mark.on_each_backend
def test_a_terminal_has_a_running_line_with_right_numbers(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_can_replace", lambda out: True)
    monkeypatch.setattr(progress, "_EVERY", 0.0)
    run(schedule=HEAD, verbose=1, batch_size=1)
    out = capsys.readouterr().out
    shown = re.findall(r"(\d+)/(\d+)(?:  at most (\d+) s left)?(?=\s*\r)", out)
    assert {total for _, total, _ in shown} == {"24"}  # steps, not calls of 16 steps
    assert all(int(done) <= 24 for done, _, _ in shown)
    assert any(left and int(left) >= 1 for _, _, left in shown)
    # What stays is the same as in a file: each line overwrites the running one.
    stays = [line.rpartition("\r")[2] for line in out.split("\n")]
    assert [line.split("  ")[0] for line in stays if line.startswith("head ")] == [
        *("head 1/2", "head 2/2")
    ]


def test_time_left_counts_from_the_first_step(monkeypatch):
    clock = iter([0.0, 10.0, 11.0, 12.0, 13.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    shown = Progress()
    shown.set_params({"epochs": 2, "steps": 10})
    # The first step took 10 s to begin, which says nothing about the rest.
    assert [shown._seconds_left(done, 10) for done in (0, 1, 2, 3)] == [None, None, 18.0, 17.0]


def test_nothing_or_a_refusal(capsys):
    assert progress_for(0) == []
    assert progress_for(2)[0].running is False
    assert progress_for(True)[0].running is True
    with pytest.raises(DataError, match="verbose is 'loud': it must be 0, 1, 2 or 'auto'"):
        fit(make(), HEAD, X, Y, verbose="loud")
    assert capsys.readouterr().out == ""
