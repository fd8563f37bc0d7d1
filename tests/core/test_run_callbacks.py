"""Callbacks of a user see a run of several stages as one `fit`."""

import csv

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file

from small_runs import HEAD, TWO, X, make, run
from unfreeze.core.callbacks import StageCallback
from unfreeze.core.run_callbacks import RunCallbacks, as_callbacks, is_of_stages
from unfreeze.core.schedule import Schedule, Stage
from unfreeze.errors import ScheduleError

pytestmark = pytest.mark.slow_on("jax")


class Heard(keras.callbacks.Callback):
    """What a callback hears, and through which model."""

    def __init__(self):
        super().__init__()
        self.heard, self.sizes = [], []

    def on_train_begin(self, logs=None):
        self.heard.append(("begin", self.params["epochs"]))

    def on_train_end(self, logs=None):
        self.heard.append(("end", sorted(logs)))

    def on_epoch_begin(self, epoch, logs=None):
        self.heard.append(epoch)

    def on_epoch_end(self, epoch, logs=None):
        self.sizes.append(len(self.model.trainable_variables))

    def on_test_begin(self, logs=None):
        self.heard.append("test")


class Batched(keras.callbacks.Callback):
    batches = 0

    def on_batch_end(self, batch, logs=None):
        self.batches += 1


class Staged(StageCallback):
    """The epochs that it hears of, and the whole model's weights after each stage."""

    def __init__(self, whole):
        super().__init__()
        self.whole, self.epochs, self.weights = whole, (), []

    def on_epoch_end(self, epoch, logs=None):
        self.epochs += (epoch,)

    def on_stage_end(self, result):
        self.weights.append([np.array(w) for w in self.whole.get_weights()])


def test_one_run_of_two_stages(tmp_path):
    model = make()
    heard, batched, staged, own, ended = Heard(), Batched(), Staged(model), Heard(), []
    stages = [TWO.stages[0], Stage("all", "all", epochs=2, learning_rate=0.01, callbacks=[own])]
    callbacks = [
        heard,
        batched,
        staged,
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.ModelCheckpoint(
            tmp_path / "{epoch:02d}.weights.h5", save_weights_only=True
        ),
        keras.callbacks.LambdaCallback(on_train_end=lambda logs: ended.append(logs["loss"])),
    ]
    result = run(model, stages, callbacks=callbacks, run_dir=tmp_path / "run")
    names = ["accuracy", "loss", "val_accuracy", "val_loss"]
    epochs = [part for epoch in range(4) for part in (epoch, "test")]
    assert heard.heard == [("begin", 4), *epochs, ("end", names)]
    # Each stage's own model: kernel and bias of the head, then the convolution's, too.
    assert heard.sizes == [2, 2, 3, 3]
    assert heard.model is model
    assert batched.batches == 4 * 3
    # Those that know of stages, and a stage's own, count in the stage.
    assert staged.epochs == (0, 1, 0, 1)
    assert own.heard == [("begin", 2), 0, "test", 1, "test", ("end", names)]
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    assert [float(row["loss"]) for row in rows] == pytest.approx(
        [row["loss"] for row in result.history]
    )
    found = sorted(path.name for path in tmp_path.glob("*.h5"))
    assert found == [f"{epoch:02d}.weights.h5" for epoch in (1, 2, 3, 4)]
    assert ended == [pytest.approx(result.history[-1]["loss"])]
    # The weights after each stage are in its file, in the order of `model.weights`.
    for number, wanted in enumerate(staged.weights, start=1):
        saved = load_file(tmp_path / "run" / f"stage_{number}.safetensors")
        for place, value in enumerate(wanted):
            np.testing.assert_array_equal(saved[f"weight_{place}"], value)
        assert len(saved) == len(wanted)


def test_callbacks_that_steer_begin_anew_in_each_stage():
    stop = keras.callbacks.EarlyStopping(patience=1, min_delta=10.0, restore_best_weights=True)
    rates = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / (1 + epoch))
    stages = [TWO.stages[0], Stage("all", "all", epochs=3, learning_rate=0.01)]
    history = run(schedule=stages, callbacks=[stop, rates]).history
    # The second epoch of each stage is no gain of 10.
    assert [row["step"] for row in history] == [1, 2, 3, 4]
    assert [row["learning_rate"] for row in history] == pytest.approx([0.05, 0.025, 0.01, 0.005])
    assert is_of_stages(stop)
    assert not is_of_stages(keras.callbacks.TerminateOnNaN())


def test_tensorboard_goes_on_from_stage_to_stage(tmp_path):
    tensorflow = pytest.importorskip("tensorflow")
    run(schedule=TWO, callbacks=[keras.callbacks.TensorBoard(tmp_path, update_freq=1)])
    (file,) = (tmp_path / "train").glob("*.v2")  # one writer, not one per stage
    steps: dict[str, list[int]] = {}
    for event in tensorflow.compat.v1.train.summary_iterator(str(file)):
        for value in event.summary.value:
            steps.setdefault(value.tag, []).append(event.step)
    assert steps["epoch_loss"] == [0, 1, 2, 3]
    assert steps["batch_loss"] == list(range(1, 13))
    (file,) = (tmp_path / "validation").glob("*.v2")
    validated = [
        event.step
        for event in tensorflow.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
        if value.tag == "evaluation_loss_vs_iterations"
    ]
    assert validated == [3, 6, 9, 12]


def test_solved_and_resumed_stages_count_too(tmp_path):
    heard = Heard()
    stages = Schedule((Stage("head", "head", epochs=2, solve=True), *HEAD.with_changes(name="b")))
    run(schedule=stages, callbacks=[heard], run_dir=tmp_path)
    assert [x for x in heard.heard if isinstance(x, int)] == [0, 1, 2, 3]
    assert heard.heard[0] == ("begin", 4)
    # All is finished: there is no epoch to hear of, and the run neither begins nor ends.
    again = Heard()
    run(schedule=stages, callbacks=[again], run_dir=tmp_path)
    assert again.heard == []
    (tmp_path / "stage_2.safetensors").unlink()
    relay = RunCallbacks([again], 4).in_stage(2)[0]
    relay.set_params({"epochs": 2})
    relay.on_epoch_begin(1)
    assert (again.heard, again.params["epochs"]) == ([3], 4)


def test_callbacks_come_in_every_form_of_keras():
    class Counts(keras.callbacks.Callback):
        epochs = 0

        def on_epoch_end(self, epoch, logs=None):
            self.epochs += 1

    for form in (lambda c: c, lambda c: (c,), lambda c: keras.callbacks.CallbackList([c])):
        counts = Counts()
        run(schedule=HEAD, callbacks=form(counts))
        assert counts.epochs == 2
    assert as_callbacks(None) == ()
    with pytest.raises(ScheduleError, match=r"History is no callback object: give History\(\)"):
        run(schedule=HEAD, callbacks=[keras.callbacks.History])
    with pytest.raises(ScheduleError, match="callbacks: 3 is no callback object"):
        run(schedule=HEAD, callbacks=3)


def test_a_callback_predicts_with_the_whole_model_in_a_cached_stage():
    found = []

    class Predicts(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            found.append(self.model.predict(X[:4], verbose=0))

    model = make()
    result = run(model, HEAD, callbacks=[Predicts()])
    assert result.stages[0].cache.startswith("cached")
    assert [part.shape for part in found] == [(4, model.output_shape[-1])] * 2
    best = found[result.stages[0].best_epoch - 1]
    np.testing.assert_allclose(best, model.predict(X[:4], verbose=0), atol=1e-6)
