"""What moved is measured to the bit, and a stage that did something else fails."""

import json
import re

import keras
import numpy as np
import pytest
from keras import layers

from unfreeze.core.audit import Audit, audit_stage, enforce, snapshot
from unfreeze.core.graph import flatten
from unfreeze.core.layers import apply, select
from unfreeze.core.schedule import Stage
from unfreeze.errors import StageError


def make() -> keras.Model:
    x = keras.Input((3,))
    y = layers.Dense(3, name="base", bias_initializer="ones")(x)
    y = layers.BatchNormalization(name="bn")(y)
    return keras.Model(x, layers.Dense(2, name="head")(y))


def select_in(model: keras.Model, train="head", **options):
    selection = select(flatten(model), Stage("probe", train, **options))
    apply(model, selection)
    return selection


def shift(variable, by=0.5):
    variable.assign(keras.ops.convert_to_numpy(variable) + by)


def test_movement_is_the_norm_of_the_change_over_the_norm_before():
    model = make()
    head = model.get_layer("head")
    head.kernel.assign(np.full((3, 2), 2.0))
    selection, before = select_in(model), snapshot(model)
    head.kernel.assign(np.full((3, 2), 2.0) + [[0.3, 0.0]] * 3)
    shift(head.bias, 0.1)
    audit = audit_stage(model, selection, before)
    rows = {row.layer: row for row in audit.layers}
    wanted = np.sqrt(3 * 0.3**2 + 2 * 0.1**2) / np.sqrt(6 * 4.0)
    assert rows["head"].moved == pytest.approx(wanted, rel=1e-6)
    assert rows["head"].max_abs == pytest.approx(0.3)
    assert (rows["head"].weights, rows["head"].trainable) == (8, True)
    assert (rows["base"].moved, rows["base"].max_abs, rows["base"].trainable) == (0.0, 0.0, False)
    assert [row.layer for row in audit.layers] == ["base", "bn", "head"]
    enforce(audit)


def test_weights_that_were_zero_count_by_their_size():
    model = make()
    model.get_layer("head").kernel.assign(np.zeros((3, 2)))
    selection, before = select_in(model), snapshot(model)
    shift(model.get_layer("head").bias, 3.0)
    shift(model.get_layer("head").kernel, 1e-9)
    row = audit_stage(model, selection, before).layers[-1]
    assert row.moved == pytest.approx(np.sqrt(2 * 9.0))


def test_the_smallest_change_of_a_frozen_weight_is_seen():
    model = make()
    selection, before = select_in(model), snapshot(model)
    shift(model.get_layer("head").kernel), shift(model.get_layer("head").bias)
    bias = model.get_layer("base").bias
    bias.assign(np.nextafter(keras.ops.convert_to_numpy(bias), np.float32(9)))
    audit = audit_stage(model, selection, before)
    assert audit.layers[0].frozen_moved == ("bias",)
    with pytest.raises(StageError, match=r"keeps frozen: base \(bias\)"):
        enforce(audit)


def test_statistics_of_batch_norm_count_unless_the_policy_lets_them_move():
    for policy in ("frozen", "affine", "train"):
        model = make()
        selection = select_in(model, "all", batch_norm=policy)
        before = snapshot(model)
        for variable in selection.trained:
            shift(variable)
        shift(model.get_layer("bn").moving_mean)
        audit = audit_stage(model, selection, before)
        if policy == "train":
            enforce(audit)
        else:
            with pytest.raises(StageError, match=r"bn \(moving_mean\)"):
                enforce(audit)


def test_what_claims_to_train_and_stands_still_fails_the_stage():
    model = make()
    selection, before = select_in(model, ["base", "head"]), snapshot(model)
    shift(model.get_layer("head").kernel), shift(model.get_layer("head").bias)
    with pytest.raises(StageError, match=re.escape("base (kernel, bias). Likely cause: no path")):
        enforce(audit_stage(model, selection, before))


def test_nothing_moved_at_all_points_to_compile():
    model = make()
    selection, before = select_in(model, "all"), snapshot(model)
    with pytest.raises(StageError, match=r"Nothing moved at all.*after `compile`"):
        enforce(audit_stage(model, selection, before))


def test_a_bias_without_a_gradient_is_shown_but_is_no_failure():
    model = make()
    selection, before = select_in(model), snapshot(model)
    shift(model.get_layer("head").kernel)
    audit = audit_stage(model, selection, before)
    assert audit.layers[-1].trained_still == ("bias",)
    enforce(audit)
    # A kernel that stands still while the bias moves is one.
    before = snapshot(model)
    shift(model.get_layer("head").bias)
    with pytest.raises(StageError, match="kernel"):
        enforce(audit_stage(model, selection, before))


def test_long_lists_of_layers_are_cut_short():
    x = y = keras.Input((2,))
    for i in range(8):
        y = layers.Dense(2, name=f"layer{i}")(y)
    model = keras.Model(x, y)
    selection, before = select_in(model, "all"), snapshot(model)
    with pytest.raises(StageError, match=r"layer4 \(kernel, bias\) and 3 more"):
        enforce(audit_stage(model, selection, before))


def test_not_a_number_that_stays_one_has_not_moved():
    model = make()
    model.get_layer("base").kernel.assign(np.full((3, 3), np.nan))
    selection, before = select_in(model), snapshot(model)
    shift(model.get_layer("head").kernel), shift(model.get_layer("head").bias)
    assert audit_stage(model, selection, before).layers[0].frozen_moved == ()


def test_a_trained_weight_that_is_not_a_number_is_a_fault_and_has_not_moved():
    model = make()
    selection, before = select_in(model), snapshot(model)
    head = model.get_layer("head")
    shift(head.bias)
    head.kernel.assign(np.full(head.kernel.shape, np.nan))
    audit = audit_stage(model, selection, before)
    row = audit.layers[-1]
    assert row.not_finite == ("kernel",)
    assert np.isnan(row.moved)
    assert str(audit).endswith("NOT FINITE: kernel")
    assert audit.as_dict()["layers"][-1]["moved"] is None
    with pytest.raises(StageError, match=r"weights that are not finite: head \(kernel\)"):
        enforce(audit, still=True)


def test_the_snapshot_is_a_copy():
    model = make()
    before = snapshot(model)
    bias = model.get_layer("base").bias
    shift(bias)
    np.testing.assert_array_equal(before[id(bias)], np.ones(3))


def test_it_prints_as_a_table_and_goes_into_json():
    model = make()
    selection, before = select_in(model), snapshot(model)
    shift(model.get_layer("head").kernel)
    audit = Audit((audit_stage(model, selection, before),))
    lines = str(audit).splitlines()
    assert lines[0] == "stage probe"
    assert re.search(r"base +12 +0\.00e\+00 +frozen$", lines[2])
    assert re.search(r"head +8 +\d\.\d\de[+-]\d\d +trained$", lines[4])
    plain = json.loads(json.dumps(audit.as_list(), allow_nan=False))
    assert plain[0]["stage"] == "probe"
    assert plain[0]["layers"][0] == {
        "layer": "base",
        "weights": 12,
        "trainable": False,
        "moved": 0.0,
        "max_abs": 0.0,
    }
    assert plain[0]["layers"][2]["trained_still"] == ["bias"]
