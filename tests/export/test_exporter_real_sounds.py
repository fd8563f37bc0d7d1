"""YAMNet's real weights and real recordings through every format."""

import csv
import functools
import importlib
import importlib.util

import numpy as np
import pytest

import unfreeze
from unfreeze.audio.decode import decode
from unfreeze.export.formats import FORMATS

pytest.importorskip("tensorflow")
pytestmark = [pytest.mark.slow, pytest.mark.needs_backend("tensorflow")]
ANIMALS = "animal-sounds"


def need(name, quantize=None):
    form = FORMATS[name]
    for module in (*form.writers, *(form.quantize[quantize] if quantize else ())):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


@pytest.fixture(scope="module")
def run(shared_data, yamnet_weights, tmp_path_factory):
    out = tmp_path_factory.mktemp("real") / "run"
    unfreeze.SoundClassifier.train(shared_data / ANIMALS, "probe", out)
    return out


@pytest.fixture(scope="module")
def plain(shared_data, yamnet_weights, tmp_path_factory):
    """A head on the embedding alone."""
    out = tmp_path_factory.mktemp("plain") / "run"
    data = shared_data / ANIMALS
    unfreeze.SoundClassifier.train(data, "head_only", out, epochs=10, taps="none")
    return out


@functools.cache
def answers_of(run, data):
    """The run's classifier, its test clips with their class, and how many it has right itself."""
    classifier = unfreeze.SoundClassifier.load(run)
    with (run / "splits.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    clips = [(decode(data / row["path"]), classifier.labels.index(row["label"])) for row in rows]
    right = sum(int(classifier.predict(sound).argmax() == truth) for sound, truth in clips)
    return classifier, clips, right


@pytest.mark.parametrize("name", FORMATS)
def test_float_exports_equal_keras_on_50_real_clips(run, tmp_path, name):
    need(name)
    out = tmp_path / f"out{FORMATS[name].ending}"
    check = unfreeze.export_model(run, name, out, embeddings=True).details["check"]
    assert check["compared_on"] == "50 test clips of the run"
    assert check["largest_difference"] <= 1e-4
    assert check["embedding_difference"] <= 1e-4
    assert check["hard_sounds"]["largest_difference"] <= 1e-4
    assert check["front_end_difference"] <= 1e-4
    assert check["top_class_agreement"] == 1.0


# The projection of a read-out stays in floats. With OpenVINO a read-out is off by about as much as
# is allowed, on some processors by a little more, and is then refused.
@pytest.mark.parametrize(
    ("which", "name", "most"),
    [
        *(("plain", name, 6.2e6) for name in ("litert", "onnx", "openvino", "tfjs")),
        *(("run", name, 21e6) for name in ("litert", "onnx", "tfjs")),
    ],
)
def test_int8_keeps_the_accuracy_on_unseen_clips(request, shared_data, tmp_path, which, name, most):
    need(name, "int8")
    classifier, clips, right = answers_of(request.getfixturevalue(which), shared_data / ANIMALS)
    done = classifier.export(name, tmp_path / f"out{FORMATS[name].ending}", quantize="int8")
    quantized = importlib.import_module(f"unfreeze.export.to_{name}").load(done.path)
    found = sum(
        int(np.argmax(quantized(sound[None])["probabilities"]) == truth) for sound, truth in clips
    )
    assert len(clips) == 60
    assert found >= right - 3
    assert done.details["bytes"] < most
