import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score

from unfreeze.errors import DataError
from unfreeze.pipeline.label_scoring import (
    average_precision,
    label_scorer,
    label_thresholds,
    score_labels,
)

RNG = np.random.default_rng(0)
LABELS = ("cat", "dog", "owl")
TABLE = (RNG.random((40, 3)) < [0.5, 0.3, 0.2]).astype(np.float32)
CHANCES = np.clip(TABLE * 0.4 + RNG.uniform(0, 0.6, TABLE.shape), 0, 1)
GROUPS = np.arange(40) // 2


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 3)), min_size=1))
def test_average_precision_is_that_of_scikit_learn(rows) -> None:
    there, scores, weights = (np.array(column) for column in zip(*rows, strict=True))
    found = average_precision(there, scores / 5, weights.astype(float))
    if not (there * weights).any():
        assert np.isnan(found)
    else:
        expected = average_precision_score(there, scores / 5, sample_weight=weights)
        assert found == pytest.approx(expected, abs=1e-12)


def test_scores_are_those_of_scikit_learn() -> None:
    cuts = np.array([0.5, 0.4, 0.6])
    found = score_labels(TABLE, CHANCES, LABELS, GROUPS, cuts, resamples=200)
    expected = [average_precision_score(TABLE[:, c], CHANCES[:, c]) for c in range(3)]
    assert found["mean_average_precision"] == pytest.approx(np.mean(expected))
    taken = cuts <= CHANCES
    assert found["macro_f1"] == pytest.approx(f1_score(TABLE, taken, average="macro"))
    assert found["micro_f1"] == pytest.approx(f1_score(TABLE, taken, average="micro"))
    row = found["per_class"]["dog"]
    assert row["support"] == TABLE[:, 1].sum()
    assert row["threshold"] == 0.4
    assert row["f1"] == pytest.approx(f1_score(TABLE[:, 1], taken[:, 1]))
    low, high = found["intervals"]["mean_average_precision"]
    assert low < found["mean_average_precision"] < high
    assert (found["clips"], found["groups"], found["note"]) == (40, 20, None)


def test_what_is_not_known_changes_nothing() -> None:
    table = TABLE.copy()
    table[3, 1] = -1
    found = score_labels(table, CHANCES, LABELS, GROUPS, resamples=20)
    other = CHANCES.copy()
    other[3, 1] = 1 - other[3, 1]
    assert score_labels(table, other, LABELS, GROUPS, resamples=20) == found
    assert found["per_class"]["dog"]["unknown"] == 1


def test_resamples_in_one_go_or_in_many() -> None:
    """Beyond the number computed at once; the first resamples are the same draws."""
    values = [score_labels(TABLE, CHANCES, LABELS, GROUPS, resamples=n) for n in (49, 120)]
    assert values[0]["macro_f1"] == values[1]["macro_f1"]
    assert values[0]["intervals"] != values[1]["intervals"]


def test_perfect_and_guessing() -> None:
    perfect = score_labels(TABLE, TABLE, LABELS, GROUPS, resamples=50)
    assert perfect["mean_average_precision"] == perfect["macro_f1"] == 1.0
    # By Wilson for 20 groups, and not "1.00 to 1.00".
    assert perfect["intervals"]["mean_average_precision"] == pytest.approx([0.839, 1.0], abs=1e-3)
    same = score_labels(TABLE, np.full_like(TABLE, 0.3), LABELS, GROUPS, resamples=50)
    assert same["mean_average_precision"] == pytest.approx(TABLE.mean())
    assert "not clearly better than guessing" in same["note"]
    assert "only 1 group" in score_labels(TABLE, TABLE, LABELS, np.ones(40), resamples=5)["note"]


def test_a_class_that_is_heard_nowhere_is_left_out_of_the_mean() -> None:
    table = np.column_stack([TABLE[:, :2], np.zeros(40)])
    found = score_labels(table, CHANCES, LABELS, GROUPS, resamples=20)
    assert found["per_class"]["owl"]["average_precision"] is None
    two = score_labels(TABLE[:, :2], CHANCES[:, :2], LABELS[:2], GROUPS, resamples=20)
    assert found["mean_average_precision"] == two["mean_average_precision"]
    assert found["macro_f1"] == two["macro_f1"]


@pytest.mark.parametrize(
    ("table", "chances", "groups", "message"),
    [
        (TABLE[:0], CHANCES[:0], GROUPS[:0], "nothing to score"),
        (TABLE, CHANCES[:, :2], GROUPS, "do not fit"),
        (TABLE, CHANCES, GROUPS[:3], "do not fit"),
        (TABLE, CHANCES * np.nan, GROUPS, "from 0 to 1"),
        (TABLE, CHANCES + 1, GROUPS, "from 0 to 1"),
    ],
)
def test_arrays_that_do_not_fit(table, chances, groups, message) -> None:
    with pytest.raises(DataError, match=message):
        score_labels(table, chances, LABELS, groups)


def test_thresholds_leave_out_what_is_not_known() -> None:
    table = np.array([[1.0], [1], [0], [0], [-1]])
    scores = np.array([[0.9], [0.7], [0.3], [0.2], [0.99]])
    assert label_thresholds(table, scores) == pytest.approx([0.5])
    assert label_thresholds(np.zeros((3, 1)), scores[:3]) == pytest.approx([0.5])


def test_the_scorer_of_patches_scores_clips() -> None:
    clip = np.repeat(np.arange(40), 3)
    patches = RNG.uniform(0.01, 0.99, (120, 3))
    table = TABLE.copy()
    table[3, 1] = -1
    found = label_scorer(table, clip)(patches)
    means = patches.reshape(40, 3, 3).mean(axis=1)
    expected = score_labels(table, means, LABELS, GROUPS, resamples=1)
    assert found["mean_average_precision"] == pytest.approx(expected["mean_average_precision"])
    assert found["clip_loss"] == pytest.approx(expected["loss"])
    # By an independent way: the spread of the mean over resamples of clips.
    alone = score_labels(table, means, LABELS, np.arange(40), resamples=2000)
    low, high = alone["intervals"]["loss"]
    assert found["clip_loss_error"] == pytest.approx((high - low) / 3.92, rel=0.1)
