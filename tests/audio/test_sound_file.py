import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from unfreeze.audio.decode import mono_blocks
from unfreeze.audio.sound_file import SoundError, open_sound


def read(path: Path, block: int = 1 << 21) -> np.ndarray:
    with open_sound(path) as sound:
        blocks = list(mono_blocks(sound, block))
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def refusal(path: Path) -> SoundError:
    with pytest.raises(SoundError) as caught, open_sound(path) as sound:
        list(mono_blocks(sound))
    assert path.name in str(caught.value) or not path.name.isprintable()
    return caught.value


@pytest.mark.parametrize(
    ("ending", "subtype"),
    [
        ("wav", "PCM_U8"),
        ("wav", "PCM_24"),
        ("wav", "FLOAT"),
        ("wav", "DOUBLE"),
        ("wav", "ALAW"),
        ("wav", "IMA_ADPCM"),
        ("flac", "PCM_16"),
        ("ogg", "VORBIS"),
        ("mp3", "MPEG_LAYER_III"),
        ("aiff", "PCM_16"),
        ("au", "ULAW"),
        ("caf", "ALAC_16"),
        ("w64", "PCM_16"),
    ],
)
def test_blocks_of_any_size_are_the_whole(write_sound, ending: str, subtype: str) -> None:
    path = write_sound(f"tone.{ending}", seconds=0.5, channels=2, subtype=subtype)
    expected = soundfile.read(path, dtype="float32", always_2d=True)[0].mean(axis=1)
    for block in (1 << 21, 3000):
        # MP3 is decoded in float: its last bit depends on the blocks.
        np.testing.assert_allclose(read(path, block), expected, atol=3e-7)


@pytest.mark.parametrize("name", ["a.raw", "a.au", "a.vox", "a.txt", "a.mp3", "no ending"])
def test_content_counts_and_not_the_ending(write_sound, tmp_path: Path, name: str) -> None:
    path = write_sound("a.wav", seconds=0.1)
    other = path.rename(tmp_path / name)
    assert len(read(other)) == 1600


@pytest.mark.parametrize("ending", ["wav", "raw", "au", "snd", "vox", "gsm", "mp3", "flac"])
def test_text_is_never_played(tmp_path: Path, ending: str, capfd) -> None:
    path = tmp_path / f"notes.{ending}"
    path.write_text("these are my notes\n" * 100)
    error = refusal(path)
    assert (error.rule, error.cause) == ("unreadable", "it holds text, not sound")
    # libsndfile's MP3 decoder writes to the terminal by itself.
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("ending", ["raw", "au", "vox", "gsm"])
def test_bytes_without_a_header_are_never_played(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"noise.{ending}"
    path.write_bytes(np.random.default_rng(0).bytes(4000))
    assert refusal(path).rule == "unreadable"


def test_empty_missing_and_strange_files(tmp_path: Path) -> None:
    empty = tmp_path / "empty.wav"
    empty.touch()
    assert refusal(empty).rule == "empty"
    assert refusal(tmp_path / "absent.wav").rule == "missing"
    assert refusal(tmp_path).cause == "it is not a regular file"
    assert refusal(tmp_path / "null\0byte.wav").rule == "missing"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    assert refusal(pipe).cause == "it is not a regular file"


def test_absurd_sample_rates(write_sound) -> None:
    for rate in (1, 999, 1_000_001, 2_000_000_000):
        path = write_sound("rate.wav", seconds=0.1)
        content = bytearray(path.read_bytes())
        content[24:28] = struct.pack("<I", rate)
        path.write_bytes(content)
        assert str(rate) in refusal(path).cause


def test_a_truncated_flac_gives_what_is_before_the_damage(write_sound) -> None:
    path = write_sound("cut.flac", seconds=4.0, subtype="PCM_16")
    whole = read(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for block in (1 << 21, 20_000):
        rest = read(path, block)
        assert 0.4 * len(whole) < len(rest) < 0.6 * len(whole)
        np.testing.assert_array_equal(rest, whole[: len(rest)])


def test_a_flac_without_any_whole_frame(write_sound) -> None:
    path = write_sound("cut.flac", seconds=1.0, subtype="PCM_16")
    path.write_bytes(path.read_bytes()[:200])
    assert refusal(path).rule == "unreadable"


def test_the_mean_over_many_channels(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (500, 7)).astype(np.float32)
    path = tmp_path / "seven.wav"
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    np.testing.assert_allclose(read(path, 100), samples.mean(axis=1), atol=1e-6)


def mp3_in_wav(tmp_path: Path, after: bytes = b"", fmt: bytes | None = None) -> Path:
    mp3 = tmp_path / "inner.mp3"
    tone = 0.5 * np.sin(np.arange(44_100) / 20)
    soundfile.write(mp3, tone, 44_100, format="MP3")
    frames = mp3.read_bytes()
    fmt = fmt or struct.pack("<HHIIHHHHIHHH", 0x55, 1, 44_100, 16_000, 1, 0, 12, 1, 2, 417, 1, 0)
    chunks = b"fmt " + struct.pack("<I", len(fmt)) + fmt
    chunks += b"data" + struct.pack("<I", len(frames)) + frames + after
    path = tmp_path / "outer.wav"
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)
    return path


def test_mp3_inside_wav(tmp_path: Path, capfd) -> None:
    whole = read(mp3_in_wav(tmp_path))
    assert abs(len(whole) - 44_100) <= 2 * 1152
    assert 0.3 < np.sqrt(np.mean(whole[5000:-5000] ** 2)) < 0.4
    # A chunk behind the samples is not taken for MP3 frames.
    tail = b"fact" + struct.pack("<II", 4, 44_100)
    with_tail = read(mp3_in_wav(tmp_path, after=tail))
    assert abs(len(with_tail) - len(whole)) <= 2 * 1152
    assert capfd.readouterr().err == ""


def test_mp3_inside_a_wav_that_libsndfile_refuses(tmp_path: Path) -> None:
    # No bytes of the codec after the common ones, and no channels.
    fmt = struct.pack("<HHIIHH", 0x55, 0, 44_100, 16_000, 1, 0)
    path = mp3_in_wav(tmp_path, fmt=fmt)
    with pytest.raises(soundfile.SoundFileError):
        soundfile.read(path)
    assert abs(len(read(path)) - 44_100) <= 2 * 1152
