"""Sounds above what the network hears, brought into its range: training, events, export."""

import json

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

import toy
import unfreeze
from unfreeze.audio.decode import decode
from unfreeze.cli.app import app

RATE = 192_000


def call(rng, low, high, seconds=0.5):
    ticks = np.arange(round(seconds * RATE)) / RATE
    tone = 0.3 * np.sin(6.283 * rng.uniform(low, high) * ticks)
    return tone + 0.003 * rng.normal(size=len(ticks))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place, rng = tmp_path_factory.mktemp("bats"), np.random.default_rng(0)
    for name, low, high in (("noctule", 18_000, 25_000), ("pipistrelle", 42_000, 50_000)):
        (place / "data" / name).mkdir(parents=True)
        for number in range(12):
            soundfile.write(place / "data" / name / f"{number}.wav", call(rng, low, high), RATE)
    with pytest.MonkeyPatch.context() as monkeypatch:
        toy.register(monkeypatch, place)
        trained = unfreeze.SoundClassifier.train(
            place / "data", "probe", place / "run", backbone="toy", slow_down=10
        )
        yield trained, place


def test_what_was_too_high_is_heard(run):
    trained, place = run
    assert trained.metrics["test"]["accuracy"] == 1.0
    assert (trained.sample_rate, trained.front_end.high_hz) == (160_000, 75_000)
    loaded = unfreeze.SoundClassifier.load(place / "run")
    assert loaded.front_end == trained.front_end
    file = place / "data" / "noctule" / "0.wav"
    waveform = decode(file, loaded.sample_rate)
    assert loaded.model.predict(waveform[None], verbose=0)[0] == pytest.approx(
        trained.predict(file), abs=1e-4
    )


def test_events_have_the_time_of_the_recording(run, tmp_path):
    trained, _ = run
    rng = np.random.default_rng(1)
    low, high = call(rng, 20_000, 21_000, 1.0), call(rng, 44_000, 46_000, 1.0)
    wave = np.concatenate([low, high, low])
    soundfile.write(tmp_path / "night.wav", wave, RATE)
    events = [e for e in trained.detect(tmp_path / "night.wav") if e.label == "pipistrelle"]
    longest = max(events, key=lambda event: event.end - event.start)
    assert longest.start == pytest.approx(1, abs=0.1)
    assert longest.end == pytest.approx(2, abs=0.1)


@pytest.mark.slow
@pytest.mark.needs_backend("tensorflow")
def test_exports_say_the_rate(run, tmp_path):
    pytest.importorskip("onnxruntime")
    import onnxruntime

    trained, _ = run
    exported = trained.export("onnx", tmp_path / "bats.onnx")
    session = onnxruntime.InferenceSession(str(exported.path))
    settings = json.loads(next(iter(session.get_modelmeta().custom_metadata_map.values())))
    assert settings["sample_rate"] == 160_000
    assert settings["front_end"]["slow_down"] == 10


def test_evaluate_says_that_recordings_are_too_slow(run, tmp_path):
    trained, place = run
    assert trained.evaluate(place / "data")["problems"] == []
    assert "listens up to" not in (trained.evaluate(place / "data")["note"] or "")
    for name in ("noctule", "pipistrelle"):
        (tmp_path / "slow" / name).mkdir(parents=True)
        for number in range(3):
            ticks = np.arange(8_000) / 16_000
            wave = 0.1 * np.sin(6.283 * (300 + 100 * number + 7 * len(name)) * ticks)
            soundfile.write(tmp_path / "slow" / name / f"{number}{name}.wav", wave, 16_000 + number)
    note = trained.evaluate(tmp_path / "slow")["note"]
    assert "No recording holds sound above 8.001 kHz" in note
    assert "the network listens up to 75 kHz" in note


def test_inspect_says_what_fits(run):
    _, place = run
    report = CliRunner().invoke(app, ["inspect", str(place / "data"), "--json"])
    rules = {problem["rule"] for problem in json.loads(report.stdout)["problems"]}
    assert "too_high" in rules
    words = ["inspect", str(place / "data"), "--slow-down", "40", "--json"]
    (problem,) = json.loads(CliRunner().invoke(app, words).stdout)["problems"]
    assert problem["rule"] == "slow_down"
    assert "no recording holds sound above 96 kHz" in problem["cause"]
    words = ["inspect", str(place / "data"), "--slow-down", "10", "--json"]
    assert json.loads(CliRunner().invoke(app, words).stdout)["problems"] == []
