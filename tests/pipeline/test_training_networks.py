"""Runs on networks with a card: frozen files, and Keras models of the user's own."""

import json
import shutil

import keras
import numpy as np
import pytest
import yaml

import networks
import toy
import unfreeze
from unfreeze.errors import RunError, ScheduleError, UnfreezeError, WeightsError
from unfreeze.pipeline.gate import with_gate
from unfreeze.pipeline.train_options import TrainOptions


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with toy sounds, a frozen network and a module of the user's own."""
    folder = tmp_path_factory.mktemp("networks")
    with pytest.MonkeyPatch.context() as monkeypatch:
        toy.register(monkeypatch, folder)
        toy.write_sounds(folder / "data", clips=14)
        (folder / "own_networks.py").write_text(networks.MODULE)
        pytest.importorskip("onnxruntime")
        networks.write_onnx(folder / "net.onnx", outputs=("scores", "places"))
        networks.write_card(folder / "net.onnx", embedding="[scores, places]")
        yield folder


@pytest.fixture(scope="module")
def frozen(place):
    out = place / "frozen"
    return unfreeze.SoundClassifier.train(
        place / "data", out=out, backbone=str(place / "net.onnx"), schedule="probe"
    )


def own(place, model, front_end="log-mel", **more):
    said = {"model": model, "sample_rate": 16_000, "window": 0.96, "front_end": front_end, **more}
    card = place / f"{model.split(':')[-1]}.yaml"
    card.write_text("".join(f"{key}: {value}\n" for key, value in said.items()))
    return str(card)


def test_a_head_on_a_frozen_network(frozen, place):
    assert frozen.metrics["test"]["accuracy"] > 0.8
    assert frozen.sample_rate == networks.RATE
    config = yaml.safe_load((place / "frozen" / "config.yaml").read_text())
    assert config["options"]["backbone"] == str(place / "net.onnx")
    assert config["card"]["front_end"]["network"]["outputs"] == ["scores", "places"]
    assert config["card"]["sha256"] == config["weights"]["sha256"]
    moved = json.loads((place / "frozen" / "audit.json").read_text())["stages"]
    assert [stage["stage"] for stage in moved] == ["head"]


def test_it_predicts_the_same_however_it_is_asked(frozen, place):
    loaded = unfreeze.SoundClassifier.load(place / "frozen")
    sound = sorted((place / "data" / "high").iterdir())[0]
    chances = loaded.predict(sound)
    np.testing.assert_array_equal(chances, frozen.predict(sound))
    assert frozen.labels[chances.argmax()] == "high"
    import soundfile

    wave = soundfile.read(sound, dtype="float32")[0]
    np.testing.assert_allclose(loaded.predict(wave), chances, 0, 1e-5)
    inside = keras.ops.convert_to_numpy(loaded.model(wave[None]))
    np.testing.assert_allclose(inside[0], chances, 0, 1e-5)
    events = loaded.detect(sound, min_score=0.5, hop=0.1)
    assert {event.label for event in events} == {"high"}


def test_the_features_are_kept_when_another_network_is_tried(place, frozen):
    stores = sorted(path.name for path in (place / "cache" / "features").iterdir())
    other = networks.write_onnx(place / "other.onnx", outputs=("scores",), opset=16)
    networks.write_card(other)
    trained = unfreeze.SoundClassifier.train(
        place / "data", out=place / "other", backbone=str(other), schedule="head_only", epochs=2
    )
    assert trained.front_end.patch_shape == (5,)
    assert set(stores) < {path.name for path in (place / "cache" / "features").iterdir()}


