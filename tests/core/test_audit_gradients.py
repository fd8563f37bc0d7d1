"""Weights without a gradient are a warning that names them; wrong flags stay an error."""

import json
import logging

import keras
import numpy as np
import pytest
from keras import layers

from unfreeze import Stage, StageError, UnfreezeSchedule, fit
from unfreeze.core.audit import audit_stage, enforce, snapshot
from unfreeze.core.graph import flatten
from unfreeze.core.layers import check, select, unlearned_norms
from unfreeze.core.schedule import Schedule

X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
Y = np.arange(32) % 2
ALL = Stage("all", train="all", epochs=2)


def make(dead: int = 1) -> keras.Model:
    """Dense layers side by side, the first of them with units that output zero everywhere."""
    keras.utils.set_random_seed(0)
    x = keras.Input((6,))
    parts = [layers.Dense(4, "relu", name=f"part_{i}")(x) for i in range(3)]
    model = keras.Model(x, layers.Dense(2, "softmax", name="top")(layers.Concatenate()(parts)))
    for number in range(dead):
        model.get_layer(f"part_{number}").bias.assign([-1e3] * 4)
    return model


def train(model: keras.Model, own_fit: bool):
    if not own_fit:
        return fit(model, [ALL], (X, Y), batch_size=16, seed=0, verbose=0).audit
    model.compile("adam", "sparse_categorical_crossentropy")
    callback = UnfreezeSchedule([ALL])
    model.fit(X, Y, batch_size=16, epochs=2, verbose=0, callbacks=[callback])
    return callback.audit


@pytest.mark.parametrize("own_fit", [False, True])
@pytest.mark.slow_on("jax")
@pytest.mark.on_each_backend
def test_a_dead_layer_is_named_and_the_rest_trains(own_fit, caplog):
    with caplog.at_level(logging.WARNING, "unfreeze"):
        audit = train(make(), own_fit)
    told = [r.getMessage() for r in caplog.records if "no gradient" in r.getMessage()]
    assert len(told) == 1
    assert "stage 'all': part_0 (kernel, bias) had no gradient in the first epoch" in told[0]
    assert "units that output zero for every sample" in told[0]
    rows = {row.layer: row for row in audit.stages[0].layers}
    assert rows["part_0"].no_gradient == ("kernel", "bias")
    assert rows["part_0"].moved == 0.0
    assert all(rows[name].moved > 0 for name in ("part_1", "part_2", "top"))
    assert "trained, no gradient: kernel, bias" in str(audit)
    plain = json.loads(json.dumps(audit.as_list()))[0]["layers"]
    assert [row.get("no_gradient") for row in plain if row["weights"]].count(
        ["kernel", "bias"]
    ) == 1


def test_a_stage_of_which_most_is_dead_has_unfrozen_nothing():
    # Nothing reaches the last layer either: only its bias moves.
    with pytest.raises(StageError, match=r"\(4 of 4 layers\): part_.*Likely cause: no path"):
        fit(make(3), [ALL], (X, Y), batch_size=16, seed=0, verbose=0)


def test_what_the_optimizer_does_not_have_was_left_out_by_a_flag():
    model = make(0)
    selection, before = select(flatten(model), ALL), snapshot(model)
    moving = [v for v in model.trainable_variables if "part_0" not in v.path]
    optimizer = keras.optimizers.SGD()
    optimizer.build(moving)
    for variable in moving:
        variable.assign(keras.ops.convert_to_numpy(variable) + 1.0)
    audit = audit_stage(model, selection, before, optimizer)
    row = next(layer for layer in audit.layers if layer.layer == "part_0")
    assert (row.trained_still, row.no_gradient) == (("kernel", "bias"), ())
    with pytest.raises(StageError, match=r"\(1 of 4 layers\): part_0 \(kernel, bias\)"):
        enforce(audit)
    optimizer = keras.optimizers.SGD()
    optimizer.build(model.trainable_variables)
    audit = audit_stage(model, selection, before, optimizer)
    assert "part_0 (kernel, bias) had no gradient" in str(enforce(audit, known="a cold"))
    assert str(enforce(audit, known="a cold")).endswith("Likely cause: a cold")


def normed() -> keras.Model:
    x = keras.Input((6, 6, 1))
    y = layers.BatchNormalization(name="low")(layers.Conv2D(2, 3, name="conv")(x))
    y = layers.GlobalAveragePooling2D()(layers.BatchNormalization(name="high")(y))
    return keras.Model(x, layers.Dense(2, "softmax", name="top")(y))


def stages(*policies: str):
    graph = flatten(normed())
    own = [Stage(p + str(i), "all", batch_norm=p) for i, p in enumerate(policies)]
    return check(graph, Schedule([Stage("head", train="head"), *own]))


def test_batch_norm_that_nothing_has_trained_is_named_once_with_the_stages_that_keep_it():
    text = unlearned_norms(stages("frozen", "train", "affine"))
    assert "layers low, high have no statistics yet (mean 0, variance 1), and stages " in text
    assert "'head', 'frozen0' keep them like that" in text
    assert text.endswith("begin with a stage that trains them: train='all', batch_norm='train'")
    assert unlearned_norms(stages("train")[1:]) is None


def test_batch_norm_that_was_folded_or_trained_is_not():
    selections = stages("frozen")
    low, high = (e.norms[0] for e in selections[0].entries if e.norms)
    low.gamma.assign([2.0, 3.0])
    high.moving_mean.assign([0.1, 0.2])
    assert unlearned_norms(selections) is None
