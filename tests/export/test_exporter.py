"""Every format, loaded in its own runtime; formats whose packages are missing are skipped."""

import importlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

import unfreeze
from exporting import need
from unfreeze.audio.clip_model import parts_of
from unfreeze.backend import has_module
from unfreeze.errors import ExportError, RunError
from unfreeze.export.formats import FORMATS
from unfreeze.export.program import with_outputs

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.needs_backend("tensorflow")


def reader(name):
    return importlib.import_module(f"unfreeze.export.to_{name}")


# With OpenVINO it takes ten times as long; real sounds of any length are compared, too. By day
# TensorFlow.js is compared in int8.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(x, marks=[pytest.mark.slow] if x in ("openvino", "tfjs") else [])
        for x in FORMATS
    ],
)
def test_any_length_and_batch_equals_the_model(runs, sounds, tmp_path, name):
    need(name)
    classifier = unfreeze.SoundClassifier.load(runs["two"])
    done = classifier.export(name, tmp_path / f"out{FORMATS[name].ending}", embeddings=True)
    run = reader(name).load(done.path)
    model = with_outputs(classifier.model, embeddings=True)
    for sound in sounds:
        given = run(sound)
        wanted = [np.asarray(x) for x in model(sound, training=False)]
        assert given["probabilities"].shape == (len(sound), 2)
        assert given["embeddings"].shape == (len(sound), parts_embedding(classifier))
        np.testing.assert_allclose(given["probabilities"], wanted[0], atol=1e-4)
        np.testing.assert_allclose(given["embeddings"], wanted[1], atol=1e-4 * wanted[1].max())
        np.testing.assert_allclose(wanted[0], classifier.model(sound), atol=1e-6)


def parts_embedding(classifier):
    return parts_of(classifier.model)[0].get_layer("transfer_output").input.shape[-1]


def test_two_classes_from_a_run_folder_to_its_default_place(runs):
    done = unfreeze.export_model(runs["two"], "saved_model")
    assert done.path == runs["two"] / "model-saved_model"
    run = reader("saved_model").load(done.path)
    sound = np.zeros((1, 8000), np.float32)
    assert run(sound)["probabilities"].sum() == pytest.approx(1, abs=1e-5)
    with pytest.raises(RunError, match="--overwrite"):
        unfreeze.export_model(runs["two"], "saved_model")
    unfreeze.export_model(runs["two"], "saved_model", overwrite=True)
    assert not list(runs["two"].glob(".partial*"))
    assert not list(runs["two"].glob(".lock*"))


def test_what_a_killed_export_left_is_removed_by_the_next(runs, tmp_path):
    shutil.copy(runs["two"] / "model.keras", tmp_path / "mine.keras")
    code = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from unfreeze.files import partial_folder\n"
        "with partial_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'variables').mkdir()\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
    left = sorted(path.name[:6] for path in tmp_path.iterdir())
    assert left == [".lock-", ".parti", "mine.k"]
    # Of another program, by its name.
    (tmp_path / ".lock-mine").touch()
    (tmp_path / ".partial-mine").mkdir()
    done = unfreeze.export_model(tmp_path / "mine.keras", "saved_model")
    assert done.path == tmp_path / "mine-saved_model"
    # Without a run there are no recordings of it.
    assert "20 synthetic sounds" in done.details["check"]["compared_on"]
    assert {path.name for path in tmp_path.iterdir()} == {
        ".lock-mine", ".partial-mine", "mine.keras", "mine-saved_model", "mine-saved_model.json",
    }  # fmt: skip


def test_an_export_that_differs_is_not_kept(classifier, tmp_path, monkeypatch):
    """A weight that changes between model and file, as a converter's fault would do it."""
    from unfreeze.export import program

    freeze = program.freeze

    def faulty(model, samples):
        kernel = classifier.model.get_layer("patch_classifier").get_layer("transfer_output").kernel
        kept = np.array(kernel)
        kernel.assign(kept + 0.1 * np.arange(3))
        graph = freeze(model, samples)
        kernel.assign(kept)
        return graph

    monkeypatch.setattr(program, "freeze", faulty)
    out = tmp_path / "out"
    with pytest.raises(ExportError, match=r"differs from the model: largest difference 0\.\d"):
        classifier.export("saved_model", out)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_made_is_refused_first(classifier, tmp_path, monkeypatch):
    with pytest.raises(ExportError, match="Did you mean 'onnx'"):
        classifier.export("onx")
    with pytest.raises(
        ExportError, match="SavedModel cannot be quantized to 'int8': it supports none"
    ):
        classifier.export("saved_model", quantize="int8")
    with pytest.raises(ExportError, match="at least 1 sample"):
        classifier.export("saved_model", length=0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="not an unfreeze export"):
        classifier.export("saved_model", tmp_path / "mine", overwrite=True)
    find = has_module
    monkeypatch.setattr(
        "unfreeze.export.formats.has_module", lambda name: name != "openvino" and find(name)
    )
    with pytest.raises(ExportError, match=r'pip install "unfreeze\[openvino\]"'):
        classifier.export("openvino", tmp_path / "x.xml")
    monkeypatch.undo()
    if find("onnx"):
        with pytest.raises(ExportError, match=r"must end in \.onnx"):
            classifier.export("onnx", tmp_path / "x.bin")
