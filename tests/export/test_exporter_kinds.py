"""Fixed length, float32 and every quantization that a format has; what the files say."""

import importlib
import importlib.util
import json

import numpy as np
import pytest

from exporting import need
from unfreeze.export.formats import FORMATS

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.needs_backend("tensorflow")
LABELS = ["Kuh & Kalb", "the cat's", "犬"]
# By day each format in the kind that changes most, and OpenVINO, whose conversion takes ten times
# as long, as it is. The formats in float32 are compared in test_exporter.py, too.
BY_DAY = {
    ("openvino", None),
    ("litert", "int8"),
    ("onnx", "int8"),
    ("tfjs", "int8"),
}
CASES = [
    pytest.param(*case, marks=() if case in BY_DAY else pytest.mark.slow)
    for form in FORMATS.values()
    for case in ((form.name, kind) for kind in (None, *form.quantize))
]
ALLOWED = {None: 1e-4, "float16": 0.02, "int8": 0.35}


def reader(name):
    return importlib.import_module(f"unfreeze.export.to_{name}")


@pytest.mark.parametrize(("name", "quantize"), CASES)
def test_a_fixed_length_in_every_kind(classifier, sounds, tmp_path, name, quantize):
    need(name, quantize)
    out = tmp_path / f"out{FORMATS[name].ending}"
    done = classifier.export(name, out, quantize=quantize, length=15_600)
    given = reader(name).load(out)(sounds[2])["probabilities"]
    wanted = classifier.model.predict_on_batch(sounds[2])
    assert given.shape == (1, 3)
    np.testing.assert_allclose(given, wanted, atol=ALLOWED[quantize])
    if quantize is not None:
        # It is quantized: not the very same numbers.
        assert np.abs(given - wanted).max() > 1e-7
    settings = reader(name).read_settings(out)
    assert settings["labels"] == LABELS
    assert settings["sample_rate"] == 16_000
    assert settings["quantize"] == quantize
    assert settings["input"]["waveform"] == [1, 15_600]
    # What the file says of itself is what stands beside it.
    report = json.loads(done.report.read_text(encoding="utf-8"))
    assert {key: report[key] for key in settings} == settings
    assert report["check"]["compared_on"] == "3 test clips of the run"
    assert report["check"]["largest_difference"] <= ALLOWED[quantize]
    assert report["check"]["front_end_difference"] <= 1e-4
    if quantize == "int8" and name != "tfjs":
        assert "train clips of the run" in report["check"]["calibrated_on"]
    assert sorted(tmp_path.iterdir()) == sorted(
        {out, done.report, *([out.with_suffix(".bin")] if name == "openvino" else [])}
    )
