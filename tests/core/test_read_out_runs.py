"""Runs of the default preset on a read-out: what moves, what is cached, what is resumed."""

import functools

import keras
import numpy as np
import pytest

from headless import IDS, X, Y, images, tokens
from unfreeze.core.callbacks import StageCallback
from unfreeze.core.fit import fit
from unfreeze.core.presets import preset, vary
from unfreeze.core.read_out import HEAD, PROJECTION, read_out
from unfreeze.core.regression import STRENGTHS
from unfreeze.core.schedule import Schedule
from unfreeze.errors import Stopped


def adapted(last: str = "relu") -> keras.Model:
    return read_out(images(last), 3, components=8, data=X[:40], seed=1)


SHORT = vary(preset("probe_tune"), {"head_epochs": "2", "epochs": "2"})
SOLVED = Schedule(SHORT.stages[:1], monitor="auto")


def run(model: keras.Model, schedule: Schedule = SHORT, data=(X, Y), **options):
    """A run on 40 samples, with the others held out."""
    train, held = (tuple(part[span] for part in data) for span in (slice(40), slice(40, None)))
    options = {"validation_data": held, "batch_size": 20, "seed": 1, "verbose": 0, **options}
    return fit(model, schedule, train, **options)


def told(rows) -> list[dict]:
    """Rows without the clock."""
    return [{**row, "seconds": 0} for row in rows]


class Heads(StageCallback):
    """Keeps the head's weights at the end of each stage."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.layer, self.kept = model.get_layer(HEAD), []

    def on_stage_end(self, result):
        self.kept.append(self.layer.get_weights())


@functools.cache
def unbroken():
    """A run of the preset, and the head after each stage: only to look at."""
    model = adapted()
    heads = Heads(model)
    return run(model, callbacks=[heads]), heads.kept


def test_the_default_preset_moves_what_should_move():
    result, _ = unbroken()
    head, start, rest = result.audit.stages
    for solved in (head, start):
        assert [layer.layer for layer in solved.layers if layer.trainable] == [HEAD]
        assert all(layer.moved == 0 for layer in solved.layers if layer.layer != HEAD)
    assert [layer.layer for layer in head.layers if layer.max_abs > 0] == [HEAD]
    moved = {layer.layer for layer in rest.layers if layer.max_abs > 0}
    assert moved == {"block1_conv", "block2_conv", "block3_conv", HEAD}
    (fixed,) = (layer for layer in rest.layers if layer.layer == PROJECTION)
    assert (fixed.moved, fixed.trainable) == (0.0, False)
    caches = [stage.cache.split(":")[0] for stage in result.stages]
    assert caches == ["cached", "reused", "not cached"]
    assert tuple(row["C"] for row in result.stages[0].rows) == STRENGTHS[:2]
    assert tuple(row["C"] for row in result.stages[1].rows) == STRENGTHS[:1]
    assert len(result.stages[2].rows) == 2


@pytest.mark.slow_on("jax")
@pytest.mark.parametrize("make", [images, tokens])
def test_the_cached_head_is_scored_as_the_whole_model_is(make):
    """With dropout at the end of the network, and with masks inside of it."""
    data = (X, Y) if make is images else (IDS, Y)
    base = make("dropout") if make is images else make()
    model = read_out(base, 3, components=8, data=data[0][:40])
    (stage,) = run(model, SOLVED, data).stages
    assert stage.cache.startswith("cached")
    best = stage.rows[stage.best_epoch - 1]
    whole = model.evaluate(data[0][40:], data[1][40:], verbose=0, return_dict=True)
    assert best["val_loss"] == pytest.approx(whole["loss"], abs=1e-5)
    assert best["val_accuracy"] == pytest.approx(whole["accuracy"])
    assert best["loss"] < np.log(3)


@pytest.mark.slow_on("jax")
def test_a_solved_stage_gives_the_same_bits_each_time():
    model = adapted()
    (again,) = run(model, SOLVED).stages
    result, (head, *_) = unbroken()
    # Alone it is compared with no later stage, so that its error is not asked for.
    whole = told(result.stages[0].rows)
    for row in whole:
        del row["val_loss_error"]
    assert told(again.rows) == whole
    for a, b in zip(model.get_layer(HEAD).get_weights(), head, strict=True):
        np.testing.assert_array_equal(a, b)


class Stop(StageCallback):
    """Asks to stop after an epoch of a stage."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self.stage, self.now, self.done = stage, "", 0

    def on_stage_begin(self, plan):
        self.now, self.done = plan.stage, 0

    def on_epoch_end(self, epoch, logs=None):
        self.done += 1

    def wants_to_stop(self):
        return self.now == self.stage and self.done > 0


@pytest.mark.slow_on("jax")
@pytest.mark.parametrize("stage", ["head", "start", "all"])
def test_an_interrupted_run_ends_with_the_same_weights(stage, tmp_path):
    with pytest.raises(Stopped):
        run(adapted(), run_dir=tmp_path, callbacks=[Stop(stage)])
    resumed = run(adapted(), run_dir=tmp_path)
    whole, _ = unbroken()
    assert told(resumed.history) == told(whole.history)
    assert resumed.best_stage == whole.best_stage
    for a, b in zip(resumed.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
