import io

import numpy as np
import pytest
from rich.console import Console

from unfreeze.pipeline.scoring import score
from unfreeze.report.tables import audit_table, class_table, metrics_table, threshold_table


def lines(renderable, width=80):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(renderable)
    out = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert max(map(len, out)) <= width
    return out


@pytest.fixture
def scores():
    # 10 dogs right, 4 of 10 owls taken for dogs, 3 cats right, no newt at all.
    truth = [0] * 10 + [1] * 10 + [2] * 3
    guess = [0] * 14 + [1] * 6 + [2] * 3
    labels = ["dog", "[bold]owl", "a cat with a name that is much too long", "newt"]
    return score(truth, np.eye(4)[guess], labels, np.arange(23) // 2)


def layer(path, trainable, moved, weights=2):
    return {
        "layer": path,
        "weights": weights,
        "trainable": trainable,
        "moved": moved,
        "max_abs": 0.0,
    }


def test_metrics_table_shows_values_intervals_and_counts(scores):
    out = lines(metrics_table(scores, "test"))
    assert out[0] == "test"
    row = next(line for line in out if line.startswith("accuracy")).split()
    low, high = scores["intervals"]["accuracy"]
    assert row == ["accuracy", "0.826", f"{low:.3f}", "to", f"{high:.3f}"]
    assert any(line.startswith("macro f1") for line in out)
    error = scores["calibration_error"]
    assert out[-1] == f"23 clips in 12 groups. Calibration error {error:.3f}."


def test_metrics_table_shows_the_note():
    few = score([0, 1], np.eye(2), ["a", "b"], [1, 1])
    out = " ".join(lines(metrics_table(few)))
    assert "2 clips in 1 group." in out
    assert "only 1 group;" in out


def test_class_table_starts_with_the_worst(scores):
    out = lines(class_table(scores, "by class"))
    names = [line.split()[0] for line in out[2:]]
    # F1: owl 12/16, dog 20/24, cat 1, newt undefined.
    assert names == ["[bold]owl", "dog", "a", "newt"]
    owl = out[2].split()
    assert owl[1:4] == ["1.000", "0.600", "0.750"]
    assert owl[-3:] == ["10", "4", "dog"]
    assert out[4].startswith("a cat wit")
    assert out[5].split() == ["newt", "–", "–", "–", "–", "0", "–"]


@pytest.mark.parametrize("taken", [0, 1])
def test_a_gates_background_is_listed_where_a_clip_was_taken_for_it(taken):
    guess = [1, 1, 2, 0 if taken else 2]
    found = score([1, 1, 2, 2], np.eye(3)[guess], ["background", "cat", "dog"], range(4))
    names = [line.split()[0] for line in lines(class_table(found))[1:]]
    assert sorted(names) == ["background"] * taken + ["cat", "dog"]
    # It has no clip to be scored by, so it is not the worst.
    assert names[2:] == ["background"] * taken


def test_class_table_says_what_it_hides(scores):
    out = lines(class_table(scores, limit=2))
    assert [line.split()[0] for line in out[1:3]] == ["[bold]owl", "dog"]
    assert out[3] == "2 better classes are not shown."
    assert lines(class_table(scores, limit=3))[-1] == "1 better class is not shown."
    assert not any("shown" in line for line in lines(class_table(scores, limit=4)))


def _choice(precision, recall):
    return {
        "threshold": 0.9,
        "precision": precision,
        "recall": recall,
        "precision_interval": [0.0, 1.0],
        "false_alarms": 0.0,
    }


def test_thresholds_begin_with_the_class_that_is_found_least_among_the_equally_precise():
    choices = {"cow": _choice(1.0, 1.0), "dog": _choice(1.0, 0.75), "frog": _choice(1.0, 1 / 6)}
    shown = lines(threshold_table(choices), width=120)
    assert [line.split()[0] for line in shown[1:4]] == ["frog", "dog", "cow"]
    assert "less than half of the time: frog. A lower score (predict --min-score)" in shown[4]
    alright = {"cow": _choice(0.9, 0.5), "owl": _choice(None, None)}
    assert len(lines(threshold_table(alright))) == 3


def test_audit_table_joins_layers_that_behaved_alike():
    base = [f"yamnet/layer{i}/conv" for i in range(1, 15)]
    audit = [
        {
            "stage": "head",
            "layers": [
                *(layer(path, False, 0.0, weights=3) for path in base),
                layer("relu", False, 0.0, weights=0),
                layer("transfer_hidden", True, 0.25),
                layer("transfer_output", True, 0.5),
            ],
        },
        {
            "stage": "all",
            "layers": [
                *(layer(path, True, 2e-5 * 3**i, weights=3) for i, path in enumerate(base)),
                layer("transfer_hidden", True, 0.1),
                layer("transfer_output", True, 0.1),
            ],
        },
    ]
    out = lines(audit_table(audit, "What moved"))
    assert [line.split() for line in out[2:]] == [
        ["head"],
        ["layer1/conv", "…", "layer14/conv", "(14)", "42", "0.0", "stay"],
        ["transfer_hidden", "…", "transfer_output", "4", "0.25", "to", "0.5", "train"],
        ["all"],
        ["layer1/conv", "…", "transfer_output", "(16)", "46", "2.0e-05", "to", "32", "train"],
    ]


def test_audit_table_singles_out_what_was_not_meant():
    names = [f"base/a_long_name_of_a_block_{i}/depthwise_conv" for i in range(6)]
    layers = [layer(name, False, 0.0) for name in names]
    layers[3] = layer(names[3], False, 1e-7)
    layers += [
        layer("head", True, 0.0),
        layer("top", True, float("nan")),
        layer("end", True, None),
    ]
    out = lines(audit_table([{"stage": "[red]s", "layers": layers}]))
    body = [line for line in out[1:] if line.startswith("  ")]
    assert out[1] == "[red]s"
    assert len(body) == len(out) - 2 == 4
    assert [line.split()[-2:] for line in body] == [
        ["0.0", "stay"],
        ["stay:", "FAILED"],
        ["train:", "FAILED"],
        ["train:", "FAILED"],
    ]
    assert "1.0e-07" in body[1]
    assert "not finite" in body[3]
