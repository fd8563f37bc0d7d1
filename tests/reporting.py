"""Run folders whose model is made up, with real sounds and real scores, for tests of reports."""

import csv
import json
import shutil

import numpy as np
import pytest

import toy
from unfreeze.audio.manifest import heard_table, read_manifest
from unfreeze.audio.sources import Reading
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.detection.detector import make_detector
from unfreeze.detection.event_evaluation import THRESHOLDS, Tally, summary
from unfreeze.detection.event_scoring import Rules, Truth, as_spans
from unfreeze.detection.events import DetectOptions
from unfreeze.pipeline import run_folder
from unfreeze.pipeline.calibration import calibrate
from unfreeze.pipeline.evaluation import score_clips
from unfreeze.pipeline.predictions import write_predictions
from unfreeze.pipeline.thresholds import COUNTS, choose, count
from unfreeze.pipeline.wish import Wish

#: Names that would run, or end a tag, if they were not escaped.
EVIL, EVIL_FILE = "<img src=x onerror=alert(1)>&'\"", "<script>alert(1)<.wav"
#: The name of a class that no column has room for.
LONG = "a $name^ that [bold]is[/bold] much longer than its column"
LAYERS = (
    {"layer": "conv", "weights": 8, "trainable": False, "moved": 0.0},
    {"layer": "head", "weights": 4, "trainable": True, "moved": 0.5},
)


def write_data(folder, clips=8):
    """Toy sounds; one class and one recording have evil names."""
    toy.write_sounds(folder, clips)
    (folder / "high").rename(folder / EVIL)
    (folder / "low" / "low_0.wav").rename(folder / "low" / EVIL_FILE)
    return folder


def write_run(out, data, wrong=0.3, *, several=False, held="test", seed=0):
    """A finished run in which a share of the held-out clips is wrong; returns its metrics.

    Every second clip is held out.
    """
    manifest = read_manifest(data, how=Reading())
    assert manifest.several == several
    labels, rng = manifest.labels, np.random.default_rng(seed)
    table = heard_table(manifest)
    clips = np.arange(0, len(manifest.clips), 2)
    sure = np.where(table[clips] > 0.5, 0.9, 0.05) + rng.uniform(0, 0.05, (len(clips), len(labels)))
    for row in np.flatnonzero(rng.uniform(size=len(clips)) < wrong):
        sure[row] = np.roll(sure[row], 1)
    scores = sure if several else sure / sure.sum(axis=1, keepdims=True)
    found = score_clips(manifest, clips, scores, labels)
    counts = count(labels, table[clips], scores, np.ones(len(clips)), len(clips))
    chosen = dict(zip(labels, choose(counts, Wish()), strict=True))
    metrics = {"test": None, "validation": None, held: found, "background": True}
    metrics |= {"threshold_choices": {x: c.as_plain() for x, c in chosen.items()}}
    metrics |= {"threshold_wish": str(Wish()), COUNTS: counts.as_plain()}
    if not several:
        truth = table[clips].argmax(axis=1)
        metrics |= calibrate(labels, (truth, scores), (truth, scores, scores))
    metrics["depths"] = {
        "groups": [
            {"group": f"block{n}", "accuracy": n / 4, "balanced_accuracy": n / 4} for n in (1, 3, 2)
        ],
        "peak": "block3",
        "standard_error": 0.1,
        "chance": 1 / 3,
        "clips": 12,
        "summary": "block3 knows most.",
    }
    config = {
        "unfreeze": "0.2",
        "command": f"unfreeze train {data} --out {out}",
        "keras": "3",
        "options": {"data": str(data), "schedule": "probe", "backbone": "yamnet", "seed": 0},
        "labels": list(labels),
        "multilabel": several,
        "data": {"root": str(manifest.root), "fingerprint": manifest.fingerprint},
        "weights": {"sha256": "ab" * 32},
    }
    out.mkdir(parents=True)
    run_folder.write_config(out, config)
    rows = [
        {
            "path": clip.path.relative_to(manifest.root).as_posix(),
            "label": clip.label,
            "group": clip.group,
            "split": held if number in clips else "train",
        }
        for number, clip in enumerate(manifest.clips)
    ]
    run_folder.write_table(out / run_folder.SPLITS, rows)
    cuts = [row["threshold"] for row in found["per_class"].values()] if several else None
    write_predictions(out, manifest, {held: (clips, scores)}, labels, cuts)
    epochs = [
        {
            "stage": "head",
            "epoch": n,
            "C": c,
            "loss": 1 / n,
            "val_loss": 1.2 / n,
            "best": n == 2,
            "seconds": n,
        }
        for n, c in ((1, 1.0), (2, 0.1))
    ]
    epochs += [
        {"stage": "all", "epoch": n, "loss": 0.4 / n, "val_loss": 0.5 / n, "accuracy": n / 4}
        | {"best": n == 3}
        for n in (1, 2, 3)
    ]
    run_folder.write_table(out / run_folder.HISTORY, epochs)
    stages = [{"stage": "head", "layers": LAYERS}]
    (out / run_folder.AUDIT).write_text(json.dumps({"format": 1, "stages": stages}))
    problem = {"path": "low/<b>.wav", "rule": "silent", "cause": "is silent", "fatal": True}
    about = {"format": 1, "notes": ["Mind <this>."], "hours": 0.5, "problems": [problem]}
    (out / run_folder.NOTES).write_text(json.dumps(about))
    run_folder.write_scores(out, metrics)
    return metrics


def rows_of(file):
    """The rows of a CSV file."""
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with data and a finished run on them; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    write_run(folder / "run", write_data(folder / "data"))
    return folder


@pytest.fixture
def own(made, tmp_path):
    """The same, to change; the recordings are elsewhere than in the run's settings."""
    shutil.copytree(made / "data", tmp_path / "data")
    shutil.copytree(made / "run", tmp_path / "run")
    config = (tmp_path / "run" / "config.yaml").read_text()
    (tmp_path / "run" / "config.yaml").write_text(config.replace(str(made), str(tmp_path)))
    return tmp_path


def detector_scores(labels, *, full=True, sounds=20, seed=0):
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
