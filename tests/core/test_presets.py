"""The named schedules, and the common test that each of them must pass."""

from itertools import pairwise

import pytest

from graphs import three_blocks
from unfreeze.core.graph import flatten
from unfreeze.core.layers import check
from unfreeze.core.presets import (
    PRESETS,
    as_schedule,
    classic,
    gradual,
    head_only,
    preset,
    two_stage,
)
from unfreeze.core.schedule import Plateau, ReduceRate, Schedule, Stage
from unfreeze.errors import ScheduleError


def trained_names(name: str, head: str = "head") -> list[set[str]]:
    selections = check(flatten(three_blocks()), preset(name, head=head))
    return [{variable.path.split("/")[0] for variable in s.trained} for s in selections]


HEAD = {"transfer_dense", "transfer_out"}
CONVS = [f"block{i}_conv" for i in (1, 2, 3)]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("head", ["head", "transfer_*"])
def test_every_preset_fits_a_model_and_ends_with_all_or_the_head(name: str, head: str) -> None:
    stages = trained_names(name, head)
    schedule = preset(name, head=head)
    assert schedule.name.split(":")[0] == name
    assert len(stages) == len(schedule)
    assert all(earlier <= later for earlier, later in pairwise(stages))
    assert stages[0] >= HEAD
    norms = {f"block{i}_bn" for i in (1, 2, 3)} if name == "classic" else set()
    base = {"head_only": set(), "probe": set(), "surgical": {"block1_conv"}}.get(name, set(CONVS))
    last = HEAD | base | norms
    assert stages[-1] == last


def test_classic_is_the_recipe_to_the_letter() -> None:
    schedule = classic("transfer_*")
    assert schedule.monitor == "val_loss"
    assert [stage.train for stage in schedule] == ["transfer_*", "all"]
    for stage in schedule:
        assert stage.epochs == 100
        assert stage.learning_rate == 1e-3
        assert stage.batch_size == 128
        assert stage.batch_norm == "train"
        assert stage.optimizer is None
        assert stage.until is None
        assert stage.reduce == ReduceRate("val_loss", factor=0.5, patience=3)


def test_two_stage_lowers_the_rate_and_keeps_statistics() -> None:
    head, everything = two_stage()
    assert everything.learning_rate == pytest.approx(head.learning_rate / 10)
    assert {head.batch_norm, everything.batch_norm} == {"frozen"}
    assert head.until == Plateau("best", patience=10)
    assert everything.until == Plateau("best", patience=8)


@pytest.mark.parametrize("name", sorted({*PRESETS} - {"classic", "probe", "probe_tune"}))
def test_presets_go_by_accuracy_where_there_is_one(name: str) -> None:
    schedule = preset(name)
    assert schedule.monitor == "auto"
    ends = [stage.until for stage in schedule if stage.until is not None]
    assert ends
    assert {rule.metric for rule in ends if isinstance(rule, Plateau)} == {"best"}


def test_the_head_of_probe_tune_is_chosen_and_the_start_is_strong() -> None:
    head, start, last = preset("probe_tune")
    assert (head.solve, head.epochs, start.solve, start.epochs) == (True, 7, True, 1)
    # The stages are compared by the loss, so a timid start never wins against the head.
    assert preset("probe_tune").monitor == preset("probe").monitor == "val_loss"
    assert (last.decay, last.keep, last.until) == ("cosine", "last", None)


@pytest.mark.parametrize(
    ("groups", "blocks"), [(1, [0, 3]), (2, [0, 2, 3]), (3, [0, 1, 2, 3]), (4, [0, 1, 2, 3, 3])]
)
def test_gradual_goes_down_by_groups(groups: int, blocks: list[int]) -> None:
    graph = flatten(three_blocks())
    selections = check(graph, gradual(groups))
    found = [{v.path.split("/")[0] for v in s.trained} - HEAD for s in selections]
    assert found == [set(CONVS[3 - count :]) for count in blocks]


def test_gradual_needs_a_group() -> None:
    with pytest.raises(ScheduleError, match="groups 0"):
        gradual(0)


def test_head_only_is_one_stage() -> None:
    assert [stage.name for stage in head_only()] == ["head"]


def test_an_unknown_name_names_the_closest() -> None:
    with pytest.raises(ScheduleError, match=r"'two_stages'. Did you mean 'two_stage'.*Known: "):
        preset("two_stages")
    with pytest.raises(ScheduleError, match=r"no schedule is named 'zzz'.*Known: two_stage"):
        preset("zzz")


def test_any_form_of_a_schedule() -> None:
    stage = Stage("a", epochs=1)
    assert as_schedule(stage) == as_schedule([stage]) == as_schedule(Schedule([stage]))
    with pytest.raises(ScheduleError, match=r"schedule is 5: give a Schedule.*two_stage, classic"):
        as_schedule(5)
    with pytest.raises(ScheduleError, match=r"the stage 'a' alone: put it in a list"):
        Schedule(stage)
