"""One channel of several: in training, prediction, events and live."""

import os
import threading

import numpy as np
import pytest
import soundfile

import toy
import unfreeze
from unfreeze.audio.decode import Resampler
from unfreeze.audio.decode_processes import Decoders
from unfreeze.audio.rules import examine
from unfreeze.detection.live_sources import pipe_blocks
from unfreeze.errors import DataError

RATE = toy.RATE


@pytest.fixture
def stereo(tmp_path):
    """The same noise on the left for both classes; the right alone tells them apart."""
    rng = np.random.default_rng(0)
    for label, pitch in (("high", 3000), ("low", 250)):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(12):
            ticks = np.arange(RATE) / RATE
            left = 0.3 * rng.normal(size=RATE)
            right = 0.05 * np.sin(6.283 * pitch * rng.uniform(0.9, 1.1) * ticks)
            format = ("wav", "flac")[number % 2]
            path = tmp_path / "data" / label / f"{number}.{format}"
            soundfile.write(path, np.column_stack([left, right]), RATE)
    return tmp_path / "data"


def test_a_model_hears_the_channel_that_it_was_trained_on(stereo, monkeypatch, tmp_path):
    toy.register(monkeypatch, tmp_path)
    trained = unfreeze.SoundClassifier.train(
        stereo, "probe", tmp_path / "run", backbone="toy", channel=2
    )
    assert trained.metrics["test"]["accuracy"] == 1.0
    loaded = unfreeze.SoundClassifier.load(tmp_path / "run")
    assert loaded.front_end.channel == 2
    for label in ("high", "low"):
        for path in (stereo / label / "0.wav", stereo / label / "1.flac"):
            both, _ = soundfile.read(path, dtype="float32")
            right = loaded.predict(both[:, 1].copy())
            assert loaded.predict(path) == pytest.approx(right, abs=1e-5)
            assert loaded.heard(right) == (label,)
            assert {event.label for event in loaded.detect(path)} == {label}
    # The left channel is silent in one, which is nothing to this model; one has no second.
    tone = soundfile.read(stereo / "low" / "0.wav")[0][:, 1]
    soundfile.write(stereo / "low" / "left.wav", np.column_stack([0 * tone, tone]), RATE)
    soundfile.write(stereo / "low" / "right.wav", np.column_stack([tone, 0 * tone]), RATE)
    soundfile.write(stereo / "low" / "mono.wav", tone, RATE)
    scores = loaded.evaluate(stereo)
    assert scores["accuracy"] == 1.0
    left_out = {problem["path"]: problem["cause"] for problem in scores["problems"]}
    assert set(left_out) == {"low/right.wav", "low/mono.wav"}
    assert "has one channel" in left_out["low/mono.wav"]


def test_recordings_without_the_channel_are_left_out_and_said(stereo, monkeypatch, tmp_path):
    toy.register(monkeypatch, tmp_path)
    soundfile.write(stereo / "low" / "mono.wav", np.zeros(RATE) + 0.1, RATE)
    _, (problem,) = examine(stereo / "low" / "mono.wav", "mono.wav", channel=2)
    assert problem.cause == "it has one channel, so that channel 2 cannot be taken (--channel)"
    with Decoders() as decoders:
        assert decoders.examine([(stereo / "low" / "mono.wav", "mono.wav")], channel=2) == [
            (None, [problem])
        ]
        with (
            pytest.raises(DataError, match="channel 3 cannot be taken"),
            decoders.waveform(stereo / "low" / "1.flac", Resampler(RATE, 3)) as sound,
        ):
            list(sound.blocks)
    with pytest.raises(DataError, match="25 of 25 recordings"):
        unfreeze.SoundClassifier.train(stereo, "probe", backbone="toy", channel=3)


def test_a_pipe_gives_the_channel(tmp_path):
    both = np.random.default_rng(0).normal(0, 0.1, (RATE, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", both, RATE, subtype="PCM_16")

    def sent(channel):
        reading, writing = os.pipe()

        def send():
            with os.fdopen(writing, "wb") as pipe:
                pipe.write((tmp_path / "a.wav").read_bytes())

        sender = threading.Thread(target=send)
        sender.start()
        try:
            return np.concatenate(list(pipe_blocks(reading, RATE, RATE, channel)))
        finally:
            os.close(reading)
            sender.join()

    assert sent(2) == pytest.approx(both[:, 1], abs=1e-4)
    assert sent(0) == pytest.approx(both.mean(axis=1), abs=1e-4)
    with pytest.raises(DataError, match="trained on channel 3"):
        sent(3)
