"""How much each class counts, by name and by file."""

import numpy as np
import pytest

from unfreeze.errors import ScheduleError
from unfreeze.pipeline.class_weights import (
    clip_weights,
    heard_weights,
    plain_weights,
    read_class_weights,
    sample_weights,
)

NAMES = ("cat", "dog", "no", "7")


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        ([0, 1, 2], 3, {0: 1.0, 1: 1.0, 2: 1.0}),
        ([0, 0, 0, 1], 2, {0: 4 / 6, 1: 2.0}),
        # A class without a sample gets 1 and leaves the others as they are.
        ([0, 0, 0, 2], 4, {0: 4 / 6, 1: 1.0, 2: 2.0, 3: 1.0}),
        ([1] * 5, 2, {0: 1.0, 1: 1.0}),
    ],
)
def test_balanced(labels, classes, expected):
    found = sample_weights("balanced", np.array(labels), NAMES[:classes])
    assert found == pytest.approx(expected)


def test_balanced_classes_count_the_same_and_samples_one_on_average():
    labels = np.random.default_rng(0).choice(4, 1000, p=[0.5, 0.3, 0.17, 0.03])
    weights = sample_weights("balanced", labels, NAMES)
    each = np.array([weights[k] for k in labels])
    assert each.mean() == pytest.approx(1)
    np.testing.assert_allclose(np.bincount(labels, each), 250)


def test_without_weights_there_are_none():
    assert sample_weights("none", np.array([0, 0, 1]), NAMES) is None


def weights_file(tmp_path, text: str) -> str:
    file = tmp_path / "weights.yaml"
    file.write_text(text)
    return str(file)


def test_a_file_weighs_the_classes_that_it_names(tmp_path):
    # Names that YAML 1.1 would take for false and for a number.
    name = weights_file(tmp_path, "dog: 3\nno: 0.5\n7: 2\n")
    assert read_class_weights(name, NAMES) == {"dog": 3.0, "no": 0.5, "7": 2.0}
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 3])
    found = sample_weights(name, labels, NAMES)
    # 4 * 1 + 2 * 3 + 0.5 + 2 is 12.5 for 8 samples.
    assert found == pytest.approx({0: 0.64, 1: 1.92, 2: 0.32, 3: 1.28})
    assert np.mean([found[k] for k in labels]) == pytest.approx(1)
    assert plain_weights(name) == {"dog": 3.0, "no": 0.5, "7": 2.0}
    assert plain_weights("balanced") == "balanced"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dog: 0\n", r"weights.yaml:1: dog 0 must be above 0 \(leave its clips out instead\)"),
        ("cat: 1\ndog: -1\n", "weights.yaml:2: dog -1 must be above 0"),
        ("dgo: 2\n", r"weights.yaml:1: no class is named 'dgo'. Did you mean 'dog'"),
        ("dog: much\n", "weights.yaml:1: dog must be a number, not the text 'much'"),
        ("dog: 1\ndog: 2\n", "weights.yaml:2: class weights: key 'dog' appears twice"),
        ("- dog\n", "weights.yaml:1: class weights must be `key: value` lines, not a list"),
        ("", "weights.yaml: the file is empty"),
    ],
)
def test_a_file_that_says_something_else_is_refused_by_line(text, message, tmp_path):
    with pytest.raises(ScheduleError, match=message):
        read_class_weights(weights_file(tmp_path, text), NAMES)


def test_a_file_that_is_not_there():
    with pytest.raises(ScheduleError, match=r"mine\.yaml: cannot be read: No such file"):
        read_class_weights("mine.yaml")


def test_validation_weighs_clips_and_classes_alike(tmp_path):
    # Class 0: clips of 1 and 3 patches; class 1: one clip of 2.
    clip, truth = np.array([0, 1, 1, 1, 2, 2]), np.array([0, 0, 0, 0, 1, 1])
    balanced = clip_weights("balanced", clip, truth, NAMES)
    assert balanced == pytest.approx(np.array([1.5, 0.5, 0.5, 0.5, 1.5, 1.5]))
    by_clip = clip_weights("none", clip, truth, NAMES)
    assert by_clip == pytest.approx(np.array([6, 2, 2, 2, 3, 3]) / 3)
    by_file = clip_weights(weights_file(tmp_path, "dog: 4\n"), clip, truth, NAMES)
    assert by_file == pytest.approx(np.array([3, 1, 1, 1, 6, 6]) / 3)


def test_weights_of_independent_classes(tmp_path):
    assert heard_weights("balanced", ("cat", "dog")) is None
    assert heard_weights("none", ("cat", "dog")) is None
    (tmp_path / "w.yaml").write_text("dog: 2\n")
    found = heard_weights(str(tmp_path / "w.yaml"), ("cat", "dog"))
    np.testing.assert_array_equal(found, [[1, 1], [1, 2]])
