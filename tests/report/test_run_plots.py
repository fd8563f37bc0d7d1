"""The pictures are read back: as pixels (PNG) and as text (SVG keeps its text)."""

import re
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from unfreeze.core.audit import Audit, LayerMovement, StageAudit
from unfreeze.errors import DataError
from unfreeze.picture import BLUE, GREY, PALE, VERMILLION
from unfreeze.pipeline.label_scoring import score_labels
from unfreeze.report.run_plots import (
    plot_classes,
    plot_confusion,
    plot_curves,
    plot_depths,
    plot_moved,
)
from unfreeze.report.tables import short

pytestmark = pytest.mark.filterwarnings("error")


def rgb(color):
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])


def count_of(color, png):
    pixels = np.round(imread(png)[:, :, :3] * 255)
    return int((np.abs(pixels - rgb(color)).max(axis=2) <= 1).sum())


def texts(svg):
    found = re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text(encoding="utf-8"))
    return [text.replace("&amp;", "&").replace("&lt;", "<") for text in found]


def history(*stages, **columns):
    """Rows of stages given as (name, epochs); loss falls, the last epoch is best."""
    rows = []
    for name, epochs in stages:
        for epoch in range(1, epochs + 1):
            step = len(rows) + 1
            row = {
                "stage": name,
                "epoch": epoch,
                "step": step,
                "seconds": 1.0,
                "learning_rate": 1e-3 / len(name),
                "loss": 2.0 / step,
                "accuracy": 1 - 1 / (step + 1),
                "val_loss": 2.5 / step,
                "val_accuracy": 1 - 1.2 / (step + 1),
                "best": epoch == epochs,
            }
            rows.append(row | columns)
    return rows


def stage(name, **moved):
    """A stage of the audit; a layer is frozen when its value is in `frozen`."""
    layers = [
        {"layer": layer, "weights": 2, "trainable": trainable, "moved": size, "max_abs": size}
        for layer, (trainable, size) in moved.items()
    ]
    return {"stage": name, "layers": layers}


@pytest.mark.parametrize(
    "stages", [[("head", 1)], [("head", 2), ("all", 1)], [("head", 100), ("all", 100)]]
)
def test_curves_are_drawn(tmp_path, stages):
    figure = plot_curves(history(*stages), tmp_path / "curves.png")
    assert figure.axes[-1].get_xlabel() == "epoch, over all stages"
    assert imread(tmp_path / "curves.png").shape[1] == 1350
    assert count_of(BLUE, tmp_path / "curves.png") > 50
    assert count_of(VERMILLION, tmp_path / "curves.png") > 50
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_curves_name_stages_and_best_values(tmp_path):
    plot_curves(history(("head", 4), ("all", 6)), tmp_path / "curves.svg")
    found = texts(tmp_path / "curves.svg")
    for text in ("head", "all", "loss", "accuracy", "training", "validation"):
        assert found.count(text) == 1, text
    # Last epochs of the stages are number 4 and 10 over all.
    for value in (2.5 / 4, 2.5 / 10, 1 - 1.2 / 5, 1 - 1.2 / 11):
        assert f"{value:.3g}" in found


def test_curves_mark_the_last_of_several_best_rows(tmp_path):
    rows = history(("head", 6))
    for row in rows:
        row["best"] = row["epoch"] in (1, 2, 4)
    plot_curves(rows, tmp_path / "curves.svg")
    found = texts(tmp_path / "curves.svg")
    assert f"{2.5 / 4:.3g}" in found
    assert f"{2.5 / 2:.3g}" not in found


def test_curves_without_validation(tmp_path):
    rows = history(("head", 5), val_loss=None, val_accuracy=float("nan"))
    plot_curves(rows, tmp_path / "curves.png")
    assert count_of(VERMILLION, tmp_path / "curves.png") == 0
    assert count_of(BLUE, tmp_path / "curves.png") > 50
    plot_curves(rows, tmp_path / "curves.svg")
    found = texts(tmp_path / "curves.svg")
    assert "validation" not in found
    assert "0.4" in found  # the best training loss, 2 / 5


def test_curves_leave_out_empty_panels(tmp_path):
    rows = history(("head", 5), accuracy=None, val_accuracy=None, learning_rate=None)
    plot_curves(rows, tmp_path / "curves.svg")
    found = texts(tmp_path / "curves.svg")
    assert "loss" in found
    assert "accuracy" not in found
    assert "rate" not in found


