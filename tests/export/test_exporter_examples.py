"""The examples of docs/export.md, run as they stand, without unfreeze, Keras and TensorFlow."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from unfreeze.export import to_saved_model
from unfreeze.export.formats import FORMATS

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.needs_backend("tensorflow")
DOCS = Path(__file__).parents[2] / "docs" / "export.md"
BLOCKS = dict(
    re.findall(r"```(?:python|js)\n(?:#|//) (\S+)\n(.*?)```", DOCS.read_text(), re.DOTALL)
)
BLOCKED = (
    "import sys; sys.modules.update(dict.fromkeys({names}))\nexec(open(sys.argv.pop(1)).read())"
)


@pytest.mark.parametrize(
    "name",
    [
        "litert",
        "onnx",
        *(pytest.param(x, marks=pytest.mark.slow) for x in ("openvino", "saved_model")),
    ],
)
def test_the_example_prints_the_models_scores(classifier, runs, tmp_path, name):
    form = FORMATS[name]
    for module in form.writers:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    code = BLOCKS[f"{name}.py"]
    assert len([line for line in code.splitlines() if line]) <= 15
    done = classifier.export(name, tmp_path / f"model{form.ending}")
    (tmp_path / "example.txt").write_text(code)
    sound = sorted(Path(runs["three"].parent, "three data").rglob("*.wav"))[9]
    blocked = ["unfreeze", "keras", *([] if name == "saved_model" else ["tensorflow"])]
    shown = subprocess.run(
        [sys.executable, "-c", BLOCKED.format(names=blocked), tmp_path / "example.txt",
         done.path, sound],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    rows = [line.split(" ", 1) for line in shown.stdout.splitlines()]
    assert [label for _, label in rows] == list(classifier.labels)
    np.testing.assert_allclose(
        [float(score) for score, _ in rows], classifier.predict(sound), atol=2e-4
    )


def test_the_mean_over_fixed_windows_is_the_score_of_the_whole(classifier, tmp_path):
    space = {"np": np}
    exec(BLOCKS["windows.py"], space)
    run = to_saved_model.load(classifier.export("saved_model", tmp_path / "m", length=15_600).path)
    rng = np.random.default_rng(0)
    for samples in (3000, 15_600, 15_601, 60_000):
        sound = rng.uniform(-0.4, 0.4, samples).astype(np.float32)
        rows = [run(window[None])["probabilities"][0] for window in space["windows"](sound)]
        np.testing.assert_allclose(np.mean(rows, axis=0), classifier.predict(sound), atol=1e-4)


def test_the_example_runs_in_tensorflow_js(classifier, tmp_path):
    node = shutil.which("node")
    if (
        not node
        or subprocess.run(
            [node, "-e", "require('@tensorflow/tfjs')"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("Node.js with @tensorflow/tfjs is not there (NODE_PATH)")
    folder = classifier.export("tfjs", tmp_path / "web").path
    sound = np.random.default_rng(0).uniform(-0.3, 0.3, 20_000).astype("<f4")
    sound.tofile(tmp_path / "sound.f32")
    # Files are read as a browser would fetch them, by one loader for both parts.
    code = f"""
const fs = require("fs"), tf = require("@tensorflow/tfjs");
const model = JSON.parse(fs.readFileSync("model.json"));
const [group] = model.weightsManifest;
const whole = Buffer.concat(group.paths.map((path) => fs.readFileSync(path)));
const weightData = new Uint8Array(whole).buffer;
const files = {{load: async () => ({{...model, weightSpecs: group.weights, weightData}})}};
{BLOCKS["tfjs.js"]}
const bytes = new Uint8Array(fs.readFileSync("../sound.f32")).buffer;
classify(files, new Float32Array(bytes)).then((rows) => console.log(JSON.stringify(rows)));
"""
    done = subprocess.run(
        [node, "-e", code], capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])
    assert [label for label, _ in rows] == list(classifier.labels)
    np.testing.assert_allclose([x for _, x in rows], classifier.predict(sound), atol=1e-4)
