import base64
import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import soundfile

pytest.importorskip("fastapi")

from unfreeze.audio import decode as decode_module
from unfreeze.audio.decode_processes import Decoders
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.serve import analysis
from unfreeze.serve.answers import Refused
from unfreeze.serve.upload import Limits


@pytest.fixture(scope="module")
def decoders():
    with Decoders() as processes:
        yield processes


def test_a_recording_within_the_limits_is_decoded_as_everywhere(two_sounds, decoders):
    recording = analysis.decode_within(two_sounds, FrontEnd(), Limits(), decoders)
    np.testing.assert_array_equal(recording.waveform, decode_module.decode(two_sounds))
    assert recording.source_rate == 16_000


class Counting(Decoders):
    decoded = 0

    @contextmanager
    def waveform(self, *args, **options):
        with super().waveform(*args, **options) as sound:
            yield replace(sound, blocks=self.count(sound.blocks))

    def count(self, blocks):
        for block in blocks:
            self.decoded += len(block)
            yield block


def test_a_recording_beyond_the_limit_is_not_decoded_to_its_end(tmp_path):
    path = tmp_path / "silence.flac"
    with soundfile.SoundFile(path, "w", 8000, 1, format="FLAC") as file:
        for _ in range(180):
            file.write(np.zeros(60 * 8000, np.int16))
    with Counting() as decoders, pytest.raises(Refused, match="longer than 60 s") as refused:
        analysis.decode_within(path, FrontEnd(sample_rate=8000), Limits(max_seconds=60), decoders)
    assert refused.value.status == 413
    # One block of the decoder at most beyond the limit; the file has 86 million samples.
    assert 60 * 8000 < decoders.decoded <= 60 * 8000 + (1 << 21)


def test_the_limit_is_exact(tmp_path, decoders):
    path = tmp_path / "a.wav"
    limits = Limits(max_seconds=2)
    soundfile.write(path, np.zeros(32_000), 16_000)
    assert len(analysis.decode_within(path, FrontEnd(), limits, decoders).waveform) == 32_000
    soundfile.write(path, np.zeros(32_001), 16_000)
    with pytest.raises(Refused):
        analysis.decode_within(path, FrontEnd(), limits, decoders)


def test_decoding_may_not_take_for_ever(two_sounds, decoders):
    with pytest.raises(Refused, match="to decode"):
        analysis.decode_within(two_sounds, FrontEnd(), Limits(decode_seconds=0), decoders)


def test_the_picture_of_ten_minutes_is_no_wider_than_a_screen_and_keeps_a_click():
    waveform = np.zeros(600 * 16_000, np.float32)
    waveform[300 * 16_000] = 1.0
    began = time.process_time()
    shown = analysis.picture(waveform, FrontEnd())
    assert time.process_time() - began < 10
    assert shown.columns == 4000
    assert shown.seconds == pytest.approx(600)
    assert len(shown.levels) < 350_000
    levels = np.frombuffer(base64.b64decode(shown.levels), np.uint8).reshape(4000, 64)
    assert levels.max(axis=1).argmax() == pytest.approx(2000, abs=1)


def test_the_picture_of_silence_is_black():
    shown = analysis.picture(np.zeros(1600, np.float32), FrontEnd())
    assert shown.columns == 10
    assert set(base64.b64decode(shown.levels)) == {0}
