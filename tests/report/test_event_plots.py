"""Pictures of a detector's curves."""

import numpy as np
import pytest
from rich.console import Console

from reporting import LONG, detector_scores
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.detection.detector import make_detector
from unfreeze.detection.event_evaluation import THRESHOLDS, Tally, summary
from unfreeze.detection.event_scoring import Rules, Truth, as_spans
from unfreeze.detection.events import DetectOptions
from unfreeze.report import event_plots
from unfreeze.report.event_plots import plot_false_alarms, plot_precision_recall
from unfreeze.report.event_scores import event_tables


@pytest.mark.parametrize("labels", [["cat"], ["cat", LONG], [f"class {i}" for i in range(8)]])
@pytest.mark.parametrize("plot", [plot_precision_recall, plot_false_alarms])
def test_pictures_have_a_panel_for_each_class(labels, plot, tmp_path, monkeypatch):
    monkeypatch.setattr(event_plots, "MOST_PANELS", 6)
    plot(detector_scores(labels), tmp_path / "curves.svg")
    drawn = (tmp_path / "curves.svg").read_text()
    assert "all classes" in drawn
    # Without two for all classes together, and with more classes than can be read.
    assert drawn.count("(20 true)") == min(len(labels), 6 - 1) + (len(labels) == 1)


@pytest.mark.parametrize("plot", [plot_precision_recall, plot_false_alarms])
def test_nothing_found_and_nothing_true_can_be_drawn(plot, tmp_path):
    tally = Tally.empty(["cat", "dog"], 1 + len(THRESHOLDS))
    nothing = {label: Truth(as_spans([])) for label in ("cat", "dog")}
    tally.add(nothing, [{} for _ in range(1 + len(THRESHOLDS))], 10.0, Rules())
    detector = make_detector(FrontEnd(), ["cat", "dog"], np.array([0.5, 0.5]), DetectOptions())
    scores = summary(tally, detector, Rules(), full=True)
    plot(scores, tmp_path / "empty.png")
    assert (tmp_path / "empty.png").stat().st_size > 1000
    console = Console(width=80, record=True, color_system=None)
    console.print(event_tables(scores))
    assert "–" in console.export_text()
