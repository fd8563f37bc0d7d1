"""Short excerpts of clips."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from unfreeze.audio.decode import decode
from unfreeze.audio.decode_processes import Decoders
from unfreeze.audio.excerpts import LENGTH, Span, cut_excerpts
from unfreeze.backbones.frontend import FrontEnd

RATE = 16_000


@pytest.fixture(scope="module")
def long(tmp_path_factory) -> Path:
    """Ninety seconds of noise that is louder around 40 s, and loudest around 80 s."""
    path = tmp_path_factory.mktemp("excerpts") / "long.flac"
    noise = np.random.default_rng(0).normal(0, 0.01, 90 * RATE).astype("float32")
    noise[40 * RATE : 42 * RATE] *= 10
    noise[80 * RATE : 82 * RATE] *= 20
    soundfile.write(path, noise, RATE)
    return path


def cut(*spans: Span, front_end: FrontEnd = FrontEnd()):  # noqa: B008 (frozen)
    with Decoders() as decoders:
        return dict(cut_excerpts(spans, front_end, decoders))


def test_a_short_clip_is_whole(write_sound) -> None:
    path = write_sound("a.wav", seconds=1.3)
    (excerpt,) = cut(Span(path)).values()
    np.testing.assert_array_equal(excerpt.waveform, decode(path))
    assert excerpt.start == 0


def test_of_a_long_clip_the_loudest_stretch_of_its_first_minute(long: Path) -> None:
    (excerpt,) = cut(Span(long)).values()
    assert len(excerpt.waveform) == LENGTH * RATE
    assert 37 <= excerpt.start <= 40
    begin = round(excerpt.start * RATE)
    np.testing.assert_array_equal(
        excerpt.waveform, decode(long)[begin : begin + len(excerpt.waveform)]
    )


def test_sounds_of_one_recording_and_a_file_that_is_none(long: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no sound")
    found = cut(Span(long, 80.5, 81.0), Span(broken), Span(long, 2.0, 3.5), Span(long, 89.5, 99.0))
    assert sorted(found) == [0, 2, 3]
    assert [found[n].start for n in (0, 2, 3)] == [80.5, 2.0, 89.5]
    assert [len(found[n].waveform) for n in (0, 2, 3)] == [RATE // 2, 3 * RATE // 2, RATE // 2]
    assert np.abs(found[0].waveform).mean() > 10 * np.abs(found[2].waveform).mean()


def test_slowed_down_an_excerpt_lasts_as_long_for_the_network(long: Path) -> None:
    (excerpt,) = cut(Span(long), front_end=FrontEnd().slowed(10)).values()
    # Half a second of the recording, of its first six.
    assert len(excerpt.waveform) == LENGTH * RATE
    assert excerpt.start <= 5.5
