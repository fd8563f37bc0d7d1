"""The time that a run will take: what is measured, what is left alone, what is said."""

import logging

import numpy as np
import pytest

from small_runs import (
    HEAD,
    HELD,
    TWO,
    Batches,
    X,
    Y,
    assert_same_weights,
    make,
    run,
    weights_of,
    whole,
)
from unfreeze.cache_room import CacheRoom
from unfreeze.core import estimate as module
from unfreeze.core.boundary import plan_stage
from unfreeze.core.callbacks import StageCallback
from unfreeze.core.data import as_data
from unfreeze.core.estimate import StageTime, estimate_stages, in_words
from unfreeze.core.graph import flatten
from unfreeze.core.layers import check
from unfreeze.core.schedule import Schedule, Stage
from unfreeze.core.stage_caching import Source, Whole

# There is no estimate on JAX, which compiles each operation.
step_by_step = pytest.mark.needs_backend("tensorflow", "torch")


class Heard(StageCallback):
    def __init__(self):
        super().__init__()
        self.notes = []

    def on_note(self, text):
        self.notes.append(text)


def estimate(model, schedule, folder, train=(X, Y), held=HELD):
    graph = flatten(model)
    source = Source(as_data(train, model), as_data(held, model), {})
    return estimate_stages(
        Whole(model, graph), check(graph, schedule), source, CacheRoom(folder), 8
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"), (99.4, "99 s"), (100, "1 min 40 s"), (199, "3 min 20 s"), (241, "4 min"),
        (5999, "1 h 40 min"), (7300, "2 h 2 min"),
    ],
)  # fmt: skip
def test_durations_in_words(seconds, words):
    assert in_words(seconds) == words


@step_by_step
@pytest.mark.parametrize("policy", ["frozen", "train"])
def test_measuring_leaves_the_weights_as_they_were(policy, tmp_path):
    model = make()
    before = weights_of(model)
    stages = Schedule((*TWO, Stage("more", "all", epochs=3, batch_norm=policy)))
    times = estimate(model, stages, tmp_path)
    assert [(t.stage, t.epochs) for t in times] == [("head", 2), ("all", 2), ("more", 3)]
    assert all(t.prepare >= 0 and t.epoch > 0 for t in times)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow_on("tensorflow")
@step_by_step
def test_a_run_that_is_estimated_is_the_same_run():
    told, heard = make(), Heard()
    run(told, callbacks=[heard])
    assert_same_weights(whole(TWO).model, told)
    assert heard.notes[0].startswith("about ")
    assert heard.notes[0].count("if no stage ends early (head ") == 1


@step_by_step
def test_the_frozen_part_counts_once_where_it_is_cached(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_forward_seconds", lambda whole, data: 1.0)
    cached = Stage("cached", "head", epochs=10)
    never = Stage("never", "head", epochs=10, cache="never")
    model = make()
    one, two = estimate(model, Schedule((cached, never)), tmp_path)
    plan = plan_stage(flatten(model), check(flatten(model), Schedule((cached,)))[0])
    held, n = len(HELD[0]), len(X)
    # Multiply-adds: 3x3x2x3 at 4x4 places in the base, 3x2 in the head.
    assert plan.prefix_work == pytest.approx(54 * 16 / (54 * 16 + 6))
    frozen = plan.prefix_work * (n + held)
    assert one.prepare - two.prepare == pytest.approx(frozen, abs=1.0)
    assert two.epoch - one.epoch == pytest.approx(frozen, abs=0.01)
    assert two.seconds > 5 * one.seconds


def test_a_stage_takes_its_preparation_and_its_epochs():
    assert StageTime("s", prepare=3.0, epoch=0.5, epochs=10).seconds == 8.0


@step_by_step
def test_what_cannot_be_told_is_not_told(tmp_path):
    assert estimate(make(), TWO, tmp_path, Batches(), HELD) == ()
    idle = Schedule((Stage("idle", "head", epochs=0), *TWO))
    assert [t.stage for t in estimate(make(), idle, tmp_path)] == ["head", "all"]


@pytest.mark.slow_on("tensorflow")
@step_by_step
def test_nothing_is_measured_where_nobody_hears(monkeypatch, caplog):
    calls = []
    monkeypatch.setattr("unfreeze.core.fit.estimate_stages", lambda *a: calls.append(a) or ())
    with caplog.at_level(logging.WARNING, "unfreeze"):
        run(schedule=HEAD)
    assert calls == []
    with caplog.at_level(logging.INFO, "unfreeze"):
        run(schedule=HEAD)
    assert len(calls) == 1


@pytest.mark.slow_on("tensorflow")
@step_by_step
def test_finished_stages_do_not_count(tmp_path):
    heard = Heard()
    run(make(), HEAD, run_dir=tmp_path / "run")
    run(make(), HEAD, run_dir=tmp_path / "run", callbacks=[heard])
    assert not any(note.startswith("about") for note in heard.notes)
