"""Stages whose last layer is solved: the same as scikit-learn's logistic regression."""

import itertools
import warnings
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from sklearn.linear_model import LogisticRegression

from unfreeze.core.boundary import Solvable
from unfreeze.core.callbacks import StageCallback
from unfreeze.core.fit import fit
from unfreeze.core.regression import STRENGTHS, regression
from unfreeze.core.schedule import Plateau, ReduceRate, Schedule, Stage
from unfreeze.core.schedule_file import dump_schedule, parse_schedule
from unfreeze.core.unfreeze_schedule import UnfreezeSchedule
from unfreeze.errors import ScheduleError, StageError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 5)).astype("float32")
Y = (X[:, :3] + 0.7 * RNG.normal(size=(90, 3))).argmax(axis=1)
MANY = (X[:, :3] + RNG.normal(size=(90, 3)) > 0).astype("int64")
LABELS = {"numbers": Y, "column": Y[:, None], "one-hot": np.eye(3)[Y]}
WEIGHTS = RNG.uniform(0.2, 3.0, 90)
ONES = np.ones(90)
FIRST = STRENGTHS[0]


def dense(units: int, activation: str = "softmax", use_bias: bool = True) -> Solvable:
    return Solvable(SimpleNamespace(units=units, use_bias=use_bias), activation)


def logits(x, labels, wanted, weights=ONES, strength=0.5) -> np.ndarray:
    kernel, bias = regression(
        *(x.astype(float), labels, weights, strength, wanted.layer.units, wanted.activation),
        use_bias=wanted.layer.use_bias,
    )
    assert (kernel.shape, bias.shape) == ((x.shape[1], wanted.layer.units), (wanted.layer.units,))
    assert (kernel.dtype, bias.dtype) == (np.float32, np.float32)
    return x @ kernel + bias * wanted.layer.use_bias


def softmax(values: np.ndarray) -> np.ndarray:
    grown = np.exp(values - values.max(axis=1, keepdims=True))
    return grown / grown.sum(axis=1, keepdims=True)


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def reference(x, y, weights=ONES, strength=0.5, **options) -> np.ndarray:
    """Probabilities of scikit-learn, solved to more digits than ours."""
    model = LogisticRegression(C=strength, tol=1e-8, max_iter=10_000, **options)
    return model.fit(x.astype(float), y, sample_weight=weights).predict_proba(x)


@pytest.mark.parametrize("weights", [ONES, WEIGHTS / WEIGHTS.mean()])
@pytest.mark.parametrize("form", LABELS)
def test_softmax(form, weights):
    found = softmax(logits(X, LABELS[form], dense(3), weights))
    np.testing.assert_allclose(found, reference(X, Y, weights), atol=2e-3)


def test_softmax_of_two_classes():
    found = softmax(logits(X, Y % 2, dense(2), WEIGHTS / WEIGHTS.mean()))
    np.testing.assert_allclose(found, reference(X, Y % 2, WEIGHTS / WEIGHTS.mean()), atol=2e-3)


def test_sigmoid_solves_each_class_by_itself():
    found = sigmoid(logits(X, MANY, dense(3, "sigmoid"), WEIGHTS / WEIGHTS.mean()))
    for unit in range(3):
        wanted = reference(X, MANY[:, unit], WEIGHTS / WEIGHTS.mean())[:, 1]
        np.testing.assert_allclose(found[:, unit], wanted, atol=2e-3)


@pytest.mark.parametrize("labels", [Y % 2, (Y % 2)[:, None], (Y % 2).astype("float32")])
def test_sigmoid_of_one_unit(labels):
    found = sigmoid(logits(X, labels, dense(1, "sigmoid")))
    np.testing.assert_allclose(found[:, 0], reference(X, Y % 2)[:, 1], atol=2e-3)


def test_a_layer_without_bias_is_solved_without_one():
    found = softmax(logits(X + 1, Y, dense(3, use_bias=False)))
    np.testing.assert_allclose(found, reference(X + 1, Y, fit_intercept=False), atol=2e-3)


@pytest.mark.parametrize("missing", [0, 1, 3])
def test_a_class_without_samples_never_wins(missing):
    labels = Y + (missing <= Y)
    found = softmax(logits(X, labels, dense(4)))
    assert found[:, missing].max() < 1e-6
    np.testing.assert_allclose(np.delete(found, missing, axis=1), reference(X, Y), atol=2e-3)


def test_two_of_three_classes_and_one_of_them():
    found = softmax(logits(X, 2 * (Y % 2), dense(3)))
    np.testing.assert_allclose(found[:, [0, 2]], reference(X, Y % 2), atol=2e-3)
    assert found[:, 1].max() < 1e-6
    assert (softmax(logits(X, np.full(90, 1), dense(3)))[:, 1] > 1 - 1e-6).all()