def test_curves_survive_an_explosion(tmp_path):
    rows = history(("head", 8))
    rows[3]["loss"], rows[4]["val_loss"] = 4e9, float("inf")
    plot_curves(rows, tmp_path / "curves.svg")
    # A logarithmic axis, with plain numbers.
    found = texts(tmp_path / "curves.svg")
    assert {"0.1", "100"} & set(found)
    assert not any("mathdefault" in text for text in found)


def test_long_names_are_cut_or_turned(tmp_path):
    rows = history(("head", 90), ("b", 2), ("a very long name of a stage", 2), ("x" * 200, 60))
    plot_curves(rows, tmp_path / "curves.svg")
    found = texts(tmp_path / "curves.svg")
    assert "a very l… a stage" not in found
    assert short("a very long name of a stage", 16) in found
    assert max(map(len, found)) < 60


def test_confusion_writes_counts_and_rows(tmp_path):
    labels = ["dog", "$cat_1$", "<owl> & co"]
    plot_confusion([[30, 4, 0], [0, 17, 0], [0, 0, 0]], labels, tmp_path / "confusion.svg")
    found = texts(tmp_path / "confusion.svg")
    for label in labels:
        assert len([t for t in found if t.replace("&gt;", ">") == label]) == 2
    for text in ("30", "4", "17", "30/34", "17/17", "0/0", "47 of 51 clips right (92.2%)"):
        assert found.count(text) == 1, text
    assert "0" not in found


@pytest.mark.parametrize("taken", [0, 1])
def test_a_gates_background_is_shown_where_a_clip_was_taken_for_it(taken, tmp_path):
    counts = [[0, 0, 0], [taken, 5, 1], [0, 0, 4]]
    plot_confusion(counts, ["background", "cat", "dog"], tmp_path / "confusion.svg")
    found = texts(tmp_path / "confusion.svg")
    assert found.count("background") == 2 * taken
    assert f"9 of {10 + taken} clips right ({900 / (10 + taken):.1f}%)" in found


# From 30 classes on the cells are no smaller.
@pytest.mark.parametrize("classes", [2, 10, 30])
def test_confusion_colours_the_share_of_the_row(tmp_path, classes):
    # Half of each row is right, whatever its number of clips; the rest is next door.
    counts = np.diag(np.arange(1, classes + 1) * 10)
    counts += np.roll(counts, 1, axis=1)
    plot_confusion(counts, [f"class {i}" for i in range(classes)], tmp_path / "confusion.png")
    color = matplotlib.colors.to_hex(matplotlib.colormaps["Blues"](0.5**0.6))
    cell = 150 * np.clip(8 / classes, 0.27, 0.9)
    area = cell**2 * 2 * classes
    # The layout may stretch the cells, and digits and grid lines cover some of them.
    assert 0.5 * area < count_of(color, tmp_path / "confusion.png") < 2 * area


def test_confusion_of_hundreds_of_classes_stays_a_picture(tmp_path):
    plot_confusion(np.eye(80, dtype=int), [f"c{i}" for i in range(80)], tmp_path / "c.png")
    height, width, _ = imread(tmp_path / "c.png").shape
    assert 2000 < max(height, width) < 3500


def test_moved_tells_frozen_from_moved(tmp_path):
    audit = [
        stage("head", conv=(False, 0.0), bn=(False, 0.0), dense=(True, 0.1)),
        stage("all", conv=(True, 1e-3), bn=(True, 1e-5), dense=(True, 0.01)),
    ]
    plot_moved(audit, tmp_path / "moved.png")
    assert count_of(BLUE, tmp_path / "moved.png") > 1000
    assert count_of(GREY, tmp_path / "moved.png") > 50
    assert count_of(VERMILLION, tmp_path / "moved.png") == 0
    plot_moved(audit, tmp_path / "moved.svg")
    found = texts(tmp_path / "moved.svg")
    assert "head: 1 of 3 layers meant to move" in found
    assert "all: 3 of 3 layers meant to move" in found
    for text in ("conv", "bn", "dense"):
        assert found.count(text) == 1, text
    assert {"0", "1e-5", "0.1"} <= set(found)
    assert not any("not as meant" in text for text in found)


