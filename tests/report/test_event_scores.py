"""Tables and pictures of a detector's scores."""

import numpy as np
import pytest
from rich.console import Console

from unfreeze.backbones.frontend import FrontEnd
from unfreeze.detection.detector import make_detector
from unfreeze.detection.event_evaluation import THRESHOLDS, Tally, summary
from unfreeze.detection.event_scoring import Rules, Truth, as_spans
from unfreeze.detection.events import DetectOptions
from unfreeze.report.event_scores import (
    MOST_PANELS,
    event_tables,
    plot_false_alarms,
    plot_precision_recall,
)

LONG = "a $name^ that [bold]is[/bold] much longer than its column"


def scores_of(labels, *, full=True, sounds=20, seed=0):
    """Scores of random detections of random sounds in an hour."""
    rng = np.random.default_rng(seed)
    detector = make_detector(
        FrontEnd(), labels, np.linspace(0.3, 0.7, len(labels)), DetectOptions()
    )
    truths, levels = {}, [{} for _ in range(1 + len(THRESHOLDS))]
    for label in labels:
        starts = rng.uniform(0, 3500, sounds)
        truths[label] = Truth(as_spans([(s, s + 2) for s in starts]))
        begins = np.concatenate([starts + rng.normal(0, 0.5, sounds), rng.uniform(0, 3500, 30)])
        values = np.concatenate([rng.beta(4, 2, sounds), rng.beta(2, 4, 30)])
        for level, found in zip((0.5, *THRESHOLDS), levels, strict=True):
            found[label] = as_spans([(s, s + 2) for s in abs(begins[values >= level])])
    tally = Tally.empty(labels, len(levels))
    tally.add(truths, levels, 3600.0, Rules())
    scores = summary(tally, detector, Rules(), full=full)
    return {**scores, "unknown_classes": {}, "notes": [], "problems": []}


def text_of(scores, width=80):
    console = Console(width=width, record=True, color_system=None)
    console.print(event_tables(scores, "run on field"))
    return console.export_text()


def test_the_tables_have_every_number():
    scores = scores_of(["cat", "dog", LONG])
    text = text_of(scores)
    for rule in ("overlap", "IoU", "onset", "segments"):
        row = scores["overall"][rule.lower()]
        shown = next(line for line in text.splitlines() if line.startswith(f"{rule} "))
        keys = ("precision", "recall", "f1", "macro_f1", "mean_average_precision")
        assert shown.split()[1:] == [f"{row[key]:.3f}" for key in keys]
    assert "60 true events" in text
    assert f"{scores['false_alarms']['per_hour']:.1f} an hour" in " ".join(text.split())
    assert "starts at most 0.5 s apart" in text
    assert "taken as complete" in text
    cat = next(line for line in text.splitlines() if line.startswith("cat"))
    row = scores["per_class"]["cat"]
    assert cat.split()[1:3] == ["20", str(row["found_events"])]
    assert f"{row['overlap']['average_precision']:.3f}" in cat
    assert f"{row['false_alarms_per_hour']:.1f}" in cat


def test_the_tables_fit_and_show_names_as_they_are():
    text = text_of(scores_of(["cat", LONG], sounds=2000))
    assert max(map(len, text.splitlines())) <= 80
    assert "a $name" in text
    rows = [line for line in text.splitlines() if line.startswith(("cat", "a $name"))]
    assert all(line.rstrip()[-1].isdigit() for line in rows)


def test_an_incomplete_annotation_has_no_false_alarms_an_hour():
    text = text_of(scores_of(["cat"], full=False))
    assert "an hour" not in text
    assert "taken as incomplete" in text
    assert next(x for x in text.splitlines() if x.startswith("cat")).split()[-1] == "–"


@pytest.mark.parametrize("labels", [["cat"], ["cat", LONG], [f"class {i}" for i in range(30)]])
@pytest.mark.parametrize("plot", [plot_precision_recall, plot_false_alarms])
def test_pictures_have_a_panel_for_each_class(labels, plot, tmp_path):
    plot(scores_of(labels), tmp_path / "curves.svg")
    drawn = (tmp_path / "curves.svg").read_text()
    assert "all classes" in drawn
    # Without two for all classes together, and with more classes than can be read.
    assert drawn.count("(20 true)") == min(len(labels), MOST_PANELS - 1) + (len(labels) == 1)


@pytest.mark.parametrize("plot", [plot_precision_recall, plot_false_alarms])
def test_nothing_found_and_nothing_true_can_be_drawn(plot, tmp_path):
    tally = Tally.empty(["cat", "dog"], 1 + len(THRESHOLDS))
    nothing = {label: Truth(as_spans([])) for label in ("cat", "dog")}
    tally.add(nothing, [{} for _ in range(1 + len(THRESHOLDS))], 10.0, Rules())
    detector = make_detector(FrontEnd(), ["cat", "dog"], np.array([0.5, 0.5]), DetectOptions())
    scores = summary(tally, detector, Rules(), full=True)
    plot(scores, tmp_path / "empty.png")
    assert (tmp_path / "empty.png").stat().st_size > 1000
    assert "–" in text_of(scores)