def test_labels_that_are_always_or_never_set():
    columns = np.stack([np.ones(90), MANY[:, 0], np.zeros(90)], axis=1)
    found = sigmoid(logits(X, columns, dense(3, "sigmoid")))
    assert found[:, 0].min() > 1 - 1e-6
    assert found[:, 2].max() < 1e-6
    np.testing.assert_allclose(found[:, 1], reference(X, MANY[:, 0])[:, 1], atol=2e-3)


def make(units=3, activation="softmax", kind="plain", **head) -> keras.Model:
    """A frozen layer, and a head; the same weights in each call."""
    inputs = keras.Input((5,), name="x")
    x = layers.Dense(6, "tanh", name="base")(inputs)
    if kind == "noisy":
        x = layers.GaussianNoise(0.5, name="noise")(inputs)
        x = layers.Dense(6, "tanh", name="base")(x)
    if kind == "dropout":
        x = layers.Dropout(0.5, name="drop")(x)
    if kind == "two":
        x = layers.Dense(4, "relu", name="hidden")(x)
    if kind == "bare":
        x = inputs
    outputs = layers.Dense(units, activation, name="head", **head)(x)
    if kind == "softmax above":
        outputs = layers.Softmax(name="softmax")(outputs)
    model = keras.Model(inputs, outputs)
    rng = np.random.default_rng(3)
    for weight in model.weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    return model


def features(model: keras.Model, x: np.ndarray) -> np.ndarray:
    kernel, bias = model.get_layer("base").get_weights()
    return np.tanh(x @ kernel + bias)


def run(model: keras.Model, data=(X, Y), epochs=1, monitor="val_loss", **options):
    stage = Stage("head", "head", epochs=epochs, solve=True, **options.pop("stage", {}))
    options = {"seed": 0, "verbose": 0, **options}
    return fit(model, Schedule((stage,), monitor=monitor), data, **options)


# On the other backends each once: no combination is theirs.
EACH_ONCE = [("class_weight", "numbers"), ("sample_weight", "column"), ("nothing", "one-hot")]


@pytest.mark.parametrize(
    ("by", "form"),
    [
        pytest.param(*pair, marks=pytest.mark.on_each_backend if pair in EACH_ONCE else ())
        for pair in itertools.product(("class_weight", "sample_weight", "nothing"), LABELS)
    ],
)
def test_fit_solves_on_what_the_frozen_layers_give(by, form):
    model, labels = make(), LABELS[form]
    classes = {0: 5.0, 2: 0.5}
    weights = {"class_weight": np.array([5.0, 1.0, 0.5])[Y], "sample_weight": WEIGHTS}.get(by, ONES)
    data = (X, labels, WEIGHTS) if by == "sample_weight" else (X, labels)
    result = run(model, data, class_weight=classes if by == "class_weight" else None)
    assert result.stages[0].cache.startswith("cached: 1 frozen steps")
    wanted = reference(features(model, X), Y, weights / weights.mean(), FIRST)
    np.testing.assert_allclose(model.predict(X, verbose=0), wanted, atol=2e-3)
    moved = [layer.layer for layer in result.audit.stages[0].layers if layer.max_abs > 0]
    assert moved == ["head"]


@pytest.mark.on_each_backend
def test_fit_solves_several_labels_with_class_weights_of_keras():
    """Which weighs each sample by the first of its labels."""
    model = make(3, "sigmoid")
    run(model, (X, MANY), class_weight={0: 4.0, 1: 1.0, 2: 1.0})
    weights = np.where(MANY.argmax(axis=1) == 0, 4.0, 1.0)
    found = model.predict(X, verbose=0)
    for unit in range(3):
        wanted = reference(features(model, X), MANY[:, unit], weights / weights.mean(), FIRST)
        np.testing.assert_allclose(found[:, unit], wanted[:, 1], atol=2e-3)


@pytest.mark.on_each_backend
def test_binary_labels_in_a_column_have_their_class_weights():
    weights = np.where(Y > 0, 1.0, 6.0)
    for labels in ((Y > 0).astype("float32"), (Y > 0).astype("int64")[:, None]):
        model = make(1, "sigmoid")
        run(model, (X, labels), class_weight={0: 6.0})
        wanted = reference(features(model, X), Y > 0, weights / weights.mean(), FIRST)
        np.testing.assert_allclose(model.predict(X, verbose=0)[:, 0], wanted[:, 1], atol=2e-3)