@pytest.mark.parametrize(
    "wrong", [(False, 1e-12), (True, 0.0), (True, float("nan")), (True, float("inf")), (True, None)]
)
def test_moved_shows_what_was_not_meant(tmp_path, wrong):
    audit = [stage("head", conv=wrong, bn=(False, 0.0), dense=(True, 0.1))]
    plot_moved(audit, tmp_path / "moved.png")
    assert count_of(VERMILLION, tmp_path / "moved.png") > 50
    plot_moved(audit, tmp_path / "moved.svg")
    assert "1 not as meant" in texts(tmp_path / "moved.svg")


def test_moved_draws_heights_by_powers_of_ten(tmp_path):
    # One layer: the blue area grows by the same step for each power of ten.
    areas = []
    for size in (1e-3, 1e-2, 1e-1):
        audit = [stage("s", a=(True, size), low=(True, 1e-4), high=(True, 1.0))]
        plot_moved(audit, tmp_path / "moved.png")
        areas.append(count_of(BLUE, tmp_path / "moved.png"))
    assert areas[1] - areas[0] > 1000
    assert areas[2] - areas[1] == pytest.approx(areas[1] - areas[0], rel=0.05)


def test_moved_labels_are_short_and_unique(tmp_path):
    paths = ["base/a/conv", "base/a/conv/bn", "base/b/conv", "base/b/conv/bn", "head"]
    audit = [stage("all", **dict.fromkeys(paths, (True, 0.1)))]
    audit[0]["layers"].append({"layer": "relu", "weights": 0, "trainable": True, "moved": 0.0})
    plot_moved(audit, tmp_path / "moved.svg")
    found = texts(tmp_path / "moved.svg")
    assert [t for t in found if t in paths or t.split("/")[0] in ("a", "b", "relu")] == [
        "a/conv",
        "a/conv/bn",
        "b/conv",
        "b/conv/bn",
        "head",
    ]


def test_moved_of_many_layers_and_stages(tmp_path):
    names = [f"block_{i}_conv" for i in range(90)]
    audit = [
        stage(f"s{s}", **{n: (i >= 90 - 18 * s, 0.01 * (i >= 90 - 18 * s)) for i, n in names_at})
        for s, names_at in ((s, list(enumerate(names))) for s in range(1, 6))
    ]
    plot_moved(audit, tmp_path / "moved.svg")
    found = texts(tmp_path / "moved.svg")
    assert set(names) <= set(found)
    assert "s3: 54 of 90 layers meant to move" in found


