"""Pictures of comparisons and searches, read back as text."""

import re

import pytest

from comparing import record
from unfreeze.compare.summary import summarize
from unfreeze.report.comparison_plots import (
    plot_accuracies,
    plot_costs,
    plot_detection,
    plot_distances,
    plot_search,
)

pytestmark = pytest.mark.filterwarnings("error")
NAMES = [f"g{i}" for i in range(10)]


def texts(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text(encoding="utf-8"))


@pytest.fixture
def made():
    records = [
        record(name, seed, right=[i < right for i in range(10)], groups=NAMES, seen=[1] * 10,
               seconds=cost)
        for name, right, cost in (("$a$_b", 9, 5.0), ("full", 6, 60.0))
        for seed in range(2)
    ]  # fmt: skip
    summary = summarize(records, ["$a$_b", "full"], grouped=True, planned=4)
    return summary.as_plain()["rows"], records


def test_accuracies(made, tmp_path):
    plot_accuracies(made[0], True, tmp_path / "a.svg")
    shown = texts(tmp_path / "a.svg")
    assert {"$a$_b", "full", "unseen groups", "new clips of the trained groups"} <= set(shown)
    assert "accuracy, 95 % interval over groups and seeds" in shown
    plot_accuracies(made[0], False, tmp_path / "b.svg")
    assert "unseen groups" not in texts(tmp_path / "b.svg")
    assert "accuracy, 95 % interval over clips and seeds" in texts(tmp_path / "b.svg")


def test_detectors(made, tmp_path):
    for row, score in zip(made[0], (0.9, 0.4), strict=True):
        row["scores"]["recordings"] = {"accuracy": score, "interval": None}
    plot_detection(made[0], tmp_path / "a.svg")
    shown = texts(tmp_path / "a.svg")
    assert {"$a$_b", "full"} <= set(shown)
    assert "mean average precision of events, 95 % interval over recordings and seeds" in shown


def test_costs_have_plain_numbers(made, tmp_path):
    plot_costs(made[0], True, tmp_path / "a.svg")
    shown = texts(tmp_path / "a.svg")
    assert {"$a$_b", "full", "10", "50"} <= set(shown)
    assert not any("mathdefault" in text for text in shown)


def test_close_accuracies_have_ticks_that_differ(tmp_path):
    rows = [
        {"strategy": name, "seconds": 2.0 + k, "scores": {"test": {"accuracy": 0.9 + k / 100}}}
        for k, name in enumerate("abc")
    ]
    plot_costs(rows, False, tmp_path / "a.svg")
    ticks = [text for text in texts(tmp_path / "a.svg") if text.endswith("%")]
    assert len(ticks) == len(set(ticks)) > 3
    assert {"90%", "90.5%"} <= set(ticks)


def test_distances_leave_out_what_never_moves(made, tmp_path):
    plot_distances(made[0], made[1], tmp_path / "a.svg")
    svg = (tmp_path / "a.svg").read_text()
    shown = texts(tmp_path / "a.svg")
    assert {"block1", "head", "$a$_b (90.0%)", "full (60.0%)"} <= set(shown)
    assert not any("mathdefault" in text for text in shown)
    # Two layers move: the convolution (mean 0.15) and the dense layer; BatchNorm does not.
    assert svg.count('id="xtick_') == 2


def test_search(tmp_path):
    plot_search([0.5, 0.4, 0.7], tmp_path / "a.svg")
    assert {"two_stage", "70%"} <= set(texts(tmp_path / "a.svg"))
