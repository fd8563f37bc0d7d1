"""The run folder: what is kept, and when a run may go on."""

import json
import math

import keras
import numpy as np
import pytest
from keras import layers

from unfreeze.core.audit import LayerMovement, StageAudit
from unfreeze.core.run_state import (
    StageResult,
    finished_stages,
    identity,
    load_weights,
    recorded_seed,
    write_stage,
)
from unfreeze.core.schedule import Plateau, Schedule, Stage
from unfreeze.errors import RunError

SCHEDULE = Schedule((Stage("a", "head"), Stage("b", until=Plateau())))


def make(value=0.0) -> keras.Model:
    x = keras.Input((2,))
    model = keras.Model(x, layers.Dense(1, name="head")(x))
    model.set_weights([np.full(w.shape, value) for w in model.weights])
    return model


def result_of(name: str, **changes) -> StageResult:
    rows = ({"stage": name, "epoch": 1, "step": 1, "loss": 0.5, "best": True},)
    still = LayerMovement("head", 3, True, 0.1, 0.2, (), ("bias",))
    fields = {
        "stage": name,
        "epochs": 1,
        "best_epoch": 1,
        "monitor": "loss",
        "best_value": 0.5,
        "seconds": 1.5,
        "cache": "not cached",
        "trained_weights": 3,
        "audit": StageAudit(name, (still,)),
        "rows": rows,
    }
    return StageResult(**{**fields, **changes})


def run_of(schedule=SCHEDULE, seed=1, data=None, settings=None, trained=None):
    data, settings = data or {"train": "abc"}, settings or {"batch_size": 32}
    return identity(schedule, seed, data, settings, trained or {"head": [0, 1]})


def test_what_is_written_comes_back(tmp_path):
    run = run_of()
    assert finished_stages(tmp_path, run) == []
    assert recorded_seed(tmp_path) is None
    first, second = result_of("a"), result_of("b")
    write_stage(tmp_path, run, [first], make(1.0))
    write_stage(tmp_path, run, [first, second], make(2.0))
    found = finished_stages(tmp_path, run)
    assert [result for result, _ in found] == [first, second]
    assert recorded_seed(tmp_path) == 1
    model = make()
    for value, (_, weights) in zip((1.0, 2.0), found, strict=True):
        load_weights(model, weights)
        assert all((w == value).all() for w in model.get_weights())
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "fit.json",
        "stage_1.safetensors",
        "stage_2.safetensors",
    ]


def test_metrics_that_are_no_numbers_are_null_in_the_file(tmp_path):
    rows = ({"stage": "a", "epoch": 1, "loss": 0.5, "odd": math.nan, "best": True},)
    write_stage(tmp_path, run_of(), [result_of("a", rows=rows)], make())
    text = (tmp_path / "fit.json").read_text()
    assert '"odd": null' in text
    ((found, _),) = finished_stages(tmp_path, run_of())
    assert math.isnan(found.rows[0]["odd"])


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 2}, "seed"),
        ({"data": {"train": "xyz"}}, "data"),
        ({"settings": {"batch_size": 64}}, "settings"),
        ({"schedule": SCHEDULE.with_changes(epochs=3)}, "schedule"),
        ({"schedule": Schedule((Stage("a", "head"),))}, "schedule"),
        ({"seed": 2, "data": {"train": "xyz"}}, "seed and data"),
    ],
)
def test_another_run_is_refused_and_told_by_what(tmp_path, changed, named):
    write_stage(tmp_path, run_of(), [result_of("a")], make())
    with pytest.raises(RunError, match=f"another {named}:.*another run_dir"):
        finished_stages(tmp_path, run_of(**changed))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"format": 2}', '{"format": 2, "run": {}, "stages": [{}]}']
)
def test_a_record_that_cannot_be_read_is_named_with_the_cure(tmp_path, text):
    (tmp_path / "fit.json").write_text(text)
    with pytest.raises(RunError, match=r"fit\.json cannot be read.*delete it"):
        finished_stages(tmp_path, {})


def test_other_formats_and_lost_weights_are_refused(tmp_path):
    write_stage(tmp_path, run_of(), [result_of("a")], make())
    (tmp_path / "stage_1.safetensors").unlink()
    with pytest.raises(RunError, match=r"stage_1\.safetensors is missing"):
        finished_stages(tmp_path, run_of())
    record = json.loads((tmp_path / "fit.json").read_text())
    (tmp_path / "fit.json").write_text(json.dumps({**record, "format": 99}))
    with pytest.raises(RunError, match="format 99"):
        finished_stages(tmp_path, run_of())


def test_everything_that_a_stage_may_hold_becomes_plain_data_and_tells_runs_apart():
    decay = keras.optimizers.schedules.CosineDecay
    dense = layers.Dense(1, name="mine")

    def chooser(layer):
        return True

    stages = [
        Stage("s", "head"),
        Stage("s", dense),
        Stage("s", chooser),
        Stage("s", ["head", "top:1"]),
        Stage("s", learning_rate=np.float32(0.5)),
        Stage("s", learning_rate=0.25),
        Stage("s", learning_rate=decay(1e-3, 10)),
        Stage("s", learning_rate=decay(1e-3, 20)),
        Stage("s", learning_rate={"default": 0.1, "head": 2.0}),
        Stage("s", optimizer=keras.optimizers.SGD(momentum=0.9)),
        Stage("s", optimizer=keras.optimizers.SGD(momentum=0.8)),
        Stage("s", until=Plateau(patience=2)),
        Stage("s", callbacks=[keras.callbacks.TerminateOnNaN()]),
    ]
    runs = [json.dumps(run_of(Schedule((stage,))), allow_nan=False) for stage in stages]
    assert len(set(runs)) == len(stages)
    again = json.dumps(run_of(Schedule((Stage("s", learning_rate=decay(1e-3, 10)),))))
    assert again == runs[6]
    assert run_of(Schedule((stages[4],))) == json.loads(runs[4])
