import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from unfreeze.errors import DataError
from unfreeze.pipeline.bootstrap import wilson
from unfreeze.pipeline.scoring import METRICS, score, score_change

OVERALL = ("accuracy", "balanced_accuracy", "macro_f1", "loss")


def predictions(seed, clips, classes, groups, skill=1.0):
    """Random truth, probabilities that lean to the truth by `skill`, and groups."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=clips)
    chances = rng.random((clips, classes)) ** 2 + 1e-3
    chances[np.arange(clips), truth] += skill * rng.random(clips)
    chances /= chances.sum(axis=1, keepdims=True)
    return truth, chances, [f"c{i}" for i in range(classes)], rng.integers(groups, size=clips)


def certain(guess, classes):
    return np.eye(classes)[guess]


cases = st.tuples(
    st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(2, 6), st.integers(1, 12)
)


def test_known_small_example():
    truth = [0, 0, 0, 1, 1, 2]
    guess = [0, 0, 1, 1, 1, 0]
    out = score(truth, certain(guess, 3), ["cat", "dog", "owl"], ["a", "a", "b", "b", "c", "c"])
    assert out["accuracy"] == pytest.approx(4 / 6)
    assert out["balanced_accuracy"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert out["macro_f1"] == pytest.approx((4 / 6 + 4 / 5 + 0) / 3)
    assert out["loss"] == pytest.approx(2 / 6 * -np.log(1e-7))
    assert out["confusion"] == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert (out["clips"], out["groups"]) == (6, 3)
    assert out["labels"] == ["cat", "dog", "owl"]
    dog = out["per_class"]["dog"]
    assert dog["precision"] == pytest.approx(2 / 3)
    assert (dog["recall"], dog["support"]) == (1.0, 2)
    owl = out["per_class"]["owl"]
    assert (owl["precision"], owl["recall"], owl["f1"]) == (None, 0.0, 0.0)
    assert owl["intervals"]["precision"] is None
    assert out["bootstrap"] == {"level": 0.95, "resamples": 1000, "seed": 0}


def test_interval_of_two_groups_is_exact():
    # One group all right, one all wrong: half the resamples mix them, a quarter
    # is all wrong, a quarter all right.
    out = score([0, 0, 1, 1], certain([0, 0, 0, 0], 2), ["a", "b"], [7, 7, 9, 9])
    assert out["accuracy"] == 0.5
    assert out["intervals"]["accuracy"] == [0.0, 1.0]
    assert "only 2 groups" in out["note"]


def test_groups_widen_the_interval():
    # 20 groups of 20 clips; a group is right or wrong as a whole.
    group = np.repeat(np.arange(20), 20)
    truth = np.zeros(400, int)
    guess = np.where(group < 14, 0, 1)
    together = score(truth, certain(guess, 2), ["a", "b"], group)["intervals"]["accuracy"]
    single = score(truth, certain(guess, 2), ["a", "b"], np.arange(400))["intervals"]["accuracy"]
    # The standard errors differ by sqrt(20); binomial: 1.96 * sqrt(0.7 * 0.3 / n).
    assert together[1] - together[0] == pytest.approx(2 * 1.96 * np.sqrt(0.21 / 20), rel=0.15)
    assert single[1] - single[0] == pytest.approx(2 * 1.96 * np.sqrt(0.21 / 400), rel=0.15)


def test_interval_covers_the_true_accuracy():
    rng = np.random.default_rng(5)
    inside = 0
    for seed in range(100):
        # Accuracy varies from group to group around 0.7.
        skill = rng.beta(7, 3, size=40)
        group = np.repeat(np.arange(40), 5)
        right = rng.random(200) < skill[group]
        out = score(
            np.zeros(200, int),
            certain(np.where(right, 0, 1), 2),
            ["a", "b"],
            group,
            resamples=400,
            seed=seed,
        )
        low, high = out["intervals"]["accuracy"]
        inside += low <= 0.7 <= high
    assert 88 <= inside <= 100


@settings(deadline=None, max_examples=60)
@given(cases)
def test_values_equal_scikit_learn(case):
    truth, chances, labels, groups = predictions(*case)
    guess = chances.argmax(1)
    out = score(truth, chances, labels, groups, resamples=3)
    columns = list(range(len(labels)))
    assert out["accuracy"] == pytest.approx(reference.accuracy_score(truth, guess))
    # scikit-learn leaves classes without support out too, but warns of them.
    seen = np.unique(truth)
    recalls = reference.recall_score(truth, guess, labels=seen, average=None)
    assert out["balanced_accuracy"] == pytest.approx(recalls.mean())
    assert out["macro_f1"] == pytest.approx(reference.f1_score(truth, guess, average="macro"))
    assert out["loss"] == pytest.approx(reference.log_loss(truth, chances, labels=columns))
    assert out["confusion"] == reference.confusion_matrix(truth, guess, labels=columns).tolist()
    table = reference.precision_recall_fscore_support(
        truth, guess, labels=columns, zero_division=np.nan
    )
    for i, label in enumerate(labels):
        row = out["per_class"][label]
        for name, values in zip(("precision", "recall", "f1", "support"), table, strict=True):
            if np.isnan(values[i]):
                assert row[name] is None
            else:
                assert row[name] == pytest.approx(values[i])


@settings(deadline=None, max_examples=60)
@given(cases, st.randoms(use_true_random=False))
def test_order_of_clips_does_not_matter(case, random):
    truth, chances, labels, groups = predictions(*case)
    order = list(range(len(truth)))
    random.shuffle(order)
    first = score(truth, chances, labels, groups, resamples=20)
    second = score(truth[order], chances[order], labels, groups[order], resamples=20)
    # The sums of losses are rounded in another order; all else is counts.
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "per_class", "confusion", "note"):
        assert first[name] == second[name]
    assert first["intervals"]["accuracy"] == second["intervals"]["accuracy"]
    assert first["loss"] == pytest.approx(second["loss"], rel=1e-12)
    assert first["intervals"]["loss"] == pytest.approx(second["intervals"]["loss"], rel=1e-12)


@settings(deadline=None, max_examples=60)
@given(cases, st.randoms(use_true_random=False))
def test_names_do_not_matter(case, random):
    truth, chances, labels, groups = predictions(*case)
    order = list(range(len(labels)))
    random.shuffle(order)
    place = np.argsort(order)
    first = score(truth, chances, labels, groups, resamples=20)
    # Other names in the same order give the same draws of groups.
    second = score(
        place[truth],
        chances[:, order],
        [labels[i] for i in order],
        np.char.add("speaker-", np.char.zfill(groups.astype(str), 3)),
        resamples=20,
    )
    for name in OVERALL:
        assert first[name] == pytest.approx(second[name], rel=1e-12)
        assert first["intervals"][name] == pytest.approx(second["intervals"][name], rel=1e-12)
    assert first["per_class"] == second["per_class"]


@settings(deadline=None, max_examples=60)
@given(cases)
def test_intervals_are_ordered_bounded_and_json(case):
    truth, chances, labels, groups = predictions(*case)
    out = score(truth, chances, labels, groups, resamples=300)
    assert json.loads(json.dumps(out, allow_nan=False)) == out
    low, high = out["intervals"]["accuracy"]
    assert low <= out["accuracy"] <= high
    for name in OVERALL:
        low, high = out["intervals"][name]
        assert 0.0 <= low <= high
        assert name == "loss" or high <= 1.0
    for row in out["per_class"].values():
        for name, interval in row["intervals"].items():
            assert (interval is None) == (row[name] is None)
            assert interval is None or 0.0 <= interval[0] <= interval[1] <= 1.0


@settings(deadline=None, max_examples=30)
@given(cases)
def test_one_group_has_no_spread(case):
    truth, chances, labels, _ = predictions(*case)
    out = score(truth, chances, labels, np.zeros(len(truth)), resamples=20)
    for name in OVERALL:
        # All right or all wrong is not certain after one group.
        certain = out[name] in (0.0, 1.0) and METRICS[name].higher_is_better
        expected = wilson(out[name], 1) if certain else [out[name]] * 2
        assert out["intervals"][name] == pytest.approx(list(expected), rel=1e-12)
    assert "only 1 group;" in out["note"]


def test_none_of_three_is_not_certainly_none():
    # Three clips of b, all taken for a.
    truth = [0] * 30 + [1] * 3
    out = score(truth, certain([0] * 33, 2), ["a", "b"], np.arange(33))
    # Wilson (1927) for 0 of 3 and 30 of 30.
    rows = {label: row["intervals"]["recall"] for label, row in out["per_class"].items()}
    assert rows["b"] == pytest.approx([0.0, 0.5615], abs=1e-4)
    assert rows["a"] == pytest.approx([0.8865, 1.0], abs=1e-4)


def test_a_model_that_only_guesses_is_told():
    rng = np.random.default_rng(0)
    truth = np.array([0] * 40 + [1] * 5 + [2] * 5)
    labels, groups = ["cow", "cat", "dog"], np.arange(50)
    told = score(truth, certain([0] * 50, 3), labels, groups)["note"]
    assert "not clearly better than always guessing 'cow', which is right for 80%" in told
    assert "balanced accuracy of 0.33" in told
    by_chance = certain(rng.integers(3, size=50), 3)
    assert "always guessing" in score(truth, by_chance, labels, groups)["note"]
    good = certain(np.where(rng.random(50) < 0.9, truth, 0), 3)
    assert score(truth, good, labels, groups)["note"] is None


def test_all_right_is_not_taken_for_certain():
    out = score([0, 1] * 30, certain([0, 1] * 30, 2), ["a", "b"], np.arange(60))
    assert out["intervals"]["accuracy"] == pytest.approx([0.9398, 1.0], abs=1e-4)
    assert "up to 5% of new groups" in out["note"]
    truth, chances, labels, groups = predictions(1, 200, 3, 30)
    assert score(truth, chances, labels, groups)["note"] is None


def test_seed_repeats_and_matters():
    case = predictions(2, 200, 4, 40)
    assert score(*case, seed=3) == score(*case, seed=3)
    assert score(*case, seed=3)["intervals"] != score(*case, seed=4)["intervals"]


def test_half_precision_probabilities():
    truth, chances, labels, groups = predictions(4, 100, 50, 10)
    half = chances.astype(np.float16)
    exact, rough = (score(truth, p, labels, groups, resamples=3) for p in (chances, half))
    assert rough["loss"] == pytest.approx(exact["loss"], abs=2e-3)


def test_ten_thousand_clips_are_fast():
    case = predictions(6, 10_000, 50, 10_000)
    start = time.process_time()
    score(*case)
    # 0.13 s on 2 cores; of processor time, as the machine may be busy.
    assert time.process_time() - start < 2.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_true": np.zeros(0, int), "probabilities": np.zeros((0, 2))}, "nothing to score"),
        ({"y_true": [[0], [1]]}, "nothing to score"),
        ({"y_true": [0.0, 1.0]}, "float64; integers"),
        ({"y_true": [0, 2]}, "from 0 to 2; there are 2 labels"),
        ({"y_true": [-1, 1]}, "from -1 to 1"),
        ({"probabilities": [[1.0], [1.0]]}, r"shape \(2, 1\); \(clips, labels\) = \(2, 2\)"),
        ({"probabilities": [[np.nan, 1], [0, 1]]}, "finite"),
        ({"probabilities": [[-3.0, 4.0], [0, 1]]}, "not negative"),
        ({"probabilities": [[2.0, 5.0], [0, 1]]}, "not logits"),
        ({"labels": ["a", "a"]}, "twice"),
        ({"groups": ["x"]}, r"groups has shape \(1,\)"),
        ({"resamples": 0}, "resamples is 0"),
    ],
)
def test_bad_input_is_refused(change, message):
    good = {"y_true": [0, 1], "probabilities": np.eye(2), "labels": ["a", "b"], "groups": [0, 1]}
    with pytest.raises(DataError, match=message):
        score(**(good | change))


def change(before, after, truth, groups=None):
    groups = np.arange(len(truth)) if groups is None else groups
    return score_change(truth, before, after, ("a", "b"), groups)


def test_a_model_compared_with_itself_has_not_changed():
    truth, chances = np.array([0, 1] * 10), np.random.default_rng(0).dirichlet([1, 1], 20)
    found = change(chances, chances, truth)
    assert found["difference"] == {"accuracy": 0, "balanced_accuracy": 0, "macro_f1": 0}
    assert set(map(tuple, found["intervals"].values())) == {(0, 0)}
    assert found["decided_otherwise"] == 0


def test_the_difference_is_after_less_before_and_its_bootstrap_is_paired():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, 400)
    sure = np.eye(2)[truth]
    # Both are wrong in the same 40 %; the second mends 10 % of all.
    wrong = rng.permutation(400)[:160]
    before = sure.copy()
    before[wrong] = 1 - before[wrong]
    after = before.copy()
    after[wrong[:40]] = sure[wrong[:40]]
    found = change(before, after, truth)
    assert found["before"]["accuracy"] == pytest.approx(0.6)
    assert found["after"]["accuracy"] == pytest.approx(0.7)
    assert found["difference"]["accuracy"] == pytest.approx(0.1)
    assert found["decided_otherwise"] == 40
    low, high = found["intervals"]["accuracy"]
    # Standard error of a paired difference of shares: sqrt(p (1 - p) / n), p = 0.1.
    assert (high - low) == pytest.approx(2 * 1.96 * np.sqrt(0.1 * 0.9 / 400), rel=0.15)
    # Taken apart, the two would be half as wide again.
    assert (high - low) < 2 * 1.96 * np.sqrt((0.6 * 0.4 + 0.7 * 0.3) / 400) / 1.5


def test_a_class_that_a_model_does_not_know_has_probability_zero():
    found = change([[1.0, 0.0]] * 4, [[0.0, 1.0]] * 4, np.array([1, 1, 1, 1]))
    assert (found["before"]["accuracy"], found["after"]["accuracy"]) == (0, 1)
    assert "groups" in found["note"]
