"""The rules of `benchmarks.evidence_epochs`, played on made-up epochs."""

import numpy as np
import pytest
from benchmarks.evidence_epochs import RULES, clip_numbers, play


def rows(*values):
    """Epochs of (loss, accuracy, tempered loss) on the validation clips, one patch a clip."""
    return [
        {
            "epoch": place,
            "patch_loss": loss,
            "patch_accuracy": accuracy,
            "validation": {"loss": loss, "accuracy": accuracy, "tempered": tempered},
        }
        for place, (loss, accuracy, tempered) in enumerate(values, start=1)
    ]


EPOCHS = rows((1.0, 0.5, 0.9), (0.8, 0.6, 0.8), (1.2, 0.7, 0.7), (1.1, 0.7, 0.6), (1.3, 0.6, 0.6))


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("loss of patches", 2),
        ("accuracy of patches", 3),
        ("accuracy of patches, then loss", 4),
        ("loss of clips", 2),
        ("accuracy of clips", 3),
        ("accuracy of clips, then loss", 4),
        ("tempered loss of clips", 4),
        ("the last epoch", 5),
    ],
)
def test_a_rule_keeps_its_best_epoch(name, kept):
    rule = next(rule for rule in RULES if rule.name == name)
    row, epochs = play(EPOCHS, rule, 100)
    assert (row["epoch"], epochs) == (kept, 5)


def test_patience_ends_the_stage():
    by_loss = RULES[0]
    assert [play(EPOCHS, by_loss, patience)[1] for patience in (1, 2, 3, 4)] == [3, 4, 5, 5]


def test_a_temperature_takes_confidence_out_of_the_loss():
    truth = np.array([0, 0, 1, 1])
    sure = np.array([[0.999, 0.001], [0.999, 0.001], [0.001, 0.999], [0.999, 0.001]])
    found = clip_numbers(sure, truth)
    assert found["accuracy"] == 0.75
    assert found["loss"] == pytest.approx((3 * -np.log(0.999) - np.log(0.001)) / 4)
    # Three of four right, all equally sure: the best that can be said is 3/4.
    assert found["tempered"] == pytest.approx(-0.75 * np.log(0.75) - 0.25 * np.log(0.25), rel=1e-3)
