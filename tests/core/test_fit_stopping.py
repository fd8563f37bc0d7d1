"""A run that is asked to stop: it ends after the step under way, and keeps what it has."""

import keras
import pytest

from faults import leavings
from small_runs import LONG, TWO, assert_same_weights, make, run, whole
from unfreeze.core import run_state
from unfreeze.core.callbacks import StageCallback
from unfreeze.core.schedule import Stage
from unfreeze.errors import Stopped


class StopAfter(StageCallback):
    """Wants to stop once so many steps have begun; counts those that begin all the same."""

    def __init__(self, steps):
        super().__init__()
        self.steps, self.begun = steps, 0

    def on_train_batch_begin(self, batch, logs=None):
        self.begun += 1

    def wants_to_stop(self):
        return self.begun >= self.steps


class Notes(StageCallback):
    def __init__(self):
        super().__init__()
        self.texts = []

    def on_note(self, text):
        self.texts.append(text)


def resumed(folder):
    model, notes = make(), Notes()
    run(model, LONG, run_dir=folder, callbacks=[notes])
    return model, [note for note in notes.texts if "resumes after" in note]


# Where steps are several in a call, an epoch of 3 is one call.
@pytest.mark.slow_on("jax")
@pytest.mark.parametrize("epochs", [1, 3, 4])
def test_what_was_done_is_kept_to_the_end_of_the_last_epoch(epochs, tmp_path, monkeypatch):
    # Never time to write by itself: all is kept at the end.
    monkeypatch.setattr(run_state.Checkpointer, "_is_time", lambda self: False)
    monkeypatch.setattr(run_state.Checkpointer, "_is_time_to_copy", lambda self: True)
    monkeypatch.setattr("unfreeze.core.stage_fit._STEPS", 1)
    stop = StopAfter(3 * epochs + 2)
    with pytest.raises(Stopped):
        run(make(), LONG, run_dir=tmp_path, callbacks=[stop])
    # The step that was under way was the last one.
    assert stop.begun == 3 * epochs + 2
    assert leavings(tmp_path) == []
    model, went_on = resumed(tmp_path)
    stage, done = ("head", epochs) if epochs < 3 else ("all", epochs - 3)
    assert went_on == ([f"stage {stage!r} resumes after epoch {done}"] if done else [])
    assert_same_weights(whole(LONG).model, model)


@pytest.mark.slow_on("jax")
def test_a_stage_that_has_ended_is_recorded_before_it_stops(tmp_path):
    class AtTheEnd(StopAfter):
        def on_epoch_end(self, epoch, logs=None):
            self.begun = 99 if epoch == 2 else 0

    with pytest.raises(Stopped):
        run(make(), LONG, run_dir=tmp_path, callbacks=[AtTheEnd(99)])
    assert (tmp_path / "stage_1.safetensors").is_file()
    assert not (tmp_path / "stage_2.safetensors").exists()
    model, _ = resumed(tmp_path)
    assert_same_weights(whole(LONG).model, model)


@pytest.mark.slow_on("jax")
def test_while_the_frozen_layers_run_it_stops_at_once_and_leaves_no_half_cache(tmp_path):
    class InTheCache(StopAfter):
        def on_cache(self, what, done, total):
            self.begun += 1

    with pytest.raises(Stopped):
        run(make(), TWO, run_dir=tmp_path, callbacks=[InTheCache(1)])
    # That of the training data was done; that of the validation data is not there.
    assert leavings(tmp_path) == []
    (home,) = (tmp_path / "cache").iterdir()
    assert (home / "meta.json").is_file()
    run(make(), TWO, run_dir=tmp_path)


def test_stopping_is_no_error_that_is_caught_by_chance():
    assert issubclass(Stopped, KeyboardInterrupt)
    assert not issubclass(Stopped, Exception)


@pytest.mark.slow_on("jax")
def test_to_be_asked_costs_no_waiting_for_each_step(monkeypatch):
    """Keras waits for each step's numbers where a callback has a hook at its end."""
    lists = []
    original = keras.callbacks.CallbackList.__init__

    def spy(self, *args, **kwargs):
        original(self, *args, **kwargs)
        lists.append(self)

    monkeypatch.setattr(keras.callbacks.CallbackList, "__init__", spy)
    run(schedule=[Stage("s", "all", epochs=1)])
    expected = keras.src.backend.IS_THREAD_SAFE
    assert lists
    assert {found._async_train for found in lists} == {expected}
