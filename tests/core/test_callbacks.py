"""The history of a stage and its best epoch."""

import keras
import numpy as np
import pytest

from playing import losses, record
from unfreeze.core.callbacks import rank, resolve
from unfreeze.errors import StageError


def test_a_row_for_each_epoch():
    recorder, _ = record([{"loss": 2.0, "val_loss": 3.0, "learning_rate": 9.0}])
    (row,) = recorder.rows
    assert row.pop("seconds") >= 0
    assert row.pop("learning_rate") == pytest.approx(0.1)
    assert row == {
        "stage": "s",
        "epoch": 1,
        "step": 4,
        "loss": 2.0,
        "val_loss": 3.0,
        "best": False,
    }


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ([3.0, 2.0, 1.0], 3),
        ([1.0, 2.0, 3.0], 1),
        ([3.0, 1.0, 1.0, 1.0], 2),  # a tie goes to the first
        ([2.0, 2.0], 1),
        ([np.nan, 2.0, 1.0, np.nan], 3),
        ([np.inf, 2.0], 2),
        ([-1.0, -2.0], 2),
    ],
)
def test_the_best_epochs_weights_come_back(values, best):
    recorder, variable = record(losses(*values))
    recorder.restore()
    assert recorder.best_epoch == best
    assert recorder.best_value == values[best - 1]
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), [best, best])
    assert [row["best"] for row in recorder.rows] == [i + 1 == best for i in range(len(values))]


def test_without_a_finite_value_there_is_no_best_and_nothing_is_restored():
    recorder, variable = record(losses(np.nan, np.nan))
    recorder.restore()
    assert (recorder.best_epoch, recorder.diverged) == (0, False)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), [2, 2])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_ends_the_stage(value):
    logs = [{"loss": 1.0, "val_loss": 1.0}, {"loss": value, "val_loss": 0.5}, {"loss": 1.0}]
    recorder, _ = record(logs)
    assert recorder.diverged
    assert len(recorder.rows) == 2
    assert recorder.best_epoch == 1


def epochs(*pairs):
    """Logs of (val_accuracy, val_loss)."""
    return [{"loss": 1.0, "accuracy": 0.9, "val_accuracy": a, "val_loss": v} for a, v in pairs]


@pytest.mark.parametrize(
    ("pairs", "best"),
    [
        # A loss that confidence spoils rises while more and more is right.
        ([(0.5, 1.0), (0.6, 1.5), (0.7, 2.0)], 3),
        ([(0.7, 2.0), (0.6, 0.1)], 1),
        # Of equal ones that with the lower loss, then the earlier.
        ([(0.7, 2.0), (0.7, 1.5), (0.7, 1.8)], 2),
        ([(0.7, 1.5), (0.7, 1.5)], 1),
        ([(0.9, np.nan), (0.7, 1.5)], 2),
        ([(np.nan, 0.1), (0.7, 1.5)], 2),
    ],
)
def test_by_accuracy_a_tie_goes_to_the_lower_loss(pairs, best):
    recorder, variable = record(epochs(*pairs), "auto")
    recorder.restore()
    assert (recorder.monitor, recorder.best_epoch) == ("val_accuracy", best)
    assert recorder.best_value == pairs[best - 1][0]
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), [best, best])


@pytest.mark.parametrize(
    ("monitor", "log", "metric"),
    [
        ("auto", "loss accuracy val_loss val_accuracy", "val_accuracy"),
        ("auto", "loss val_loss", "val_loss"),
        # Samples that were trained on are soon all right: accuracy on them tells nothing.
        ("auto", "loss accuracy", "loss"),
        ("val_loss", "loss accuracy val_loss val_accuracy", "val_loss"),
        ("val_loss", "loss", "loss"),
        ("val_f1_score", "loss f1_score", "f1_score"),
        ("loss", "loss val_loss", "loss"),
    ],
)
def test_what_a_monitor_means_follows_from_the_log(monitor, log, metric):
    assert resolve(monitor, dict.fromkeys(log.split(), 1.0)) == metric


def test_a_monitor_that_is_not_measured_is_named():
    with pytest.raises(StageError, match=r"'val_f1'.*it has: accuracy, loss, val_acc.*, val_loss"):
        record(epochs((0.5, 1.0)), "val_f1")


def test_rank_is_smaller_for_better():
    log = {"loss": 9.0, "val_loss": 2.0, "val_accuracy": 0.75, "val_mae": 3.0}
    assert rank(log, "val_accuracy") == (-0.75, 2.0)
    assert rank(log, "val_mae") == (3.0, 2.0)
    assert rank(log, "loss") == (9.0, 9.0)
    assert rank({**log, "val_loss": np.inf}, "val_accuracy") is None


def test_an_earlier_starts_record_is_gone_on_with():
    first, _ = record(epochs((0.5, 1.0), (0.8, 3.0)), "auto")
    again, variable = record([], "auto")
    again.go_on(first.rows, first.best_epoch, first.best)
    assert (again.monitor, again.best_epoch, again.best_value) == ("val_accuracy", 2, 0.8)
    again.on_epoch_begin(2)
    again.on_epoch_end(2, epochs((0.8, 3.5))[0])
    assert (again.best_epoch, again.rows[-1]["step"]) == (2, first.step + 1)
    variable.assign([7.0, 7.0])
    again.on_epoch_end(3, epochs((0.8, 2.5))[0])
    assert again.best_epoch == 4
    np.testing.assert_array_equal(again.best, [[7.0, 7.0]])
