"""Ctrl-C and its kin while `unfreeze train` runs, and two processes at once."""

import os
import signal
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

import forked
import toy
from faults import leavings
from unfreeze.cli.app import app
from unfreeze.cli.terminal import Asked, signals_to
from unfreeze.core.array_files import checksum
from unfreeze.pipeline.saved_model import load_clip_model

# Two stages of steps, so that the second epoch is one of the first stage.
WORDS = (
    *("--backbone", "toy", "--schedule", "two_stage"),
    *("--epochs", "3", "--batch-size", "4", "--json"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy.write_sounds(tmp_path_factory.mktemp("sounds"), clips=6)


def start(folder, data, out, *more, signals=()):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "UNFREEZE_CACHE": str(folder / "cache"),
        "TOY_SIGNALS": " ".join(str(int(s)) for s in signals),
        "KERAS_BACKEND": keras.backend.backend(),
    }
    words = ["train", data, "--out", folder / out, *WORDS, *more]
    return forked.start("import toy_cli; toy_cli.main()", *words, env=environment)


def run(folder, data, out, *more):
    """The same in this process, to its end: another process costs more than the training."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        toy.register(monkeypatch, folder)
        done = CliRunner().invoke(
            app, ["train", str(data), "--out", str(folder / out), *WORDS, *more]
        )
    assert done.exit_code == 0, done.output


def end(process):
    """Exit code and standard error."""
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors.decode()


def weights(run: Path) -> list[np.ndarray]:
    return load_clip_model(run / "model.keras").get_weights()


def same(a: Path, b: Path) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))


@pytest.fixture(scope="module")
def place(tmp_path_factory, data):
    """A folder with an unbroken run, and one that Ctrl-C broke off after its second epoch."""
    folder = tmp_path_factory.mktemp("runs")
    run(folder, data, "whole")
    broken = start(folder, data, "broken", signals=[signal.SIGINT])
    code, errors = end(broken)
    assert code == 130, errors
    return folder, errors


@pytest.mark.slow_on("tensorflow")
@pytest.mark.on_each_backend
def test_ctrl_c_once_finishes_the_step_and_keeps_the_state(place, data):
    folder, errors = place
    assert "stopping after this step; press Ctrl-C again to stop at once" in errors
    assert errors.endswith("interrupted; run the same command with --resume to continue\n")
    assert "Traceback" not in errors
    broken = folder / "broken"
    assert sorted(p.name for p in broken.iterdir()) == [
        "config.yaml",
        "schedule.yaml",
        "splits.csv",
        "stages",
    ]
    assert (broken / "stages" / "epoch.safetensors").is_file()
    assert leavings(folder) == []
    run(folder, data, "broken", "--resume")
    assert same(broken, folder / "whole")


@pytest.mark.parametrize(
    ("signals", "told"),
    [
        # As batch systems end a job.
        pytest.param([signal.SIGTERM], "stopping after this step", marks=pytest.mark.slow),
        ([signal.SIGINT, signal.SIGINT], "stopping after this step"),
    ],
    ids=["terminate", "ctrl-c twice"],
)
def test_other_ways_to_be_stopped(place, data, signals, told):
    folder, _ = place
    out = f"stopped-{len(signals)}"
    code, errors = end(start(folder, data, out, signals=signals))
    assert code == 130, errors
    assert told in errors
    assert errors.endswith("interrupted; run the same command with --resume to continue\n")
    assert "Traceback" not in errors
    assert leavings(folder) == []
    kept = {p.name for p in (folder / out / "stages").iterdir()}
    # The state within the stage is written when it costs little of the time, or on the
    # first signal; a second one right behind it may come before either.
    assert kept - {"epoch.safetensors"} == {"fit.json", "stage_0.safetensors"}
    assert len(signals) == 2 or "epoch.safetensors" in kept
    run(folder, data, out, "--resume")
    assert same(folder / out, folder / "whole")


@pytest.mark.slow
def test_two_processes_fill_one_cache_and_both_are_right(place, data, tmp_path):
    folder, _ = place
    both = [start(tmp_path, data, name) for name in ("a", "b")]
    for process in both:
        code, errors = end(process)
        assert code == 0, errors
    assert same(tmp_path / "a", folder / "whole")
    assert same(tmp_path / "b", folder / "whole")
    assert leavings(tmp_path) == []
    # Whole, and as one process alone leaves it.
    for kind, name in (("prefixes", "part_0.bin"), ("features", "frames.f32")):
        found = {f.parent.name: checksum(f) for f in (tmp_path / "cache" / kind).glob(f"*/{name}")}
        alone = {f.parent.name: checksum(f) for f in (folder / "cache" / kind).glob(f"*/{name}")}
        assert found
        assert found == alone


def test_a_signal_stops_at_once_where_no_steps_run(capfd):
    asked = Asked()
    with signals_to(asked):
        handle = signal.getsignal(signal.SIGTERM)
        assert handle == signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        handle(signal.SIGTERM, None)
    assert not asked.to_stop
    asked.in_step = True
    handle(signal.SIGINT, None)
    assert asked.to_stop
    assert (
        capfd.readouterr().err == "\nstopping after this step; press Ctrl-C again to stop at once\n"
    )
    with pytest.raises(KeyboardInterrupt):
        handle(signal.SIGINT, None)


def test_handlers_are_put_back_and_other_threads_have_none():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with signals_to(Asked()):
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    done = []

    def elsewhere():
        with signals_to(Asked()):
            done.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert done == [before[0]]