@pytest.mark.on_each_backend
def test_a_row_for_each_strength_and_the_best_is_kept():
    model = make()
    labels = np.where(np.arange(90) % 7 == 0, (Y + 1) % 3, Y)  # some are wrong
    train, held = (X[:40], labels[:40]), (X[40:], labels[40:])
    result = run(model, train, epochs=50, validation_data=held)
    rows = result.history
    assert tuple(row["C"] for row in rows) == STRENGTHS
    assert sorted(STRENGTHS) == [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    best = int(np.argmin([row["val_loss"] for row in rows]))
    assert STRENGTHS[best] == 0.3
    assert [row["best"] for row in rows] == [number == best for number in range(7)]
    assert result.stages[0].best_epoch == best + 1
    found = model.evaluate(*held, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(rows[best]["val_loss"], abs=1e-6)
    wanted = reference(features(model, X[:40]), labels[:40], np.ones(40), STRENGTHS[best])
    np.testing.assert_allclose(model.predict(X[:40], verbose=0), wanted, atol=2e-3)


@pytest.mark.parametrize("epochs", [1, 3])
def test_epochs_cap_the_strengths(epochs):
    rows = run(make(), epochs=epochs, validation_data=(X[:20], Y[:20])).history
    assert tuple(row["C"] for row in rows) == STRENGTHS[:epochs]


def test_without_validation_data_only_the_first_strength_is_tried():
    rows = run(make(), epochs=3).history
    assert [row["C"] for row in rows] == [FIRST]
    assert "val_loss" not in rows[0]
    assert rows[0]["loss"] < np.log(3)


@pytest.mark.parametrize(
    ("model", "train", "named"),
    [
        ({"kind": "two"}, ["hidden", "head"], "hidden, head"),
        ({"activation": "relu"}, "head", "head"),
        ({"activation": None}, "head", "head"),
        ({"kind": "softmax above", "activation": None}, "head", "head"),
        ({}, "all", "base, head"),
        ({}, "base", "base"),
        ({"kind": "bare"}, "head", "head"),
    ],
)
def test_what_cannot_be_solved_is_refused_before_anything_trains(model, train, named):
    model = make(**model)
    before = model.get_weights()
    stages = [Stage("first", "head", epochs=1), Stage("second", train, epochs=1, solve=True)]
    message = (
        "stage 'second': solve needs one last dense layer with softmax or sigmoid right above "
        f"frozen layers, but the stage trains {named}: leave out solve, or make the model with "
        r"unfreeze\.read_out"
    )
    with pytest.raises(ScheduleError, match=message):
        fit(model, stages, (X, Y), verbose=0)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_room_for_the_cache_it_is_refused():
    with pytest.raises(ScheduleError, match=r"'head' asks for a cache, but: it would take 0\.0 GB"):
        run(make(), cache_limit=10)
    with pytest.raises(ScheduleError, match="solve reads the cache: leave out cache='never'"):
        Stage("head", solve=True, cache="never")
    with pytest.raises(ScheduleError, match="solve must be True or False"):
        Stage("head", solve="yes")


@pytest.mark.on_each_backend
@pytest.mark.parametrize("kind", ["dropout", "noisy"])
def test_random_layers_are_off(kind):
    model = make(kind=kind)
    result = run(model)
    assert result.stages[0].cache.startswith("cached: 2 frozen steps")
    wanted = reference(features(model, X), Y, strength=FIRST)
    np.testing.assert_allclose(model.predict(X, verbose=0), wanted, atol=2e-3)


@pytest.mark.on_each_backend
def test_views_are_solved_together():
    """Three variants of each sample, with their labels."""
    model, once = make(kind="noisy"), make(kind="noisy")
    held = {"validation_data": (X[30:60], Y[30:60]), "epochs": 3}
    result = run(model, (X[:30], Y[:30]), stage={"views": 3}, **held)
    run(once, (X[:30], Y[:30]), **held)
    assert result.stages[0].cache.startswith("cached")
    kernels = [m.get_layer("head").get_weights()[0] for m in (model, once)]
    assert 0.01 < np.abs(kernels[0] - kernels[1]).max() < 1.0
    assert model.evaluate(X, Y, verbose=0, return_dict=True)["accuracy"] > 0.6


class Passes(keras.utils.PyDataset):
    """Changes slightly, and comes in another order, in each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0
        self.on_epoch_end()

    def __len__(self) -> int:
        return 6

    def on_epoch_end(self) -> None:
        self.passes += 1
        self.order = np.random.default_rng(self.passes).permutation(90)

    def __getitem__(self, index):
        rows = self.order[index * 15 : index * 15 + 15]
        return X[rows] + np.float32(1e-5 * self.passes), Y[rows], WEIGHTS[rows]


@pytest.mark.on_each_backend
def test_views_of_a_dataset_have_the_labels_and_weights_of_their_own_pass():
    model = make()
    run(model, Passes(), stage={"views": 2})
    twice = [np.concatenate([part, part]) for part in (X, Y, WEIGHTS / WEIGHTS.mean())]
    wanted = reference(features(model, twice[0]), *twice[1:], strength=FIRST)[:90]
    np.testing.assert_allclose(model.predict(X, verbose=0), wanted, atol=2e-3)


class LateLabel(keras.utils.PyDataset):
    """The first batch has good labels, the second has one of a class that does not exist."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        rows = np.arange(45 * index, 45 * index + 45)
        return X[rows], np.where(rows == 50, 3, Y[rows])


def bad_data(what: str) -> Any:
    x = X.copy()
    x[4, 0] = np.nan
    data = {"nan": (x, Y), "label": LateLabel(), "weights": (X, Y, 0 * ONES), "two": (X, (Y, Y))}
    return data[what]


@pytest.mark.on_each_backend
@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("nan", "'head': the outputs of the frozen layers are not finite: is there NaN"),
        ("label", "'head': labels from 0 to 3 do not fit a layer of 3 units.*classes 0 to 2"),
        ("weights", "'head': the weights of all samples are 0"),
        ("two", "'head': solve needs one array of labels, not 2"),
    ],
)
def test_data_that_no_solver_takes(what, message):
    with pytest.raises(StageError, match=message):
        run(make(), bad_data(what), loss="sparse_categorical_crossentropy")


