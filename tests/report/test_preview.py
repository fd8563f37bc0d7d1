"""`unfreeze.plan` says what `unfreeze plan` prints, and changes nothing."""

import numpy as np
import pytest

import unfreeze
from graphs import three_blocks
from unfreeze.core.schedule import Schedule, Stage
from unfreeze.errors import ScheduleError


@pytest.fixture(scope="module")
def model():
    return three_blocks()


def test_a_plan_prints_as_a_table(model):
    flags = [layer.trainable for layer in model.layers]
    found = unfreeze.plan(model, "gradual")
    text = str(found)
    assert text.splitlines()[0] == f"gradual on {model.name}"
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    assert "≤ 100  transfer_dense … transfer_out" in lines["head"]
    assert " 256 B" in lines["top 1/4"]
    assert "455 weights in 8 layers in all." in text
    assert max(map(len, text.splitlines()[:-1])) <= 100
    assert [layer.trainable for layer in model.layers] == flags


def test_the_work_of_a_step_counts_forward_and_backward(model):
    head, top, whole = unfreeze.plan(
        model,
        [
            Stage("head", "head"),
            Stage("top", ["head", "top:1"], cache="never"),
            Stage("all", epochs=3),
        ],
    ).stages
    assert head.step_work == pytest.approx(1 - head.prefix_work)
    # Without a cache the frozen part runs forward, a third of a step.
    assert top.step_work == pytest.approx(1 - top.prefix_work * 2 / 3)
    assert whole.step_work == 1.0
    assert "all 100 %" in str(unfreeze.plan(model, "full"))


def test_a_notebook_sees_the_same(model):
    html = unfreeze.plan(model, Schedule([Stage("<b>", "head"), Stage("all")]))._repr_html_()
    assert "<td style='text-align:left'>&lt;b&gt;</td>" in html
    assert "transfer_dense … transfer_out" in html
    assert "0.0 KB per sample" in html
    assert "455 weights in 8 layers in all." in html


def test_what_does_not_fit_is_refused(model):
    with pytest.raises(ScheduleError, match="no_such_layer"):
        unfreeze.plan(model, Stage("a", "no_such_layer"))
    with pytest.raises(ScheduleError, match="plan: `model` is an object of type ndarray"):
        unfreeze.plan(np.zeros(3), "probe")
