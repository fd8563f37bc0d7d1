"""Scores of all predictions for the validation data, in the log of each epoch."""

import keras
import numpy as np
import pytest

from small_runs import HEAD, HELD, TWO, Batches, X, assert_same_weights, make, run, weights_of
from unfreeze.core import run_state
from unfreeze.core.callbacks import PREFERRED, StageCallback, ValidationScores, resolve
from unfreeze.core.schedule import Plateau, Schedule, Stage
from unfreeze.errors import StageError, Stopped


def solved_by(monitor: str) -> Schedule:
    return Schedule((Stage("head", "head", epochs=3, solve=True),), monitor=monitor)


class Score:
    """Given values, one for each call; keeps the predictions."""

    def __init__(self, *values: float, name: str = "odd_score") -> None:
        self.values, self.name, self.seen = list(values), name, []

    def __call__(self, predictions):
        self.seen.append(np.array(predictions))
        return {self.name: self.values[len(self.seen) - 1]}


class Weights(keras.callbacks.Callback):
    """The weights after each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = []

    def on_epoch_end(self, epoch, logs=None):
        self.kept.append(weights_of(self.model.owner))


@pytest.mark.parametrize("cache", ["always", "never"])
def test_scores_join_the_log_and_choose_the_best_epoch(cache):
    score, weights, model = Score(0.3, 0.8, 0.5), Weights(), make()
    stage = Stage("head", "head", epochs=3, learning_rate=0.05, cache=cache)
    schedule = Schedule((stage,), monitor="val_odd_score")
    result = run(model, schedule, validation_scores=score, callbacks=[weights])
    assert [row["val_odd_score"] for row in result.history] == [0.3, 0.8, 0.5]
    assert result.stages[0].best_epoch == 2
    assert (result.stages[0].monitor, result.stages[0].best_value) == ("val_odd_score", 0.8)
    for a, b in zip(weights.kept[1], model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    # All samples, in order, as the whole model sees them.
    assert [seen.shape for seen in score.seen] == [(8, 2)] * 3
    np.testing.assert_allclose(score.seen[1], model.predict(HELD[0], verbose=0), atol=1e-6)


@pytest.mark.parametrize(
    ("keep", "error", "kept"),
    [
        # 0.9 and 0.7 differ by 0.2; the standard error of the difference is 1.41 * error.
        ("last", 0.15, "all"),
        ("last", 0.13, "head"),
        ("last", None, "head"),
        ("best", 0.15, "head"),
    ],
)
def test_a_stage_that_keeps_its_last_epoch_is_dropped_only_beyond_chance(keep, error, kept):
    values = iter([0.9, 0.5, 0.7])

    def score(predictions):
        return {"odd_score": next(values), **({} if error is None else {"odd_score_error": error})}

    stages = (
        Stage("head", "head", epochs=1, learning_rate=0.05),
        Stage("all", "all", epochs=2, learning_rate=0.01, keep=keep),
    )
    schedule, notes = Schedule(stages, monitor="val_odd_score"), Notes()
    result = run(make(), schedule, validation_scores=score, callbacks=[notes])
    assert result.best_stage == kept
    assert any("differs from that of 'head', 0.9000, by no more" in n for n in notes.told) == (
        kept == "all"
    )


class Notes(StageCallback):
    def __init__(self) -> None:
        super().__init__()
        self.told = []

    def on_note(self, text):
        self.told.append(text)


def test_auto_prefers_balanced_accuracy_to_accuracy_to_the_loss():
    assert PREFERRED == ("val_mean_average_precision", "val_balanced_accuracy", "val_accuracy")
    log = {"loss": 1.0, "val_loss": 1.0, "val_clip_accuracy": 0.9}
    assert resolve("auto", log) == "val_loss"
    assert resolve("auto", {**log, "val_accuracy": 0.5}) == "val_accuracy"
    log |= {"val_accuracy": 0.5, "val_balanced_accuracy": 0.1}
    assert resolve("auto", log) == "val_balanced_accuracy"
    log |= {"val_mean_average_precision": 0.1}
    assert resolve("auto", log) == "val_mean_average_precision"
    assert resolve("auto", {"loss": 1.0, "balanced_accuracy": 0.5}) == "loss"


def test_in_a_solved_stage_they_choose_the_strength():
    score, model = Score(0.5, 0.9, 0.2, name="balanced_accuracy"), make()
    (stage,) = run(model, solved_by("auto"), validation_scores=score).stages
    assert [row["val_balanced_accuracy"] for row in stage.rows] == [0.5, 0.9, 0.2]
    assert (stage.monitor, stage.best_epoch) == ("val_balanced_accuracy", 2)
    np.testing.assert_allclose(score.seen[1], model.predict(HELD[0], verbose=0), atol=1e-6)
    assert np.abs(score.seen[1] - score.seen[0]).max() > 1e-3


def test_a_stage_that_scores_worse_than_the_one_before_is_taken_back():
    score = Score(0.9, 0.8, 0.7, 0.6, name="balanced_accuracy")
    result = run(make(), Schedule(TWO.stages, monitor="auto"), validation_scores=score)
    assert result.best_stage == "head"
    assert [row["best"] for row in result.history] == [True, False, True, False]
    better = Score(0.1, 0.2, 0.7, 0.6, name="balanced_accuracy")
    result = run(make(), Schedule(TWO.stages, monitor="auto"), validation_scores=better)
    assert result.best_stage == "all"


class StopAfter(StageCallback):
    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.left = epochs

    def on_epoch_end(self, epoch, logs=None):
        self.left -= 1

    def wants_to_stop(self):
        return self.left <= 0


@pytest.mark.slow_on("jax")
def test_an_interrupted_stage_goes_on_with_the_scores_it_has(tmp_path, monkeypatch):
    monkeypatch.setattr(run_state.Checkpointer, "_is_time_to_copy", lambda self: True)
    stage = Stage("head", "head", epochs=4, learning_rate=0.05)
    schedule = Schedule((stage,), monitor="val_odd_score")
    options = {"schedule": schedule, "run_dir": tmp_path}
    with pytest.raises(Stopped):
        run(make(), validation_scores=Score(0.3, 0.9), callbacks=[StopAfter(2)], **options)
    model, rest = make(), Score(0.4, 0.5)
    result = run(model, validation_scores=rest, **options)
    assert len(rest.seen) == 2
    assert [row["val_odd_score"] for row in result.history] == [0.3, 0.9, 0.4, 0.5]
    assert result.stages[0].best_epoch == 2
    whole = make()
    run(whole, schedule, validation_scores=Score(0.3, 0.9, 0.4, 0.5))
    assert_same_weights(model, whole)


@pytest.mark.slow_on("jax")
def test_a_plateau_may_watch_them():
    stage = Stage("head", "head", epochs=9, until=Plateau("val_odd_score", patience=2))
    result = run(make(), [stage], validation_scores=Score(0.3, 0.8, 0.5, 0.6, 0.9))
    assert len(result.history) == 4


@pytest.mark.slow_on("jax")
def test_a_dataset_is_scored_in_its_own_order():
    score, model = Score(0.5, 0.6), make()
    stage = Stage("all", "all", epochs=2, learning_rate=0.01)
    run(model, [stage], Batches(), validation_data=Batches(), validation_scores=score)
    assert [seen.shape for seen in score.seen] == [(24, 2)] * 2
    # The second epoch is the better one on its own training data.
    np.testing.assert_allclose(score.seen[1], model.predict(X, verbose=0), atol=1e-6)


def test_without_validation_data_nothing_is_scored():
    score = Score()
    result = run(make(), HEAD, validation_data=None, validation_scores=score)
    assert score.seen == []
    assert "val_odd_score" not in result.history[0]


def test_a_score_that_is_not_finite_is_never_the_best():
    result = run(make(), solved_by("val_odd_score"), validation_scores=Score(0.2, np.nan, 0.1))
    assert result.stages[0].best_epoch == 1
    with pytest.raises(StageError, match="val_odd_score was not finite in any epoch"):
        run(make(), solved_by("val_odd_score"), validation_scores=Score(*[np.nan] * 3))


def test_names_get_the_prefix_of_validation():
    model = make()
    scores = ValidationScores(lambda found: {"top": found.max(), "n": len(found)}, X)
    found = scores.measure(model)
    assert found == {"val_top": pytest.approx(model.predict(X, verbose=0).max()), "val_n": 24.0}
    assert {type(value) for value in found.values()} == {float}
