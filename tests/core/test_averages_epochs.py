"""Stochastic weight averaging: the mean over the last epochs is validated, kept, handed back."""

import keras
import numpy as np
import pytest

from small_runs import HELD, Rates, X, Y, assert_same_weights, make, run
from unfreeze.core import run_state
from unfreeze.core.averages import EpochAverages
from unfreeze.core.callbacks import StageCallback
from unfreeze.core.schedule import Plateau, Schedule, Stage
from unfreeze.core.unfreeze_schedule import UnfreezeSchedule
from unfreeze.errors import ScheduleError, Stopped

LOSS = "sparse_categorical_crossentropy"
FIELDS = {"epochs": 4, "learning_rate": 0.05, "optimizer": "sgd"}
PLAIN = Stage("all", "all", keep="last", **FIELDS)
SWA = Stage("all", "all", keep="last", average="swa", **FIELDS)


def still() -> keras.Model:
    """A model without dropout, compiled."""
    model = make(drop=0.0)
    model.compile("adam", LOSS)
    return model


class Weights(StageCallback):
    """The weights of the model at the beginning of each epoch, and at its end."""

    def __init__(self):
        super().__init__()
        self.begin, self.end = [], []

    def numbers(self):
        return [np.array(keras.ops.convert_to_numpy(v)) for v in self.model.trainable_variables]

    def on_epoch_begin(self, epoch, logs=None):
        self.begin.append(self.numbers())

    def on_epoch_end(self, epoch, logs=None):
        self.end.append(self.numbers())


def test_which_epochs_count():
    firsts = {e: EpochAverages([], e).first for e in (0, 1, 2, 3, 4, 5, 8, 20)}
    assert firsts == {0: 0, 1: 0, 2: 0, 3: 1, 4: 2, 5: 3, 8: 6, 20: 15}


def test_the_mean_of_the_last_quarter_is_kept_and_training_goes_on_beside_it(tmp_path, monkeypatch):
    raw, plain = Weights(), still()
    run(plain, [PLAIN], callbacks=[raw])
    seen, model = Weights(), still()
    result = run(model, [SWA], callbacks=[seen])
    # Training is not touched: each epoch begins with the weights of the last step.
    for one, two in zip(raw.begin, seen.begin, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    mean = [(a + b) / 2 for a, b in zip(*raw.end[-2:], strict=True)]
    for found, wanted in zip(seen.end[-1], mean, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)
    assert np.abs(seen.end[-1][0] - raw.end[-1][0]).max() > 1e-5
    loss = model.evaluate(*HELD, verbose=0, return_dict=True)["loss"]
    assert result.history[-1]["val_loss"] == pytest.approx(loss, rel=1e-5)
    # And to the bit where it was interrupted between two epochs that count.
    monkeypatch.setattr(run_state.Checkpointer, "_is_time", lambda self: True)
    folder = tmp_path / "run"
    with pytest.raises(Stopped):
        run(still(), [SWA], run_dir=folder, callbacks=[Rates(last=3)])
    resumed = still()
    run(resumed, [SWA], run_dir=folder)
    assert_same_weights(model, resumed)


def test_the_same_inside_a_fit_of_the_user():
    stage = Stage("all", "all", average="swa", **FIELDS)
    seen, model = Weights(), still()
    callback = UnfreezeSchedule([stage])
    settings = {"batch_size": 8, "epochs": 4, "verbose": 0, "validation_data": HELD}
    model.fit(X, Y, shuffle=False, callbacks=[callback, seen], **settings)
    raw, plain = Weights(), still()
    sgd = Stage("all", "all", **FIELDS)
    plain.fit(X, Y, shuffle=False, callbacks=[UnfreezeSchedule([sgd]), raw], **settings)
    for found, one, two in zip(seen.end[-1], *raw.end[-2:], strict=True):
        np.testing.assert_allclose(found, (one + two) / 2, rtol=1e-5, atol=1e-6)
    loss = model.evaluate(*HELD, verbose=0)
    rows = callback.results[0].rows
    assert min(row["val_loss"] for row in rows) == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"average": "mean"}, "average 'mean' must be one of swa"),
        ({"until": Plateau()}, "the last quarter of `epochs`, which `until` may leave out"),
        ({"batch_norm": "train"}, "would not fit the averaged weights: use batch_norm='frozen'"),
        ({"epochs": 1}, "average needs at least 2 epochs"),
        ({"optimizer": keras.optimizers.SGD(use_ema=True)}, "with use_ema both average"),
        ({"solve": True}, "solve takes no steps, so average would have no effect"),
    ],
)
def test_what_cannot_be_averaged_is_refused(fields, reason):
    with pytest.raises(ScheduleError, match=f"stage 's': .*{reason}"):
        Stage("s", **{"average": "swa", **fields})


def test_two_kinds_of_averages_are_refused_also_where_the_model_has_one():
    model = make()
    model.compile(keras.optimizers.SGD(use_ema=True), LOSS)
    stage = Stage("s", average="swa")
    with pytest.raises(ScheduleError, match="stage 's': average and an optimizer with use_ema"):
        run(model, [stage])
    callback = UnfreezeSchedule([stage])
    with pytest.raises(ScheduleError, match="stage 's': average and an optimizer with use_ema"):
        callback.set_model(model)


def test_a_new_batch_norm_layer_is_refused():
    x = keras.Input((4,))
    y = keras.layers.BatchNormalization(name="own")(keras.layers.Dense(3)(x))
    model = keras.Model(x, keras.layers.Dense(2, "softmax")(keras.layers.Dense(3)(y)))
    model.get_layer("own").moving_mean.assign([1.0, 2.0, 3.0])
    z = keras.layers.BatchNormalization(name="new")(model.layers[-2].output)
    model = keras.Model(x, keras.layers.Dense(2, "softmax")(z))
    with pytest.raises(ScheduleError, match="the new BatchNorm layer 'new' trains its statistics"):
        run(model, [Stage("s", average="swa")], data=(X[:, 0, :2].reshape(24, 4), Y))


def test_older_run_folders_hold_the_same_run():
    schedule = Schedule([Stage("a")])
    assert "average" not in run_state.identity(schedule, 0, {}, {}, {})["schedule"]["a"]
    averaged = Schedule([Stage("a", average="swa")])
    assert run_state.identity(averaged, 0, {}, {}, {})["schedule"]["a"]["average"] == "swa"
