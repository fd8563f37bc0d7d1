"""The light form, as `train` and `export` write it, against Keras."""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

import exporting
import toy
import unfreeze
from unfreeze.audio.clip_model import clip_parts_of
from unfreeze.audio.clip_parts import ClipParts
from unfreeze.cli.app import app
from unfreeze.errors import ExportError, RunError
from unfreeze.pipeline.light_form import FILE, load_light

pytestmark = pytest.mark.needs_backend("tensorflow")


@pytest.fixture(autouse=True)
def _packages():
    exporting.need("onnx")


def light_of(run):
    return unfreeze.SoundClassifier(*load_light(run), run)


def assert_same(run, sounds):
    """Scores within 1e-5 and the same events, on clips and on a long recording."""
    ours, theirs = unfreeze.SoundClassifier.load(run), light_of(run)
    assert not isinstance(ours._model, ClipParts)
    for name in ("labels", "front_end", "multilabel", "notice", "published_labels"):
        assert getattr(theirs, name) == getattr(ours, name)
    np.testing.assert_array_equal(theirs.thresholds, ours.thresholds)
    np.testing.assert_allclose(theirs.predict(sounds), ours.predict(sounds), atol=1e-5)
    if ours.published_labels:
        for a, b in zip(theirs.predict_both(sounds), ours.predict_both(sounds), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
    for sound in sounds:
        for hop in (None, 2 * ours.front_end.step / ours.sample_rate):
            blocks = [list(x.scan(sound, hop=hop)) for x in (theirs, ours)]
            for a, b in zip(*blocks, strict=True):
                np.testing.assert_array_equal(a.starts, b.starts)
                np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)
            found = [x.detect(sound, hop=hop) for x in (theirs, ours)]
            assert [e.label for e in found[0]] == [e.label for e in found[1]]
            # Where a score crosses a threshold, between two patches, follows from both scores.
            bounds = [np.array([(e.start, e.end) for e in events]) for events in found]
            np.testing.assert_allclose(*bounds, atol=1e-3)


def train(data, run, *options):
    words = ["train", str(data), "--out", str(run), "--seed", "3", *options]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_train_writes_it_with_the_gate_in_it(tmp_path, monkeypatch):
    toy.register(monkeypatch, tmp_path, gate=True, light=True)
    data = toy.write_sounds(tmp_path / "data", clips=8, classes=("high", "low"))
    shown = train(data, tmp_path / "run", "--backbone", "toy", "--schedule", "probe")
    assert "light.onnx is written: predict, listen, serve and evaluate run from it" in shown
    assert "background" in light_of(tmp_path / "run").labels
    toy.write_annotated(tmp_path / "field", seconds=60)
    assert_same(tmp_path / "run", [tmp_path / "field/site.wav", data / "high/high_0.wav"])
    # Trained on and saved again: the old form is not taken for the new model's.
    with (tmp_path / "run/model.keras").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(RunError, match="another model"):
        light_of(tmp_path / "run")


def test_export_writes_it_beside_the_onnx_file(tmp_path, monkeypatch):
    """Mel windows, several labels, a licence, and the classes of the backbone itself."""
    toy.register_windows(monkeypatch, tmp_path)
    monkeypatch.setenv("UNFREEZE_ACCEPT_LICENCE", "windows")
    data = toy.write_mixed(tmp_path / "data", clips=24)
    run = tmp_path / "run"
    options = ("--backbone", "windows", "--schedule", "probe", "--keep-published", "--no-gate")
    assert "light.onnx" not in train(data / "manifest.csv", run, *options)
    assert not (run / FILE).exists()
    result = CliRunner().invoke(app, ["export", str(run), "--format", "onnx"])
    assert result.exit_code == 0, result.output
    assert f"{run / FILE}  predict, listen, serve" in result.output
    light = light_of(run)
    assert (light.multilabel, light.published_labels) == (True, toy.OWN)
    assert light.notice
    toy.write_annotated(tmp_path / "field", seconds=30)
    assert_same(run, [tmp_path / "field/site.wav", data / "1.wav"])


def test_an_export_to_elsewhere_leaves_the_run_as_it_is(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs["two"], run)
    assert unfreeze.export_model(run, "onnx", tmp_path / "other.onnx").light is None
    assert not (run / FILE).exists()


def test_a_form_that_differs_is_not_written(runs, tmp_path, monkeypatch):
    from unfreeze.export import to_light

    run = tmp_path / "run"
    shutil.copytree(runs["two"], run)
    classifier = unfreeze.SoundClassifier.load(run)
    monkeypatch.setattr(to_light, "TOLERANCE", -1.0)
    with pytest.raises(ExportError, match=r"light form differs from the model by .* not written"):
        to_light.write_light(run, clip_parts_of(classifier.model))
    assert [x.name for x in run.iterdir() if "light" in x.name or "partial" in x.name] == []


@pytest.mark.slow
def test_a_run_is_finished_without_it(tmp_path, monkeypatch):
    """Where its packages are missing, and where it cannot be written: a note, no more."""
    toy.register(monkeypatch, tmp_path, light=True)
    data = toy.write_sounds(tmp_path / "data", clips=6, classes=("high", "low"))
    options = ("--backbone", "toy", "--schedule", "probe")

    def fail(run, parts):
        raise ValueError("no such operation\nand more")

    monkeypatch.setattr("unfreeze.export.to_light.write_light", fail)
    shown = train(data, tmp_path / "run", *options)
    told = "The light form could not be written (no such operation). Try again with `unfreeze exp"
    assert told in shown
    monkeypatch.setattr("unfreeze.export.formats.missing_modules", lambda form: ["tf2onnx"])
    assert "light" not in train(data, tmp_path / "again", *options)
    for run in ("run", "again"):
        assert json.loads((tmp_path / run / "metrics.json").read_text())["test"]