class Epochs(StageCallback):
    def __init__(self, last: int = 99) -> None:
        super().__init__()
        self.heard, self.last = [], last

    def on_train_begin(self, logs=None):
        self.heard.append("begin")

    def on_epoch_begin(self, epoch, logs=None):
        self.heard.append(epoch)

    def on_epoch_end(self, epoch, logs=None):
        self.heard.append(logs["C"])
        self.model.stop_training = epoch + 1 == self.last

    def on_train_end(self, logs=None):
        self.heard.append("end")


@pytest.mark.on_each_backend
def test_callbacks_of_the_run_and_of_the_stage_hear_each_strength_and_may_stop():
    of_run, of_stage = Epochs(), Epochs(last=2)
    options = {"callbacks": [of_run], "stage": {"callbacks": (of_stage,)}}
    result = run(make(), epochs=5, validation_data=(X[:20], Y[:20]), **options)
    assert of_run.heard == of_stage.heard == ["begin", 0, STRENGTHS[0], 1, STRENGTHS[1], "end"]
    assert len(result.history) == 2


def test_no_solver_complains_of_too_few_steps():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for strength in STRENGTHS:
            logits(4 * X, Y, dense(3), strength=strength)


@pytest.mark.parametrize(
    ("stage", "reason"),
    [
        ({"solve": True}, "solve"),
        ({"augment": False}, "augment=False"),
    ],
)
def test_one_keras_fit_can_do_none_of_these(stage, reason):
    model = make()
    model.compile("adam", "sparse_categorical_crossentropy")
    with pytest.raises(ScheduleError, match=f"{reason} needs unfreeze.fit"):
        callback = UnfreezeSchedule([Stage("head", "head", epochs=1, **stage)])
        model.fit(X, Y, callbacks=[callback], verbose=0)


def test_solve_and_decay_survive_the_file():
    stages = (Stage("a", "head", solve=True), Stage("b", decay="cosine"), Stage("c"))
    text = dump_schedule(Schedule(stages, monitor="auto"))
    assert "solve: true\n" in text
    assert "decay: cosine\n" in text
    assert parse_schedule(text).stages == stages


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("solve: 1", "solve must be true or false"),
        ("solve: 'true'", "solve must be true or false"),
        ("decay: linear", "decay 'linear' must be one of cosine"),
        ("decay: 3", "decay"),
    ],
)
def test_a_file_that_says_something_else_is_refused(field, message):
    text = f"unfreeze_schedule: 1\nstages:\n- name: a\n  {field}\n"
    with pytest.raises(ScheduleError, match=message):
        parse_schedule(text)


@pytest.mark.parametrize(
    "given",
    [
        {"until": Plateau("val_loss")},
        {"optimizer": "sgd"},
        {"decay": "cosine"},
        {"layer_decay": 0.5},
        {"reduce": ReduceRate()},
    ],
)
def test_what_only_steps_have_is_refused_not_ignored(given):
    (name,) = given
    with pytest.raises(ScheduleError, match=f"solve takes no steps, so {name} would have no"):
        Stage("head", "head", solve=True, **given)
