"""A run with `keep_audioset` also gives YAMNet's own classes, as they were published."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import toy
import unfreeze
from exporting import need
from unfreeze.audio.decode import decode
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.backbones.yamnet import yamnet_with_top
from unfreeze.backbones.yamnet_spec import CLASSES, class_names
from unfreeze.cli.app import app
from unfreeze.pipeline import inference

SCHEDULE = unfreeze.Schedule(
    (unfreeze.Stage("top", train=["transfer_*", "top:1"], epochs=1, learning_rate=1e-3),)
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, yamnet_weights):
    """A run whose last block has moved."""
    folder = tmp_path_factory.mktemp("keep")
    data = toy.write_sounds(folder / "data", clips=3, classes=("high", "noise"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        # What `toy.register` leaves out, too: pictures, a report and a light form.
        for name in ("_draw", "_report", "_light"):
            monkeypatch.setattr(f"unfreeze.planning.{name}", lambda *run: "")
        toy.little_background(monkeypatch, trained=4, held=1, more=(1, 1))
        unfreeze.SoundClassifier.train(data, SCHEDULE, folder / "run", keep_audioset=True)
    return folder / "run", data


@pytest.fixture(scope="module")
def loaded(trained):
    return unfreeze.SoundClassifier.load(trained[0])


def files(data):
    return sorted(data.rglob("*.wav"))[::3]


def test_the_base_has_moved_and_the_521_have_not(trained, loaded, yamnet_weights):
    run, data = trained
    stages = json.loads((run / "audit.json").read_text())["stages"]
    moved = {row["layer"] for row in stages[-1]["layers"] if row["moved"] > 0}
    assert "block14_pointwise" in moved
    published = yamnet_with_top(yamnet_weights)
    assert loaded.audioset_labels == class_names()
    for file in files(data):
        expected = inference.file_scores(published, FrontEnd(), file)
        np.testing.assert_allclose(loaded.predict_audioset(file), expected, atol=1e-5)


def test_own_classes_are_given_as_ever(trained, loaded):
    _, data = trained
    several = loaded.predict(files(data))
    # High tones, noise, and the gate's background.
    assert several.shape == (len(files(data)), 3)
    np.testing.assert_allclose(several.sum(axis=1), 1, atol=1e-5)
    mine, own = loaded.predict_both(files(data))
    np.testing.assert_allclose(mine, several, atol=1e-6)
    assert own.shape == (len(files(data)), CLASSES)
    assert loaded.evaluate(data)["clips"] == 6


@pytest.mark.slow
@pytest.mark.needs_backend("tensorflow")
def test_an_export_gives_the_own_classes(trained, loaded, tmp_path, monkeypatch):
    monkeypatch.setattr("unfreeze.export.check._MEASURING", 0.0)
    onnxruntime = pytest.importorskip("onnxruntime")
    need("onnx")
    _, data = trained
    done = loaded.export("onnx", tmp_path / "m.onnx")
    assert list(done.details["outputs"]) == ["probabilities"]
    session = onnxruntime.InferenceSession(str(done.path))
    for file in files(data):
        (scores,) = session.run(None, {"waveform": decode(file)[None]})
        np.testing.assert_allclose(scores[0], loaded.predict(file), atol=1e-4)


def test_the_saved_model_gives_both_by_name(trained, loaded):
    _, data = trained
    waveform = decode(files(data)[0])
    out = loaded.model.predict(waveform[None], verbose=0)
    np.testing.assert_allclose(out["classes"][0], loaded.predict(waveform), atol=1e-4)
    np.testing.assert_allclose(out["audioset"][0], loaded.predict_audioset(waveform), atol=1e-4)


def test_events_are_of_the_own_classes(trained, loaded):
    _, data = trained
    blocks = list(loaded.scan(files(data)[0]))
    assert blocks[0].scores.shape[1] == 3


def test_predict_shows_both(trained):
    run, data = trained
    words = ["predict", str(run), str(data / "noise/noise_0.wav")]
    line = CliRunner().invoke(app, words).stdout
    assert "| AudioSet: " in line
    (row,) = json.loads(CliRunner().invoke(app, [*words, "--json", "--top", "2"]).stdout)
    assert len(row["classes"]) == len(row["audioset"]) == 2
    assert set(row["audioset"]) <= set(class_names())


def test_a_run_that_did_not_keep_them_says_so(monkeypatch, tmp_path):
    toy.register(monkeypatch, tmp_path)
    data = toy.write_sounds(tmp_path / "data", clips=4)
    classifier = unfreeze.SoundClassifier.train(data, "head_only", backbone="toy", epochs=1)
    assert classifier.audioset_labels == ()
    with pytest.raises(unfreeze.RunError, match="--keep-published"):
        classifier.predict_audioset(data / "low/low_0.wav")
    with pytest.raises(unfreeze.UnfreezeError, match="has no classes of its own"):
        unfreeze.SoundClassifier.train(data, backbone="toy", keep_audioset=True)
