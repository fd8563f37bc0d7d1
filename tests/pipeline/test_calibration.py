import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import toy
import unfreeze
from unfreeze.errors import DataError
from unfreeze.pipeline.calibration import (
    best_threshold,
    calibrate,
    calibration_error,
    fit_temperature,
    thresholds_of,
    with_temperature,
)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def drawn(seed, clips, temperature, classes=4):
    """Truth drawn from softmax(logits), and the probabilities softmax(temperature * logits)."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(clips, classes))
    truth = (softmax(logits).cumsum(axis=1) > rng.random((clips, 1))).argmax(axis=1)
    return truth, softmax(temperature * logits)


def test_calibration_error_of_known_cases():
    sure = np.array([[1.0, 0.0]] * 4)
    assert calibration_error(np.array([0, 0, 0, 0]), sure) == 0
    assert calibration_error(np.array([0, 0, 1, 1]), sure) == 0.5
    # Two bins: 0.9 (right, wrong) and 0.6 (both right).
    mixed = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    expected = (2 * 0.4 + 2 * 0.4) / 4
    assert calibration_error(np.array([0, 1, 0, 1]), mixed) == pytest.approx(expected)


@pytest.mark.parametrize("overconfidence", [0.5, 1.0, 3.0])
def test_the_temperature_of_a_known_distortion_is_found(overconfidence):
    truth, probabilities = drawn(0, 20_000, overconfidence)
    found = fit_temperature(truth, probabilities)
    assert found == pytest.approx(overconfidence, rel=0.06)
    scaled = with_temperature(probabilities, found)
    assert calibration_error(truth, scaled) < 0.015
    if overconfidence != 1:
        assert calibration_error(truth, probabilities) > 0.08


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_a_temperature_keeps_order_and_sum_and_can_be_undone(seed, temperature):
    _, probabilities = drawn(seed, 20, 1.0)
    scaled = with_temperature(probabilities, temperature)
    np.testing.assert_allclose(scaled.sum(axis=1), 1)
    np.testing.assert_array_equal(scaled.argmax(axis=1), probabilities.argmax(axis=1))
    if temperature >= 1:  # below, small ones sink beneath the smallest that is told apart
        back = with_temperature(scaled, 1 / temperature)
        np.testing.assert_allclose(back, probabilities, atol=1e-6)


def test_no_clip_is_refused():
    with pytest.raises(DataError, match="at least one clip"):
        fit_temperature(np.zeros(0, int), np.zeros((0, 2)))


def test_a_separable_class_is_cut_in_the_middle_of_the_gap():
    there = np.array([True, True, False, False])
    assert best_threshold(there, np.array([0.9, 0.6, 0.3, 0.1])) == pytest.approx(0.45)


def test_bounds_and_missing_classes():
    both = np.array([True, True])
    assert best_threshold(both, np.array([1e-4, 1e-5])) == 0.1
    # Scores of 1 alone: half-way to nothing.
    assert best_threshold(both, np.array([1.0, 1.0])) == 0.5
    assert best_threshold(~both, np.array([0.4, 0.4])) == 0.5


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 40))
def test_no_other_threshold_has_a_better_f1(seed, clips):
    rng = np.random.default_rng(seed)
    there = rng.random(clips) < 0.5
    there[0] = True
    # Rounded, so that there are ties; within the bounds, so that none binds.
    scores = np.round(rng.uniform(0.2, 0.9, size=clips), 2)

    def f1(threshold):
        taken = scores >= threshold
        return 2 * (there & taken).sum() / max(there.sum() + taken.sum(), 1)

    best = max(f1(t) for t in np.arange(0.1, 0.95, 0.005))
    assert f1(best_threshold(there, scores)) == pytest.approx(best)


def test_the_entries_of_metrics_json():
    truth, means = drawn(1, 500, 2.0, classes=2)
    fitted, held, levels = (truth, means), (truth, means, means), np.array([0.4, 0.6])
    found = calibrate(["a", "b"], fitted, held, levels)
    told = found["calibration"]
    assert told["clips"] == 500
    assert told["validation"] == told["test"]
    assert told["validation"]["scaled_loss"] < told["validation"]["loss"]
    row = found["at_thresholds"]["a"]
    taken = means[:, 0] >= 0.4
    assert row["precision"] == pytest.approx((truth[taken] == 0).mean())
    assert calibrate(["a"], None, held) == {"calibration": None, "at_thresholds": None}
    assert calibrate(["a", "b"], fitted, None, levels)["at_thresholds"] is None


def test_thresholds_in_the_order_of_the_labels():
    metrics = {"thresholds": {"b": 0.3, "a": 0.7}}
    np.testing.assert_array_equal(thresholds_of(metrics, ["a", "b", "new"]), [0.7, 0.3, 0.5])
    for none in (None, {}, {"thresholds": None}):
        np.testing.assert_array_equal(thresholds_of(none, ["a", "b"]), [0.5, 0.5])


def train_with_test_labels(folder, data, turned):
    """Train on toy sounds; in the second version each test clip has another class's label."""
    labels = ["high", "low", "noise"]
    rows = []
    for path in sorted(data.rglob("*.wav")):
        number = int(path.stem.split("_")[1])
        split = "test" if number < 3 else "validation" if number < 5 else "train"
        label = path.parent.name
        if turned and split == "test":
            label = labels[(labels.index(label) + 1) % 3]
        rows.append({"path": path.relative_to(data), "label": label, "split": split})
    manifest = data / f"{folder.name}.csv"
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "label", "split"])
        writer.writeheader()
        writer.writerows(rows)
    return unfreeze.SoundClassifier.train(
        manifest, "two_stage", folder / "run",
        backbone="toy", epochs=6, batch_size=4, learning_rate=0.005,
    )  # fmt: skip


def history_of(folder):
    with (folder / "run" / "history.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_poisoned_test_labels_change_nothing_but_the_test_scores(tmp_path, monkeypatch):
    toy.register(monkeypatch, tmp_path)
    data = toy.write_sounds(tmp_path / "data", clips=10)
    clean = train_with_test_labels(tmp_path / "clean", data, turned=False)
    poisoned = train_with_test_labels(tmp_path / "poisoned", data, turned=True)
    for a, b in zip(clean.model.get_weights(), poisoned.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for name in ("validation", "thresholds"):
        assert clean.metrics[name] == poisoned.metrics[name]
    assert (
        clean.metrics["calibration"]["temperature"]
        == poisoned.metrics["calibration"]["temperature"]
    )
    assert history_of(tmp_path / "clean") == history_of(tmp_path / "poisoned")
    assert clean.metrics["test"]["accuracy"] > 0.6
    assert poisoned.metrics["test"]["accuracy"] < 0.4
