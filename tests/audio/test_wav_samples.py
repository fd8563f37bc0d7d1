import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from unfreeze.audio.decode import mono_blocks
from unfreeze.audio.sound_file import open_sound
from unfreeze.audio.wav import PcmReader, plain_reader, read_wav_header


def reader(path: Path) -> PcmReader | None:
    content = path.read_bytes()
    header = read_wav_header(io.BytesIO(content))
    return None if header is None else plain_reader(content, header)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16"])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_values_are_those_of_libsndfile(tmp_path: Path, subtype: str, channels: int) -> None:
    path = tmp_path / "noise.wav"
    noise = np.random.default_rng(0).uniform(-1, 1, (4_000, channels))
    noise[:2] = [[-1.0], [1.0]]
    soundfile.write(path, noise, 11_127, subtype=subtype)
    expected = soundfile.read(path, dtype="float32", always_2d=True)[0]
    sound = reader(path)
    assert sound is not None
    assert (sound.samplerate, sound.channels, sound.frames) == (11_127, channels, 4_000)
    assert (sound.format, sound.subtype) == ("WAV", subtype)
    # In parts, and no further than to the end.
    parts = [sound.read(np.empty((n, channels), np.float32)) for n in (1, 2_500, 5_000, 10)]
    assert [len(part) for part in parts] == [1, 2_500, 1_499, 0]
    np.testing.assert_array_equal(np.concatenate(parts), expected)
    assert expected.min() == -1


def test_what_is_read_whole_is_kept_for_the_hash(write_sound) -> None:
    plain, other = write_sound("a.wav"), write_sound("a.flac")
    with open_sound(plain) as sound:
        assert sound.content == plain.read_bytes()
        assert isinstance(sound.file, PcmReader)
        assert sum(map(len, mono_blocks(sound))) == 4_800
    with open_sound(other) as sound:
        assert sound.content is None


def test_a_large_file_is_read_in_blocks(write_sound, monkeypatch) -> None:
    path = write_sound("a.wav")
    with open_sound(path) as sound:
        expected = np.concatenate(list(mono_blocks(sound)))
    monkeypatch.setattr("unfreeze.audio.sound_file._WHOLE", path.stat().st_size - 1)
    with open_sound(path) as sound:
        assert sound.content is None
        np.testing.assert_array_equal(np.concatenate(list(mono_blocks(sound))), expected)


@pytest.mark.parametrize("subtype", ["PCM_24", "PCM_32", "FLOAT", "ALAW", "IMA_ADPCM"])
def test_other_codecs_are_left_to_libsndfile(write_sound, subtype: str) -> None:
    assert reader(write_sound("a.wav", subtype=subtype)) is None


@pytest.mark.parametrize(
    ("at", "field"),
    [
        (20, struct.pack("<H", 2)),  # codec
        (22, struct.pack("<H", 0)),  # channels
        (22, struct.pack("<H", 2_000)),
        (32, struct.pack("<H", 3)),  # bytes a frame
        (34, struct.pack("<H", 12)),  # bits
        (40, struct.pack("<I", 0)),  # length unknown
        (40, struct.pack("<I", 9_601)),  # no whole number of frames
        (40, struct.pack("<I", 9_602)),  # more than there is
    ],
)
def test_odd_headers_are_left_to_libsndfile(write_sound, at: int, field: bytes) -> None:
    path = write_sound("a.wav")
    content = path.read_bytes()
    assert content[36:40] == b"data"
    assert reader(path) is not None
    path.write_bytes(content[:at] + field + content[at + len(field) :])
    assert reader(path) is None
