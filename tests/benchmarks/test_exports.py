"""What `benchmarks.exports` makes of probabilities and times, with numbers known by hand."""

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from benchmarks.exports import by_turns, compared, scores_table, speed_table

WANTED = np.array([[0.9, 0.1], [0.52, 0.48], [0.2, 0.8], [0.3, 0.7]], np.float32)


def test_a_flip_where_the_model_is_undecided_is_no_flip_of_the_decided():
    given = np.array([[0.8, 0.2], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]], np.float32)
    row = compared(WANTED, given, [0, 1, 1, 0])
    assert row["largest_difference"] == pytest.approx(0.12)
    assert row["same_top_class"] == 0.75
    assert (row["decided"], row["same_top_class_of_decided"]) == (3, 1.0)
    assert row["accuracy"] == 0.75
    assert compared(WANTED, WANTED, [0, 1, 1, 0])["accuracy"] == 0.5


def test_sides_take_turns_and_the_medians_are_those_of_the_rounds():
    order = []

    def side(name, times):
        left = iter(times)

        def measure():
            order.append(name)
            time = next(left)
            return {"milliseconds": time, "times_real_time": 1000 / time}

        return measure

    found = by_turns({"a": side("a", [4.0, 2.0, 10.0]), "b": side("b", [1.0, 1.0, 1.0])}, 3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert found["a"] == {"milliseconds": 4, "best_milliseconds": 2, "times_real_time": 250}


def test_a_failed_export_is_a_row_with_its_reason():
    row = {
        "largest_difference": 9.2e-7, "same_top_class": 0.95, "accuracy": 0.817,
    }  # fmt: skip
    made = {"bytes": 15_400_000, "check": {"hard_sounds": {"largest_difference": 3e-6}}}
    lines = scores_table({"keras": row, "onnx": {**made, **row}, "x": {"failed": "no"}}).split("\n")
    assert lines[2:] == [
        "| keras |  | 9.2e-07 |  | 95% | 82% |",
        "| onnx | 15.4 MB | 9.2e-07 | 3e-06 | 95% | 82% |",
        "| x | no | | | | |",
    ]


def test_a_side_that_has_one_length_alone_leaves_the_others_empty():
    time = {"milliseconds": 8.44, "best_milliseconds": 7.0, "times_real_time": 355.5}
    lines = speed_table({"3 s": {"a": time, "b": time}, "1 s": {"a": time}}).split("\n")
    assert lines[1].count("---") == lines[0].count("|") - 1 == 5
    assert lines[2] == "| a | 8.4 (best 7.0) | 356 | 8.4 (best 7.0) | 356 |"
    assert lines[3] == "| b | 8.4 (best 7.0) | 356 |  |  |"
