"""Schedules varied in a line."""

import pytest

from unfreeze.core.presets import CHANGES, full, head_only, split_variant, two_stage, vary
from unfreeze.core.schedule import Plateau
from unfreeze.errors import ScheduleError


def test_a_line_is_a_name_and_changes():
    assert split_variant("two_stage") == ("two_stage", {})
    text = "two_stage+rate=3e-4+train=head|top:2"
    assert split_variant(text) == ("two_stage", {"rate": "3e-4", "train": "head|top:2"})


def test_changes_are_for_the_stages_after_the_head():
    changes = {"rate": "3e-4", "batch_norm": "affine", "epochs": "7", "patience": "2",
               "layer_decay": "0.8", "batch_size": "16", "lora": "8",
               "train": "head|top:2"}  # fmt: skip
    head, rest = vary(two_stage(), changes, "mine")
    assert head == two_stage().stages[0]
    assert (rest.learning_rate, rest.batch_norm, rest.epochs) == (3e-4, "affine", 7)
    assert rest.until == Plateau("best", patience=2)
    assert (rest.layer_decay, rest.batch_size, rest.train) == (0.8, 16, ["head", "top:2"])
    assert rest.lora == 8


def test_the_only_stage_takes_the_changes_and_the_head_its_own():
    assert vary(full(), {"rate": "1e-3"}).stages[0].learning_rate == 1e-3
    head, rest = vary(two_stage(), {"head_rate": "2e-3", "head_epochs": "5"})
    assert (head.learning_rate, head.epochs) == (2e-3, 5)
    assert rest == two_stage().stages[1]


def test_the_monitor_is_the_whole_schedules():
    assert two_stage().monitor == "auto"
    varied = vary(two_stage(), {"monitor": "val_loss", "rate": "1e-5"})
    assert varied.monitor == "val_loss"
    assert varied.stages[0] == two_stage().stages[0]
    with pytest.raises(ScheduleError, match="monitor 'speed': is higher or lower better"):
        vary(two_stage(), {"monitor": "speed"})


def test_every_change_is_tested():
    tested = {"head_rate", "head_epochs", "rate", "epochs", "patience", "batch_norm",
              "layer_decay", "batch_size", "train", "lora"}  # fmt: skip
    assert set(CHANGES) == tested


@pytest.mark.parametrize("text", ["a+rate", "a+rate=", "a+=3", "a+"])
def test_a_change_without_its_value(text):
    with pytest.raises(ScheduleError, match="should look like rate=3e-4"):
        split_variant(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rates": "1"}, "Did you mean 'rate'"),
        ({"rate": "fast"}, "rate=fast: not a valid value"),
        ({"rate": "-1"}, "must be above 0"),
        ({"batch_norm": "cold"}, "must be one of frozen"),
    ],
)
def test_what_cannot_be_changed(changes, message):
    with pytest.raises(ScheduleError, match=message):
        vary(two_stage(), changes)


def test_a_change_twice_and_a_head_that_is_not_there():
    with pytest.raises(ScheduleError, match="rate is given twice"):
        split_variant("a+rate=1+rate=2")
    with pytest.raises(ScheduleError, match="has only one stage"):
        vary(head_only(), {"head_rate": "1e-3"})
