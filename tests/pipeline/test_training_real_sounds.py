"""The whole road on real recordings with YAMNet's real weights."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import unfreeze
from exporting import need
from unfreeze.pipeline.train_options import HEAD


@pytest.fixture
def animals(shared_data, yamnet_weights):
    return shared_data / "animal-sounds"


def movements(run, stage):
    stages = json.loads((run / "audit.json").read_text())["stages"]
    layers = next(s["layers"] for s in stages if s["stage"] == stage)
    return {layer["layer"]: layer for layer in layers}


@pytest.mark.slow
def test_three_stages_on_real_recordings(animals, tmp_path):
    schedule = unfreeze.Schedule(
        (
            unfreeze.Stage("head", train=HEAD, epochs=8),
            unfreeze.Stage("top", train=[HEAD, "top:1"], epochs=1, learning_rate=1e-4),
            unfreeze.Stage("all", epochs=1, learning_rate=1e-4, batch_norm="affine"),
        )
    )
    run = tmp_path / "run"
    classifier = unfreeze.SoundClassifier.train(animals, schedule, run, taps="none")
    assert classifier.metrics["test"]["accuracy"] >= 0.8
    assert classifier.metrics["test"]["clips"] >= 50

    head = movements(run, "head")
    base = [name for name in head if not name.startswith("transfer_")]
    assert len(base) == 54
    assert all(head[name]["moved"] == 0.0 and head[name]["max_abs"] == 0.0 for name in base)
    assert all(head[name]["moved"] > 0 for name in ("transfer_dense", "transfer_output"))

    top = movements(run, "top")
    moved = {name for name, layer in top.items() if layer["moved"] > 0}
    assert moved == {
        "block14_depthwise", "block14_pointwise", "transfer_dense", "transfer_output",
    }  # fmt: skip

    # Every base layer, the BatchNorm layers by their beta.
    everything = movements(run, "all")
    assert all(layer["moved"] > 0 for layer in everything.values())

    clip = sorted((animals / "dog").iterdir())[0]
    loaded = unfreeze.SoundClassifier.load(run)
    np.testing.assert_allclose(loaded.predict(clip), classifier.predict(clip), atol=1e-6)


@pytest.fixture(scope="module")
def trained(shared_data, yamnet_weights, tmp_path_factory):
    """The default schedule on ten clips of each class; its 20 epochs would take minutes."""
    folder = tmp_path_factory.mktemp("default")
    for path in sorted((shared_data / "animal-sounds").iterdir()):
        (folder / "sounds" / path.name).mkdir(parents=True)
        for clip in sorted(path.iterdir())[:10]:
            shutil.copy(clip, folder / "sounds" / path.name)
    return unfreeze.SoundClassifier.train(
        folder / "sounds", out=folder / "run", seed=0, epochs=1
    ), folder / "run"


@pytest.mark.slow
def test_the_default_schedule_on_animal_sounds(animals, tmp_path):
    # Its 20 epochs take minutes; the head alone has 0.917 of this split right.
    run = tmp_path / "run"
    classifier = unfreeze.SoundClassifier.train(animals, out=run, seed=0, epochs=1)
    assert classifier.metrics["test"]["accuracy"] >= 0.85
    assert_it_went_by_the_default(classifier, run)


@pytest.mark.slow
def test_the_default_schedule_on_ten_clips_of_each_class(trained):
    classifier, run = trained
    # 12 of 15 clips were right; by chance, at most 5 are in 99 of 100 runs.
    assert classifier.metrics["test"]["accuracy"] >= 0.6
    assert_it_went_by_the_default(classifier, run)


def assert_it_went_by_the_default(classifier, run):
    assert classifier.metrics["depths"]["peak"] is not None
    assert all(
        layer["moved"] == 0.0
        for name, layer in movements(run, "head").items()
        if name != "transfer_output"
    )
    assert all(layer["moved"] > 0 for layer in movements(run, "all").values() if layer["trainable"])


@pytest.mark.slow
@pytest.mark.needs_backend("tensorflow")
def test_the_onnx_file_of_it_equals_keras(trained, tmp_path):
    """All formats, on more clips, are in tests/export/test_exporter_real_sounds.py."""
    need("onnx")
    done = unfreeze.export_model(trained[1], "onnx", tmp_path / "out.onnx")
    check = done.details["check"]
    assert check["compared_on"].endswith("test clips of the run")
    assert check["largest_difference"] <= 1e-4
    assert check["hard_sounds"]["largest_difference"] <= 1e-4
    assert check["front_end_difference"] <= 1e-4
    assert check["top_class_agreement"] == 1.0


@pytest.mark.slow
def test_a_split_by_speaker_keeps_speakers_apart(shared_data, yamnet_weights, tmp_path):
    """On unseen speakers a head on YAMNet embeddings is above chance, and far from good."""
    schedule = unfreeze.head_only(HEAD)
    schedule = replace(schedule, stages=(replace(schedule.stages[0], epochs=15, until=None),))
    run = tmp_path / "run"
    classifier = unfreeze.SoundClassifier.train(
        shared_data / "spoken-digits", schedule, run, taps="none"
    )
    test = classifier.metrics["test"]
    assert test["groups"] == 1
    assert 0.12 <= test["accuracy"] <= 0.6
    rows = [line.split(",") for line in (run / "splits.csv").read_text().splitlines()[1:]]
    speakers = {part: {row[2] for row in rows if row[3] == part} for part in ("train", "test")}
    assert not speakers["train"] & speakers["test"]
    assert len(speakers["train"]) == 4
