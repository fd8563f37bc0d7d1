"""The whole road from a PyTorch file of weights: EfficientAT trained, kept, exported."""

import json

import keras
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import efficientat_made as made
import toy
import unfreeze
from unfreeze.audio.decode import decode
from unfreeze.audio.front_ends import patches_of
from unfreeze.backbones import efficientat_spec
from unfreeze.backbones.registry import get_backbone
from unfreeze.cli.app import app

NAME = "efficientat-mn04"
# A network larger than the toy that tests of the pipeline train.
pytestmark = pytest.mark.slow

SCHEDULE = """
unfreeze_schedule: 1
name: short
stages:
  - {name: head, train: "transfer_*", epochs: 1, learning_rate: 0.01}
  - {name: all, train: "*", epochs: 1, learning_rate: 0.0001}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Toy sounds, and weights by a formula as `torch.save` writes them."""
    torch = pytest.importorskip("torch")
    place = tmp_path_factory.mktemp("efficientat")
    toy.write_sounds(place / "data", clips=5, classes=("high", "low"))
    (place / "short.yaml").write_text(SCHEDULE)
    with np.load(made.NUMBERS) as numbers:
        state = made.state(numbers["mn04_names"], numbers["mn04_shapes"])
    torch.save({name: torch.tensor(x) for name, x in state.items()}, place / "mine.pt")
    with pytest.MonkeyPatch.context() as monkeypatch:
        toy.register(monkeypatch, place)
        monkeypatch.delenv("UNFREEZE_EFFICIENTAT_MN04_WEIGHTS", raising=False)
        yield place


@pytest.fixture(scope="module")
def run(folder):
    options = {
        "--out": folder / "run",
        "--backbone": NAME,
        "--weights": folder / "mine.pt",
        "--schedule": folder / "short.yaml",
        "--augment": "strong",
    }
    pairs = [str(part) for pair in options.items() for part in pair]
    done = CliRunner().invoke(app, ["train", str(folder / "data"), *pairs, "--keep-published"])
    assert done.exit_code == 0, done.output
    return folder / "run"


def test_a_run_trains_the_network_and_knows_its_weights(run, folder):
    stages = json.loads((run / "audit.json").read_text())["stages"]
    moved = {row["layer"] for row in stages[-1]["layers"] if row["moved"] > 0}
    assert {"block0_conv", "block4_squeeze_conv", "block16_conv"} <= moved
    config = yaml.safe_load((run / "config.yaml").read_text())
    # None is pinned, so it is that of the tensors in the user's file.
    assert len(config["weights"]["sha256"]) == 64
    cached = folder / "cache" / "weights" / f"{NAME}.safetensors"
    assert config["weights"]["file"] == str(cached)


def test_the_run_hears_as_the_network_does_and_keeps_its_classes(run, folder):
    loaded = unfreeze.SoundClassifier.load(run)
    assert loaded.front_end == efficientat_spec.FRONT_END
    assert loaded.published_key == "audioset"
    sound = sorted((folder / "data" / "high").iterdir())[0]
    chances = loaded.predict(sound)
    samples = decode(sound, 32_000)
    outputs = {
        name: keras.ops.convert_to_numpy(found)[0]
        for name, found in loaded.model(samples[None]).items()
    }
    np.testing.assert_allclose(outputs["classes"], chances, atol=1e-4)
    published = get_backbone(NAME).build_published()
    patches = patches_of(samples, loaded.front_end)
    expected = np.asarray(published.predict(patches, verbose=0)).mean(axis=0)
    np.testing.assert_allclose(outputs["audioset"], expected, atol=1e-4)


@pytest.mark.needs_backend("tensorflow")
def test_the_onnx_export_agrees(run, folder):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    done = CliRunner().invoke(
        app, ["export", str(run), "--format", "onnx", "--out", str(folder / "model.onnx")]
    )
    assert done.exit_code == 0, done.output
    loaded = unfreeze.SoundClassifier.load(run)
    session = runtime.InferenceSession(str(folder / "model.onnx"))
    sound = sorted((folder / "data" / "low").iterdir())[0]
    samples = decode(sound, 32_000)[None]
    (probabilities, *_) = session.run(["probabilities"], {"waveform": samples})
    np.testing.assert_allclose(probabilities[0], loaded.predict(sound), atol=1e-4)
