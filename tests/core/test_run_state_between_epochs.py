"""The laws of a run that is killed: it goes on, and ends as if it had not been."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import keras
import numpy as np
import pytest
from safetensors import safe_open

from small_runs import HEAD, LONG, Batches, assert_same_weights, make, run, told, whole
from unfreeze.core import run_state
from unfreeze.core.callbacks import StageCallback
from unfreeze.core.schedule import Plateau, ReduceRate, Schedule, Stage
from unfreeze.errors import RunError

pytestmark = pytest.mark.on_each_backend
# What else the state holds, plain arrays; PyTorch alone has nothing to compile.
compiles = pytest.mark.slow_on("jax", "tensorflow")


class Killed(BaseException):
    """Not an Exception, as little as a signal is one."""


class KillAfter(keras.callbacks.Callback):
    """Ends the run after some epochs, counted over all stages."""

    def __init__(self, epochs):
        super().__init__()
        self.left = epochs

    def on_epoch_begin(self, epoch, logs=None):
        if self.left == 0:
            raise Killed
        self.left -= 1


class Notes(StageCallback):
    def __init__(self):
        super().__init__()
        self.texts = []

    def on_note(self, text):
        self.texts.append(text)


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch):
    monkeypatch.setattr(run_state.Checkpointer, "_is_time", lambda self: True)


def killed_and_resumed(folder, after, schedule, **options):
    """Run, killed after some epochs; then to the end with a fresh model of other weights."""
    with pytest.raises(Killed):
        run(make(), schedule, run_dir=folder, callbacks=[KillAfter(after)], **options)
    other = make()
    for layer in ("head", "conv"):
        # As a model that was built without a seed: the run began with other weights.
        variable = other.get_layer(layer).kernel
        variable.assign(np.ones(variable.shape))
    notes = Notes()
    result = run(other, schedule, run_dir=folder, callbacks=[notes], **options)
    return other, result, notes.texts


@pytest.mark.several_steps
@pytest.mark.parametrize(
    "after",
    [*(pytest.param(n, marks=compiles) for n in (0, 1, 3)), 5],
)
def test_killed_after_any_epoch_it_ends_with_the_same_weights(after, tmp_path):
    expected = whole(LONG)
    resumed, result, notes = killed_and_resumed(tmp_path, after, LONG)
    assert_same_weights(expected.model, resumed)
    assert told(result) == told(expected)
    assert [s.audit.as_dict() for s in result.stages] == [
        s.audit.as_dict() for s in expected.stages
    ]
    went_on = [note for note in notes if "resumes after" in note]
    stage, done = ("head", after) if after < 3 else ("all", after - 3)
    assert went_on == ([f"stage {stage!r} resumes after epoch {done}"] if done else [])
    assert not (tmp_path / run_state.EPOCH_FILE).exists()


@compiles
def test_killed_between_the_last_epoch_and_the_record_of_a_stage_it_trains_no_more(tmp_path):
    class AtTheEnd(StageCallback):
        def on_train_end(self, logs=None):
            raise Killed

    with pytest.raises(Killed):
        run(make(), HEAD, run_dir=tmp_path, callbacks=[AtTheEnd()])
    resumed = make()
    run(resumed, HEAD, run_dir=tmp_path, callbacks=[KillAfter(0)])
    assert_same_weights(whole(HEAD).model, resumed)


OPTIMIZERS = {
    "adamw": lambda: keras.optimizers.AdamW(weight_decay=0.1, use_ema=True),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()),
}


@pytest.mark.slow_on("jax")
@pytest.mark.parametrize("name", [pytest.param("adamw", marks=compiles), "loss scale"])
def test_every_slot_of_an_optimizer_comes_back(name, tmp_path):
    rate = keras.optimizers.schedules.CosineDecay(0.05, 20)
    stage = Stage("s", "all", epochs=4, learning_rate=rate, optimizer=OPTIMIZERS[name]())
    expected = run(schedule=[stage])
    resumed, _, notes = killed_and_resumed(tmp_path, 2, [stage])
    assert any("resumes after epoch 2" in note for note in notes)
    assert_same_weights(expected.model, resumed)


@compiles
def test_rates_by_layer_come_back(tmp_path):
    stages = [Stage("s", "all", epochs=4, learning_rate=0.02, layer_decay=0.5)]
    expected = run(schedule=stages)
    resumed, _, _ = killed_and_resumed(tmp_path, 2, stages)
    assert_same_weights(expected.model, resumed)


RULES = Schedule(
    (
        Stage(
            "s",
            "head",
            epochs=20,
            learning_rate=1.0,
            until=Plateau("val_loss", patience=4),
            reduce=ReduceRate("val_loss", factor=0.5, patience=2),
        ),
    )
)


@compiles
@pytest.mark.parametrize("after", [2, 5])
def test_rules_go_on_counting(after, tmp_path):
    expected = whole(RULES)
    rates = [row["learning_rate"] for row in expected.history]
    assert len(set(rates)) > 1
    assert 6 <= len(rates) < 20
    resumed, result, _ = killed_and_resumed(tmp_path, after, RULES)
    assert told(result) == told(expected)
    assert_same_weights(expected.model, resumed)


BY_ACCURACY = Schedule(
    (Stage("s", "head", epochs=30, learning_rate=0.3, until=Plateau("best", 3)),), monitor="auto"
)


@compiles
@pytest.mark.parametrize("after", [2, 5])
def test_the_best_epoch_by_accuracy_is_known_again(after, tmp_path):
    expected = whole(BY_ACCURACY)
    assert expected.stages[0].monitor == "val_accuracy"
    # Where the best epoch lies, differs from backend to backend; which it is, does not.
    stage = expected.stages[0]
    best = min(stage.rows, key=lambda row: (-row["val_accuracy"], row["val_loss"]))
    assert stage.best_epoch == best["epoch"]
    assert 5 < stage.epochs == stage.best_epoch + 3
    resumed, result, _ = killed_and_resumed(tmp_path, after, BY_ACCURACY)
    assert told(result) == told(expected)
    assert_same_weights(expected.model, resumed)


@compiles
@pytest.mark.parametrize("cache", ["never", "auto"])
def test_batches_of_a_dataset_go_on_in_their_order(cache, tmp_path):
    stages = [Stage("s", "head", epochs=4, learning_rate=0.05, cache=cache)]
    expected = run(schedule=stages, data=Batches())
    resumed, _, _ = killed_and_resumed(tmp_path, 2, stages, data=Batches())
    assert_same_weights(expected.model, resumed)


@compiles
def test_variants_of_augmented_samples_go_on_in_their_order(tmp_path):
    stages = [Stage("s", "head", epochs=4, learning_rate=0.05, cache="always", views=3)]
    unbroken, broken, resumed = (make(augment=True) for _ in range(3))
    run(unbroken, stages)
    with pytest.raises(Killed):
        run(broken, stages, run_dir=tmp_path, callbacks=[KillAfter(2)])
    run(resumed, stages, run_dir=tmp_path)
    assert_same_weights(unbroken, resumed)


@pytest.fixture
def begun(tmp_path):
    """The checkpoint of a run that was killed after its first epoch."""
    with pytest.raises(Killed):
        run(make(), HEAD, run_dir=tmp_path, callbacks=[KillAfter(1)])
    return tmp_path / run_state.EPOCH_FILE


@compiles
def test_a_damaged_checkpoint_is_named_with_the_cure(begun, tmp_path):
    content = begun.read_bytes()
    other_format = content.replace(b'\\"format\\": 2', b'\\"format\\": 9')
    assert other_format != content
    told = r"epoch\.safetensors .*delete it to begin the stage again"
    for damaged in (content[: len(content) // 2], b"not a checkpoint", other_format):
        begun.write_bytes(damaged)
        with pytest.raises(RunError, match=told):
            run(make(), HEAD, run_dir=tmp_path)
    begun.unlink()
    run(make(), HEAD, run_dir=tmp_path)


@compiles
def test_a_checkpoint_holds_no_code_and_tells_what_it_is(begun, tmp_path):
    with safe_open(begun, framework="numpy") as stored:
        meta = json.loads(stored.metadata()["unfreeze"])
        assert (meta["stage"], meta["done"], meta["best_epoch"]) == ("head", 1, 1)
        names = {name.rpartition("_")[0] for name in stored.keys()}  # noqa: SIM118
    assert names == {"weight", "optimizer", "random", "best"}
    # The run that began is known by its settings.
    with pytest.raises(RunError, match="another seed"):
        run(make(), HEAD, run_dir=tmp_path, seed=9)


def test_it_costs_no_more_than_its_share(monkeypatch, tmp_path):
    monkeypatch.undo()
    written, copied, now = [], [], [0.0]
    monkeypatch.setattr(run_state.time, "perf_counter", lambda: now[0])

    def write(file, arrays, text):
        written.append(now[0])
        now[0] += 0.5

    def collect(number, done, parts, copy=False):
        copied.append(copy)
        now[0] += 0.02 * copy
        return run_state.State({}, "")

    monkeypatch.setattr(run_state, "write_arrays", write)
    monkeypatch.setattr(run_state, "collect", collect)

    class Parts:
        rules = ()

        def by_kind(self):
            return {}

    saver = run_state.Checkpointer(tmp_path / "f", 0, Parts())
    saver.set_model(keras.Sequential())
    saver.model.stop_training = False
    for epoch in range(1000):
        now[0] += 0.1
        saver.on_epoch_end(epoch)
    assert 3 <= len(written) <= 6
    # What is copied for a run that is asked to stop counts too.
    assert sum(copied) > 10
    assert (0.5 * len(written) + 0.02 * sum(copied)) / now[0] < 0.03


PROGRAM = """
    import sys
    from pathlib import Path
    import numpy as np
    from unfreeze.core import run_state
    run_state.Checkpointer._is_time = lambda self: True
    from small_runs import make, run, TWO
    model = make()
    run(model, TWO.with_changes(epochs=50), run_dir=Path(sys.argv[1]))
    np.savez(sys.argv[2], *model.get_weights())
"""


@pytest.mark.slow
def test_killed_by_the_system(tmp_path):
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    # One thread: several take 30 times as long on a busy machine (PyTorch).
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
    }

    def start(name):
        command = [sys.executable, "program.py", name, f"{name}.npz"]
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)

    # In a process too: the number of threads is the same then.
    unbroken, process = start("unbroken"), start("killed")
    while not (tmp_path / "killed" / run_state.EPOCH_FILE).exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert start("killed").wait(timeout=300) == 0
    assert unbroken.wait(timeout=300) == 0
    with np.load(tmp_path / "killed.npz") as killed, np.load(tmp_path / "unbroken.npz") as expected:
        assert len(expected.files) == len(make().get_weights())
        for name in expected.files:
            np.testing.assert_array_equal(killed[name], expected[name])