def test_a_run_says_when_the_networks_file_is_gone(place, frozen, monkeypatch):
    run, file = shutil.copytree(place / "frozen", place / "copied"), place / "net.onnx"
    kept = file.rename(place / "kept.onnx")
    try:
        with pytest.raises(WeightsError, match=r"there is none at .*net.onnx: put it back"):
            unfreeze.SoundClassifier.load(run)
        monkeypatch.setenv("UNFREEZE_NET_WEIGHTS", str(kept))
        sound = sorted((place / "data" / "low").iterdir())[0]
        found = unfreeze.SoundClassifier.load(run).predict(sound)
        np.testing.assert_array_equal(found, frozen.predict(sound))
    finally:
        kept.rename(file)


def test_more_clips_are_added_to_the_same_network_alone(place, frozen, monkeypatch):
    run = place / "frozen"
    monkeypatch.chdir(place)
    toy.write_sounds(place / "more", clips=3, seed=5)
    options = {"add_to": run, "even_if_worse": True}
    more = unfreeze.SoundClassifier.train("more", out=place / "added", **options)
    assert more.metrics["change"]["test"]["after"]["accuracy"] > 0.8
    # The same card by another name is the same network.
    unfreeze.planning.complete_options("more", backbone="net.onnx", **options)
    with pytest.raises(RunError, match="cannot be compared"):
        unfreeze.planning.complete_options("more", backbone="yamnet", **options)
    file = place / "net.onnx"
    before = file.read_bytes()
    networks.write_onnx(file, outputs=("scores", "places"), opset=15)
    try:
        with pytest.raises(WeightsError, match="is not the network net as it was"):
            unfreeze.SoundClassifier.train("more", out=place / "again", **options)
    finally:
        file.write_bytes(before)


def test_what_cannot_be_done_is_refused_before_anything_is_read(place):
    nothing, network = place / "no-data", str(place / "net.onnx")
    for told, kind, options in (
        ("stage 'all' of probe_tune would train it: add --schedule probe", ScheduleError, {}),
        ("--in-noise", UnfreezeError, {"schedule": "probe", "in_noise": True}),
        ("there is no other file of weights", WeightsError, {"schedule": "probe", "weights": "x"}),
        ("no classes of its own", UnfreezeError, {"schedule": "probe", "keep_published": True}),
    ):
        with pytest.raises(kind, match=told):
            unfreeze.SoundClassifier.train(
                nothing, out=place / "refused", backbone=network, **options
            )
    assert not (place / "refused").exists()


@pytest.mark.parametrize(
    ("model", "front_end", "more"),
    [
        ("own_networks:build", "log-mel", {"embedding": "vector"}),
        ("own_networks:raw", "waveform", {}),
    ],
)
def test_a_keras_model_trains_by_the_default_schedule(model, front_end, more, place):
    out = place / model.split(":")[1]
    options = TrainOptions(
        place / "data", out=out, backbone=own(place, model, front_end, **more), epochs=2
    )
    trained = unfreeze.SoundClassifier.from_options(options)
    stages = json.loads((out / "audit.json").read_text())["stages"]
    assert [stage["stage"] for stage in stages] == ["head", "start", "all"]
    assert trained.metrics["test"]["accuracy"] > 0.6
    # The network is part of the model: no file but the run's own is needed.
    sound = sorted((place / "data" / "noise").iterdir())[0]
    loaded = unfreeze.SoundClassifier.load(out)
    np.testing.assert_allclose(loaded.predict(sound), trained.predict(sound), 0, 1e-6)
    assert loaded.front_end.high_hz == 8_000


def test_a_frozen_network_has_a_gate(place, monkeypatch):
    # Left out for the other tests.
    monkeypatch.setattr("unfreeze.pipeline.training.with_gate", with_gate)
    toy.little_background(monkeypatch)
    trained = unfreeze.SoundClassifier.train(
        place / "data",
        out=place / "gated",
        backbone=str(place / "net.onnx"),
        schedule="probe",
        validation=0.3,
    )
    assert "background" in trained.labels
    hum = 0.01 * np.sin(2 * np.pi * 50 * np.arange(32_000) / 16_000).astype(np.float32)
    assert trained.labels[trained.predict(hum).argmax()] == "background"
