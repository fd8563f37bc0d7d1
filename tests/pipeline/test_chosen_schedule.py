from pathlib import Path

import pytest

from unfreeze import Schedule, ScheduleError, Stage, write_schedule
from unfreeze.pipeline.chosen_schedule import checked_schedule, named_schedule, resolve_schedule
from unfreeze.pipeline.train_options import TrainOptions

DATA = Path("data")


def test_presets_take_the_new_layers_as_the_head():
    schedule = resolve_schedule(TrainOptions(DATA))
    assert schedule.name == "probe_tune"
    assert [stage.train for stage in schedule] == ["transfer_*", "transfer_*", "all"]
    gradual = resolve_schedule(TrainOptions(DATA, schedule="gradual"))
    assert [stage.train for stage in gradual] == [
        "transfer_*", ["transfer_*", "top:25%"], ["transfer_*", "top:50%"],
        ["transfer_*", "top:75%"], "all",
    ]  # fmt: skip


def test_the_classic_preset_is_the_recipe_to_the_letter():
    schedule = resolve_schedule(TrainOptions(DATA, schedule="classic"))
    head, everything = schedule.stages
    assert (head.train, everything.train) == ("transfer_*", "all")
    for stage in schedule:
        assert (stage.epochs, stage.learning_rate, stage.batch_size) == (100, 1e-3, 128)
        assert stage.optimizer is None  # Adam
        assert stage.until is None
        assert stage.batch_norm == "train"
        assert (stage.reduce.metric, stage.reduce.factor, stage.reduce.patience) == (
            "val_loss", 0.5, 3,
        )  # fmt: skip


def test_changes_apply_to_every_stage_and_rates_keep_their_ratio():
    options = TrainOptions(DATA, "two_stage", epochs=7, batch_size=16, learning_rate=5e-4)
    schedule = resolve_schedule(options)
    assert [(s.epochs, s.batch_size) for s in schedule] == [(7, 16), (7, 16)]
    assert [s.learning_rate for s in schedule] == pytest.approx([5e-4, 5e-5])
    # A head that is solved has no rate to keep a ratio to.
    head, start, tuned = resolve_schedule(TrainOptions(DATA, "probe_tune", learning_rate=5e-4))
    assert head.solve
    assert start.solve
    assert tuned.learning_rate == pytest.approx(5e-4)


def test_epochs_are_the_most_of_each_stage():
    for epochs, expected in ((7, [7, 5, 5, 5, 7]), (60, [60, 5, 5, 5, 30])):
        options = TrainOptions(DATA, schedule="gradual", epochs=epochs)
        assert [stage.epochs for stage in resolve_schedule(options)] == expected


def test_a_file_is_read(tmp_path):
    mine = Schedule((Stage("mine", train="transfer_*", epochs=3),), name="mine")
    write_schedule(mine, tmp_path / "plan.yaml")
    assert resolve_schedule(TrainOptions(DATA, schedule=str(tmp_path / "plan.yaml"))) == mine


def test_a_rate_for_a_schedule_with_rates_by_layer_is_refused():
    stage = Stage("a", learning_rate={"default": 1e-3, "conv*": 0.1})
    with pytest.raises(ScheduleError, match="by layer"):
        resolve_schedule(TrainOptions(DATA, schedule=Schedule((stage,)), learning_rate=1.0))


def test_a_head_that_cannot_be_solved_names_the_cure():
    for schedule in ("probe_tune", "probe"):
        with pytest.raises(ScheduleError, match=f"{schedule} solves .* add --schedule two_stage"):
            checked_schedule(TrainOptions(DATA, schedule, taps="none"))
    assert checked_schedule(TrainOptions(DATA, "two_stage", taps="none")).name == "two_stage"


def test_a_rate_without_steps_is_refused():
    with pytest.raises(ScheduleError, match="no effect on probe, whose head is solved"):
        resolve_schedule(TrainOptions(DATA, "probe", learning_rate=1e-3))
    with pytest.raises(ScheduleError, match="'head' is solved: it has no learning rate"):
        named_schedule("probe+rate=3e-4")
    changed, default = (named_schedule(f"probe_tune{more}") for more in ("+rate=3e-4", ""))
    assert changed.stages[2].learning_rate == 3e-4
    assert changed.stages[:2] == default.stages[:2]
    assert [stage.epochs for stage in named_schedule("probe_tune+epochs=3")] == [7, 1, 3]
