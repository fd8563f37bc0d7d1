"""Foreign formats through ffmpeg: a stand-in on the PATH, and the real one where there is one."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from unfreeze.audio import ffmpeg_reader
from unfreeze.audio.decode import Resampler, decode
from unfreeze.audio.decode_processes import Decoders
from unfreeze.audio.rules import examine
from unfreeze.audio.sound_file import SoundError, library_source
from unfreeze.review.candidate_clips import cut_clip

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script")

M4A = b"\0\0\0\x20ftypM4A " + bytes(2_000)
# Writes what it was asked, then as much of a WAV file as the test wants.
STAND_IN = """#!{python}
import json, os, sys, time
here = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(here, "asked.json"), "w") as file:
    json.dump([sys.argv[1:], sys.stdin.read()], file)
content = open(os.path.join(here, "sound.wav"), "rb").read()
sys.stdout.buffer.write(content)
sys.stdout.buffer.flush()
{then}
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch):
    """Put a program named ffmpeg on the PATH, with what it writes and does."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def make(sound: bytes, then: str = "") -> Path:
        (folder / "sound.wav").write_bytes(sound)
        program = folder / "ffmpeg"
        program.write_text(STAND_IN.format(python=sys.executable, then=then))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(folder))
        return folder

    return make


def as_ffmpeg_writes(samples: np.ndarray, rate: int) -> bytes:
    """Floats in a WAV file of unknown length."""
    head = b"fmt \x10\0\0\0\3\0" + samples.shape[1].to_bytes(2, "little")
    head += rate.to_bytes(4, "little") + bytes(4) + (4 * samples.shape[1]).to_bytes(2, "little")
    head += b"\x20\0" + b"LIST\4\0\0\0INFO"
    unknown = b"\xff\xff\xff\xff"
    return b"RIFF" + unknown + b"WAVE" + head + b"data" + unknown + samples.astype("<f4").tobytes()


def noise(samples: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).normal(scale=0.1, size=(samples, channels)).astype("f4")


def foreign(tmp_path: Path, name: str = "song.wav") -> Path:
    path = tmp_path / name
    path.write_bytes(M4A)
    return path


def test_every_reader_gets_the_samples(tmp_path: Path, stand_in) -> None:
    samples = noise(40_000, channels=2)
    folder = stand_in(as_ffmpeg_writes(samples, 16_000))
    path = foreign(tmp_path, "-http:song.wav")
    expected = samples.mean(axis=1)
    np.testing.assert_allclose(decode(path), expected, atol=1e-7)
    facts, problems = examine(path, path)
    assert problems == []
    assert facts is not None
    assert (facts.seconds, facts.sample_rate, facts.channels) == (2.5, 16_000, 2)
    with Decoders() as decoders:
        assert decoders.examine([(path, path)]) == [(facts, [])]
        for block in (1 << 21, 3_000):
            with decoders.waveform(path, Resampler(16_000), block=block) as sound:
                found = np.concatenate(list(sound.blocks))
            np.testing.assert_allclose(found, expected, atol=1e-7)
    asked, said = json.loads((folder / "asked.json").read_text())
    # One file of one format, nothing from the network, nothing to ask the user.
    assert said == ""
    assert "-nostdin" in asked
    assert asked[asked.index("-protocol_whitelist") + 1] == "file,pipe"
    assert asked[asked.index("-i") - 1] == "mov"
    assert asked[asked.index("-i") + 1] == f"file:{path}"
    assert asked[-1] == "pipe:1"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("[mov @ 0x5] moov atom not found\\nx: Invalid data", "(moov atom not found)"),
        ("Stream map '0:a:0' matches no streams.\\nIgnore it", "(it has no sound track)"),
        ("", "(it ends with code 3)"),
    ],
)
def test_what_ffmpeg_says_is_told(tmp_path: Path, stand_in, message: str, said: str) -> None:
    stand_in(b"", f'sys.stderr.write("{message}"); sys.exit(3)')
    path = foreign(tmp_path)
    facts, problems = examine(path, path)
    assert facts is None
    ((rule, cause),) = [(p.rule, p.cause) for p in problems]
    assert rule == "unreadable"
    assert cause.startswith("it is MPEG-4 audio (AAC or ALAC in MP4), but ffmpeg cannot decode it")
    assert said in cause


def test_a_message_names_no_place(tmp_path: Path, stand_in) -> None:
    then = "sys.stderr.write(sys.argv[sys.argv.index('-i') + 1] + ': Invalid data\\n'); sys.exit(1)"
    stand_in(b"", then)
    path = foreign(tmp_path)
    with pytest.raises(SoundError) as caught:
        decode(path)
    assert "(Invalid data)" in caught.value.cause
    assert str(tmp_path) not in caught.value.cause


def test_what_was_decoded_before_the_damage_is_used(tmp_path: Path, stand_in) -> None:
    stand_in(as_ffmpeg_writes(noise(16_000), 16_000), "sys.exit(1)")
    assert len(decode(foreign(tmp_path))) == 16_000


@pytest.mark.parametrize("sound", [b"", as_ffmpeg_writes(noise(16_000), 16_000)])
def test_one_that_hangs_is_ended(tmp_path: Path, stand_in, monkeypatch, sound: bytes) -> None:
    monkeypatch.setattr(ffmpeg_reader, "_PATIENCE", 0.6)
    stand_in(sound, "time.sleep(600)")
    with pytest.raises(SoundError, match=r"it sent nothing for 0\.6 s|it hangs"):
        decode(foreign(tmp_path))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another process")
@pytest.mark.parametrize("then", ["x = [bytearray(1 << 24) for _ in range(200)]", "while True: 1"])
def test_time_and_memory_are_limited(tmp_path: Path, stand_in, monkeypatch, then: str) -> None:
    seconds = 1.0 if "while" in then else 60.0
    monkeypatch.setattr("unfreeze.audio.sound_file.decode_seconds", lambda size: seconds)
    stand_in(as_ffmpeg_writes(noise(16_000), 16_000), then)
    path = foreign(tmp_path)
    if "while" in then:
        with pytest.raises(SoundError, match="too much time or memory"):
            decode(path)
    else:
        # It ends by itself, with an error, when it gets no more.
        assert len(decode(path)) == 16_000


def test_more_sound_than_a_file_can_hold_is_given_up(tmp_path: Path, stand_in, monkeypatch) -> None:
    monkeypatch.setattr("unfreeze.audio.sound_file._HOURS", 0.0)
    then = "for _ in range(10**9): sys.stdout.buffer.write(bytes(1 << 16))"
    stand_in(as_ffmpeg_writes(noise(16_000), 16_000), then)
    facts, problems = examine(foreign(tmp_path), Path("x"))
    assert (facts, [p.rule for p in problems]) == (None, ["too_long"])


def test_without_ffmpeg_the_file_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    ((rule, cause),) = [(p.rule, p.cause) for p in examine(foreign(tmp_path), Path("x"))[1]]
    assert rule == "unreadable"
    assert cause == (
        "it is MPEG-4 audio (AAC or ALAC in MP4), which is only read where ffmpeg is installed; "
        "convert it first (ffmpeg -i FILE FILE.wav)"
    )


def test_a_section_can_be_cut_out_of_it(tmp_path: Path, stand_in) -> None:
    samples = noise(200_000, channels=2)
    stand_in(as_ffmpeg_writes(samples, 16_000))
    source = foreign(tmp_path)
    with library_source(source, 10.0) as opened, soundfile.SoundFile(opened) as sound:
        assert (sound.frames, sound.samplerate, sound.channels) == (160_000, 16_000, 2)
        np.testing.assert_array_equal(sound.read(dtype="float32"), samples[:160_000])
    clip = cut_clip(source, 1.0, 2.5, tmp_path / "clip")
    cut = soundfile.read(clip, dtype="float32")[0]
    np.testing.assert_array_equal(cut, samples[16_000:40_000])


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize("ending", ["m4a", "aac", "webm", "mka", "wma", "wv", "ac3", "opus"])
def test_the_real_one(tmp_path: Path, ending: str) -> None:
    wav = tmp_path / "a.wav"
    time = np.arange(2 * 48_000) / 48_000
    soundfile.write(wav, 0.3 * np.sin(2 * np.pi * 440 * time), 48_000)
    made = tmp_path / f"a.{ending}"
    done = subprocess.run(
        ["ffmpeg", "-nostdin", "-loglevel", "error", "-i", wav, made], capture_output=True
    )
    if done.returncode:
        pytest.skip("this ffmpeg cannot write it")
    # Whatever its name is.
    path = made.rename(tmp_path / "b.wav")
    with Decoders() as decoders:
        ((facts, problems),) = decoders.examine([(path, path)])
    assert problems == []
    assert facts is not None
    assert facts.seconds == pytest.approx(2, abs=0.06)
    waveform = decode(path)
    spectrum = np.abs(np.fft.rfft(waveform[4_000:20_000]))
    assert spectrum.argmax() == 440
    assert waveform.std() == pytest.approx(0.3 / np.sqrt(2), rel=0.05)
