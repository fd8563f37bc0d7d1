"""Rules that end a stage or lower its rate."""

import numpy as np
import pytest

from playing import losses, model_stub, play, record
from unfreeze.core.callbacks import rule_callbacks
from unfreeze.core.optimizers import get_learning_rate
from unfreeze.core.schedule import Plateau, Reached, ReduceRate
from unfreeze.errors import ScheduleError, StageError

# Most rules ask no recorder.
NOBODY = record([])[0]


@pytest.mark.parametrize(
    ("rule", "values", "last"),
    [
        (Plateau("val_loss", 2), [3, 2, 1, 1, 1, 0], 5),
        (Plateau("val_loss", 2), [3, 3, 3], 3),
        (Plateau("val_loss", 2, min_delta=0.5), [3, 2.8, 2.6, 2.0], 3),
        (Plateau("val_loss", 3), [3, 4, 2, 4, 5, 1], 6),
        (Plateau("val_accuracy", 1), [0.1, 0.2, 0.2], 3),
        (Plateau("val_odd", 1, mode="max"), [1, 2, 1, 9], 3),
        (Reached("val_accuracy", 0.9), [0.5, 0.9, 1.0], 2),
        (Reached("val_loss", 0.5), [1.0, 0.6, 0.5, 0.1], 3),
        (Plateau("val_loss", 1), [np.nan, 1.0, 0.5], 1),
    ],
)
def test_rules_end_a_stage(rule, values, last):
    assert play(rule_callbacks(rule, None, NOBODY), losses(*values, metric=rule.metric)) == last


def test_a_plateau_lowers_the_rate():
    model = model_stub(1.0)
    (_, reduce) = rule_callbacks(None, ReduceRate("val_loss", factor=0.5, patience=2), NOBODY)
    play([reduce], losses(1.0, 1.0, 1.0, 1.0, 1.0), model)
    assert get_learning_rate(model.optimizer) == pytest.approx(0.25)


@pytest.mark.parametrize("rules", [(Plateau("val_acc"), None), (None, ReduceRate("val_acc"))])
def test_a_metric_that_is_not_there_is_named(rules):
    with pytest.raises(StageError, match=r"watches 'val_acc' .*it has: loss, val_loss"):
        play(rule_callbacks(*rules, NOBODY), losses(1.0))


def test_without_validation_data_the_training_metric_takes_its_place():
    rules = rule_callbacks(Plateau("val_loss", 1), ReduceRate("val_loss"), NOBODY, validated=False)
    assert play(rules, [{"loss": 1.0}, {"loss": 0.5}, {"loss": 0.6}]) == 3
    rules = rule_callbacks(Reached("val_accuracy", 0.9), None, NOBODY, validated=False)
    assert play(rules, [{"accuracy": 0.5}, {"accuracy": 0.95}, {"accuracy": 1.0}]) == 2


@pytest.mark.parametrize(
    ("monitor", "patience", "last"),
    [("val_loss", 2, 4), ("val_loss", 1, 3), ("val_accuracy", 2, 6), ("val_accuracy", 9, 7)],
)
def test_a_stage_ends_without_a_new_best_epoch(monitor, patience, last):
    pairs = [(0.1, 3.0), (0.2, 2.0), (0.2, 2.5), (0.3, 4.0), (0.3, 4.0), (0.2, 1.0), (0.2, 5.0)]
    logs = [{"loss": 1.0, "val_accuracy": a, "val_loss": v} for a, v in pairs]
    recorder, _ = record([], monitor)
    rules = rule_callbacks(Plateau("best", patience), None, recorder)
    assert play([recorder, *rules], logs) == last


def test_the_best_epoch_is_no_metric():
    for more in ({"min_delta": 0.1}, {"mode": "min"}):
        with pytest.raises(ScheduleError, match="'best' takes neither min_delta nor mode"):
            Plateau("best", **more)