def test_nothing_to_plot_is_refused(tmp_path):
    with pytest.raises(DataError, match="history is empty"):
        plot_curves([], tmp_path / "x.png")
    with pytest.raises(DataError, match="no numbers to plot"):
        plot_curves([{"stage": "head"}], tmp_path / "x.png")
    with pytest.raises(DataError, match=r"shape \(2, 2\); 3 labels"):
        plot_confusion(np.eye(2), ["a", "b", "c"], tmp_path / "x.png")
    with pytest.raises(DataError, match="no layer with weights"):
        plot_moved([{"stage": "head", "layers": []}], tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []


def test_settings_of_the_user_stay_and_do_not_leak(tmp_path):
    with matplotlib.rc_context({"axes.facecolor": "#00FF00", "font.size": 30.0}):
        before = dict(matplotlib.rcParams)
        plot_confusion(np.eye(3, dtype=int), ["a", "b", "c"], tmp_path / "own.png")
        plot_curves(history(("head", 3)), tmp_path / "curves.png")
        assert dict(matplotlib.rcParams) == before
    assert count_of("#00FF00", tmp_path / "curves.png") == 0
    plot_confusion(np.eye(3, dtype=int), ["a", "b", "c"], tmp_path / "default.png")
    assert np.array_equal(imread(tmp_path / "own.png"), imread(tmp_path / "default.png"))


def test_pyplot_and_keras_are_not_imported():
    code = (
        "import sys, unfreeze.report.run_plots, unfreeze.report.tables;"
        "sys.exit(bool({'matplotlib.pyplot', 'keras'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_moved_takes_the_audit_of_a_run_as_it_is(tmp_path):
    base = LayerMovement("base", 4, trainable=False, moved=0.0, max_abs=0.0)
    top = LayerMovement("top", 4, trainable=True, moved=0.5, max_abs=0.5)
    audit = Audit((StageAudit("head", (base, top)),))
    plot_moved(audit, tmp_path / "audit.png")
    plot_moved(audit.as_list(), tmp_path / "list.png")
    assert (tmp_path / "audit.png").read_bytes() == (tmp_path / "list.png").read_bytes()


def depths(*scores, peak=None, accuracies=None):
    """A depth profile of groups named block1, block2, ... ($_2 among them)."""
    names = [f"block{i}" if i != 2 else "block$_2" for i in range(1, len(scores) + 1)]
    groups = [
        {"group": name, "accuracy": accuracy, "balanced_accuracy": score}
        for name, accuracy, score in zip(names, accuracies or scores, scores, strict=True)
    ]
    found = {"groups": groups, "peak": None if peak is None else names[peak]}
    return {**found, "standard_error": 0.04, "chance": 0.1, "clips": 1160}


def test_depths_are_drawn(tmp_path):
    plot_depths(depths(0.5, 0.85, 0.8, 0.3, peak=1), tmp_path / "depths.png")
    assert count_of(BLUE, tmp_path / "depths.png") > 500
    # Two of four groups are above the peak.
    shaded = count_of(PALE, tmp_path / "depths.png")
    plot_depths(depths(0.5, 0.85, 0.8, 0.3), tmp_path / "none.png")
    assert shaded > 50_000
    assert count_of(PALE, tmp_path / "none.png") == 0


def test_depths_are_named_in_plain_words(tmp_path):
    plot_depths(depths(0.5, 0.85, 0.8, 0.3, peak=1), tmp_path / "depths.svg")
    found = texts(tmp_path / "depths.svg")
    for text in (
        "block1", "block$_2", "block4", "peak 85.0%", "chance", "100%",
        "layer group, read alone, from the network's input to its end",
        "accuracy on 1,160 validation clips", "balanced accuracy (mean over classes)",
        "within one standard error of the best", "above the peak",
    ):  # fmt: skip
        assert found.count(text) == 1, text
    assert "accuracy" not in found


def test_depths_show_accuracy_where_it_differs(tmp_path):
    profile = depths(0.5, 0.6, 1.0, peak=2, accuracies=(0.9, 0.9, 1.0))
    plot_depths(profile, tmp_path / "depths.svg")
    found = texts(tmp_path / "depths.svg")
    assert "accuracy" in found
    assert "peak 100.0%" in found
    # Nothing lies above the last group.
    assert "above the peak" not in found


def test_depths_of_clips_with_several_labels(tmp_path):
    profile = depths(0.5, 0.6, 1.0, peak=2)
    name = "mean_average_precision"
    rows = [{"group": row["group"], name: row["accuracy"]} for row in profile["groups"]]
    plot_depths({**profile, "score": name, "groups": rows}, tmp_path / "depths.svg")
    found = texts(tmp_path / "depths.svg")
    assert {"mean average precision", "precision on 1,160 validation clips"} <= set(found)


@pytest.mark.parametrize(("groups", "peak"), [(1, 0), (60, 59), (60, 0)])
def test_depths_of_small_and_large_networks(tmp_path, groups, peak):
    plot_depths(depths(*[0.5] * groups, peak=peak), tmp_path / "depths.png")
    assert count_of(BLUE, tmp_path / "depths.png") > 30


def test_no_depths(tmp_path):
    with pytest.raises(DataError, match="has no groups"):
        plot_depths(depths(), tmp_path / "depths.png")


def test_classes_that_were_tested_are_drawn_and_no_others(tmp_path, monkeypatch):
    table = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]] * 3)
    chances = np.column_stack([table[:, 0] * 0.9, 1 - table[:, 1], table[:, 2] + 0.1])
    scores = score_labels(table, chances, ["cat", "dog", "owl"], np.arange(12), resamples=50)
    seen = []
    monkeypatch.setattr(
        matplotlib.axes.Axes, "set_yticks", lambda self, places, names: seen.extend(names)
    )
    plot_classes(scores, tmp_path / "classes.png")
    # The best on top; owl is heard in no clip.
    assert seen == ["dog (6)", "cat (6)"]
    assert (tmp_path / "classes.png").stat().st_size > 5_000
