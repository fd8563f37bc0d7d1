"""The whole road with a network that reads mel windows, and whose licence must be accepted."""

import io
import json

import numpy as np
import pytest
import soundfile
import soxr
import yaml
from typer.testing import CliRunner

import toy
import unfreeze
from unfreeze.audio.decode import decode
from unfreeze.backbones import licence
from unfreeze.cli.app import app
from unfreeze.detection.events import DetectOptions
from unfreeze.errors import WeightsError

SCHEDULE = unfreeze.Schedule(
    (
        unfreeze.Stage("head", train="transfer_*", epochs=2, learning_rate=1e-2),
        unfreeze.Stage("top", train=["transfer_*", "top:1"], epochs=1, learning_rate=1e-3),
    )
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("windows")


@pytest.fixture(scope="module")
def data(folder):
    return toy.write_sounds(folder / "data", clips=6)


@pytest.fixture(scope="module", autouse=True)
def backbone(folder):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.delenv(licence.VARIABLE, raising=False)
        toy.register_windows(monkeypatch, folder)
        yield


@pytest.fixture(scope="module")
def run(folder, data):
    """A run that keeps the network's own classes."""
    with pytest.raises(WeightsError, match=r"(?s)Toy licence.*--accept-licence"):
        unfreeze.SoundClassifier.train(data, SCHEDULE, folder / "none", backbone="windows")
    assert not (folder / "none").exists()
    unfreeze.SoundClassifier.train(
        *(data, SCHEDULE, folder / "run"),
        backbone="windows",
        keep_published=True,
        accept_licence=True,
    )
    return folder / "run"


@pytest.fixture(scope="module")
def loaded(run):
    return unfreeze.SoundClassifier.load(run)


def test_the_licence_goes_with_the_run_and_the_model(run, loaded):
    notice = toy.TERMS.notice()
    assert (run / "LICENCE.txt").read_text() == notice + "\n"
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["licence"] == loaded.notice == notice
    assert config["options"]["keep_published"] is True
    # An acceptance is no setting of a run.
    assert "--accept-licence" not in config["command"]


def test_stages_train_what_they_say(run, loaded):
    assert loaded.labels == ("high", "low", "noise")
    assert set(json.loads((run / "metrics.json").read_text())) >= {"test", "validation"}
    stages = json.loads((run / "audit.json").read_text())["stages"]
    moved = [{row["layer"] for row in s["layers"] if row["moved"] > 0} for s in stages]
    assert moved == [{"transfer_output"}, {"block2_conv", "transfer_output"}]


def test_prediction_is_the_saved_models(loaded, data):
    file = sorted(data.rglob("*.wav"))[0]
    waveform = decode(file, 12_000)
    assert loaded.sample_rate == 12_000
    both = loaded.model.predict(waveform[None], verbose=0)
    assert set(both) == {"classes", "own"}
    np.testing.assert_allclose(loaded.predict(file), both["classes"][0], atol=1e-4)
    np.testing.assert_allclose(loaded.predict_published(file), both["own"][0], atol=1e-4)
    assert (loaded.published_labels, loaded.published_title) == (toy.OWN, "Toy")


def test_own_classes_are_as_published(loaded, data):
    from unfreeze.audio.front_ends import patches_of

    waveform = decode(sorted(data.rglob("*.wav"))[0], 12_000)
    published = toy.build_windows(own=True).predict(patches_of(waveform, toy.WINDOWS), verbose=0)
    np.testing.assert_allclose(
        loaded.predict_published(waveform), published.mean(axis=0), atol=1e-5
    )


@pytest.mark.parametrize("hop", [None, 0.1])
def test_long_recordings_are_scanned_in_windows(loaded, tmp_path, hop):
    rng = np.random.default_rng(0)
    sound = np.concatenate([np.zeros(24_000), 0.3 * np.sin(np.arange(24_000) * 0.12)])
    sound[24_000:] += 0.01 * rng.normal(size=24_000)
    soundfile.write(tmp_path / "long.wav", soxr.resample(sound, 12_000, 16_000), 16_000)
    blocks = list(loaded.scan(tmp_path / "long.wav", hop=hop))
    starts = np.concatenate([block.starts for block in blocks])
    ends = np.concatenate([block.ends for block in blocks])
    silent = np.concatenate([block.silent for block in blocks])
    step = hop or 0.25
    np.testing.assert_allclose(starts, np.arange(len(starts)) * step, atol=1e-9)
    assert ends[-1] == pytest.approx(4.0, abs=1e-3)
    assert (ends[:-2] - starts[:-2]).tolist() == pytest.approx([0.5] * (len(starts) - 2))
    # Resampling rings a little before the sound begins.
    assert silent[: int(1.4 / step)].all()
    assert not silent[starts > 2].any()
    assert loaded.detector(DetectOptions(hop=hop)).window == 0.5


def test_the_command_line_names_the_networks_own_classes(run, data, monkeypatch):
    file = sorted(data.rglob("*.wav"))[0]
    shown = CliRunner().invoke(app, ["predict", str(run), str(file), "--json"])
    assert shown.exit_code == 0, shown.output
    (row,) = json.loads(shown.output)
    assert set(row["own"]) <= set(toy.OWN)


def test_it_is_served(loaded):
    for package in ("fastapi", "uvicorn", "python_multipart"):
        pytest.importorskip(package)
    httpx = pytest.importorskip("httpx")
    from serving import running

    file = io.BytesIO()
    soundfile.write(file, 0.3 * np.sin(np.arange(32_000) * 0.1), 16_000, format="WAV")
    sent = {"file": ("a.wav", file.getvalue())}
    with running(loaded) as url:
        query = {"spectrogram": "true", "hop": 0.5}
        answer = httpx.post(f"{url}/predict", files=sent, params=query, timeout=60)
        refused = httpx.post(f"{url}/predict", files=sent, params={"hop": 0.6}, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["spectrogram"]["high_hz"] == 5_000
    # Longer than what the network hears at once.
    assert refused.status_code == 422


@pytest.mark.slow
def test_clips_are_added_to_the_run_and_heard_in_noise(run, folder):
    more = toy.write_sounds(folder / "more", clips=2, seed=9)
    added = unfreeze.SoundClassifier.train(
        more, out=folder / "added", add_to=run, epochs=1, in_noise=True
    )
    assert added.notice == toy.TERMS.notice()
    config = yaml.safe_load((folder / "added" / "config.yaml").read_text())
    assert config["options"]["backbone"] == "windows"
