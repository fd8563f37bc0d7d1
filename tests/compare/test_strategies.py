"""What can be compared, and what is refused before any work."""

from pathlib import Path

import pytest

from unfreeze.compare.strategies import CompareOptions, read_strategy
from unfreeze.core.presets import two_stage
from unfreeze.core.schedule_file import write_schedule
from unfreeze.errors import ScheduleError, UnfreezeError
from unfreeze.pipeline.train_options import HEAD, TrainOptions


def options(**changes):
    return CompareOptions(TrainOptions(Path("data")), Path("out"), **changes)


def test_a_strategy_by_name():
    found = read_strategy("two_stage+rate=3e-4")
    assert (found.name, found.fuse) == ("two_stage+rate=3e-4", True)
    assert found.schedule.stages[1].learning_rate == 3e-4
    assert found.schedule.stages[0].train == HEAD


def test_unfused_is_a_strategy():
    found = read_strategy("two_stage+fuse=off+rate=3e-4")
    assert not found.fuse
    assert found.schedule.stages[1].learning_rate == 3e-4
    assert read_strategy("two_stage+fuse=on").fuse
    with pytest.raises(ScheduleError, match="fuse=maybe must be on or off"):
        read_strategy("two_stage+fuse=maybe")


def test_changes_of_training_options_are_checked_like_these():
    found = read_strategy("probe+taps=block4_*+augment=light+class_weight=mine.yaml")
    assert (found.taps, found.augment, found.class_weight) == ("block4_*", "light", "mine.yaml")
    with pytest.raises(UnfreezeError, match=r"augment is 'lihgt'.*Did you mean 'light'"):
        read_strategy("probe+augment=lihgt")


def test_epochs_are_a_bound():
    found = read_strategy("two_stage", epochs=50)
    assert [stage.epochs for stage in found.schedule] == [50, 30]


def test_a_file_is_a_strategy(tmp_path):
    file = tmp_path / "mine.yaml"
    write_schedule(two_stage(HEAD), file)
    assert read_strategy(str(file)).schedule == two_stage(HEAD)
    assert read_strategy(f"{file}+rate=5e-5").schedule.stages[1].learning_rate == 5e-5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 0}, "seeds is 0"),
        ({"folds": 3, "holdout": ("a",)}, "give one of them"),
        ({"strategies": ()}, "no strategy"),
        ({"strategies": ("full", "full")}, "'full' is given twice"),
    ],
)
def test_refused(changes, message):
    with pytest.raises(UnfreezeError, match=message):
        options(**changes)
