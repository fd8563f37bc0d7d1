import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from unfreeze.audio.rules import examine
from unfreeze.audio.sound_file import meant_as_sound
from unfreeze.audio.sound_formats import (
    begins_as_sound,
    explain_refusal,
    for_ffmpeg,
    foreign_format,
    has_sound_signature,
    holds_no_sound,
    why_unreadable,
)

EBML = b"\x1a\x45\xdf\xa3"
# Content, a part of its name, and whether it is meant as sound among recordings.
FOREIGN = [
    (b"\0\0\0\x20ftypM4A ", "MPEG-4 audio (AAC or ALAC in MP4)", True),
    (b"\0\0\0\x20ftypisom", "MPEG-4 (MP4)", True),
    (b"\0\0\0\x20ftypmp42", "MPEG-4 (MP4)", True),
    (b"\0\0\0\x20ftyp3gp4", "3GP", True),
    (b"\0\0\0\x20ftypqt  ", "a QuickTime film", False),
    (b"\0\0\0\x20ftypheic", "a picture", False),
    (b"\0\1\2\3moov", "a QuickTime film", False),
    (EBML, "WebM or Matroska", True),
    (EBML + b"\x9fB\x86\x81\x01B\x82\x84webm", "WebM", True),
    (EBML + b"\xa3B\x86\x81\x01B\x82\x88matroska", "Matroska", True),
    (b"WAac\x10\x20", "Wildlife Acoustics WAC", True),
    (b"#!AMR\n", "AMR", True),
    (b"#!AMR-WB\n", "AMR", True),
    (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "Windows Media", True),
    (b"MAC \x96\x0f", "Monkey's Audio", True),
    (b"wvpk", "WavPack", True),
    (b"TTA1", "True Audio", True),
    (b"DSD \x1c", "DSD", True),
    (b"\x0b\x77\xaa", "AC-3", True),
    (b"MThd\0\0\0\6", "MIDI", False),
    (b"RIFF\x10\0\0\0RMID", "MIDI", False),
    (b"RIFF\x10\0\0\0AVI ", "an AVI video", False),
    (b"FLV\1", "a Flash video", False),
    (b"\0\0\1\xba", "an MPEG video", False),
    (b"PK\3\4", "a zip archive", False),
    (b"\x1f\x8b\x08", "a gzip archive", False),
    (b"Rar!\x1a\x07\x01", "a RAR archive", False),
    (b"%PDF-1.7", "a PDF", False),
    (b"\x89PNG\r\n\x1a\n", "a picture", False),
    (b"\xff\xd8\xff\xe0", "a picture", False),
]


@pytest.mark.parametrize(("head", "name", "sound"), FOREIGN)
@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".flac"])
def test_the_content_is_named_whatever_the_file_is_called(
    tmp_path: Path, monkeypatch, head: bytes, name: str, sound: bool, suffix: str
) -> None:
    monkeypatch.setenv("PATH", "")
    path = tmp_path / f"night{suffix}"
    path.write_bytes(head + bytes(5_000))
    facts, problems = examine(path, path)
    assert facts is None
    ((rule, cause),) = [(p.rule, p.cause) for p in problems]
    assert rule == "unreadable"
    assert cause.startswith(f"it is {name}")
    # What to do comes after it.
    assert "; " in cause
    other = path.rename(tmp_path / "night.bin")
    assert meant_as_sound(other) == sound


def test_cures() -> None:
    assert "Kaleidoscope" in explain_refusal(Path("a.wav"), b"WAac" + bytes(100), "?")
    assert "(ffmpeg -i FILE FILE.wav)" in explain_refusal(Path("a.wav"), EBML + bytes(100), "?")
    assert "unpack" in explain_refusal(Path("a.wav"), b"PK\3\4" + bytes(100), "?")
    assert "Kaleidoscope" in str(why_unreadable(Path("night.W4V")))
    assert "Kaleidoscope" in str(why_unreadable(Path("night.wac")))


@pytest.mark.parametrize("name", ["a.wac", "a.w4v", "a.spx", "a.tta", "a.MKA", "a.weba", "a.bw64"])
def test_no_recording_is_ignored(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"\1\2\3\4" * 100)
    assert meant_as_sound(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("<!DOCTYPE html><html><body>404", "a web page"),
        ("\ufeff\n <HTML lang='en'>", "a web page"),
        ("<?xml version='1.0'?>\n<!DOCTYPE html PUBLIC>\n<html>", "a web page"),
        ('{"error": "quota exceeded"}', "text"),
        ("<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "text"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
    ],
)
def test_answers_of_a_server_are_no_sound(content: str, said: str) -> None:
    assert said in str(holds_no_sound(content.encode()))


def encoded(kind: str, subtype: str, rate: int = 16_000, channels: int = 1) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).normal(scale=0.1, size=(rate, channels))
    soundfile.write(file, noise, rate, format=kind, subtype=subtype)
    return file.getvalue()


def kinds() -> list[str]:
    return sorted(set(soundfile.available_formats()) - {"RAW", "SD2"})


@pytest.mark.parametrize("kind", kinds())
def test_nothing_that_libsndfile_reads_is_foreign(kind: str) -> None:
    subtype = soundfile.default_subtype(kind)
    rate = 44_100 if kind in ("XI", "SDS", "MPC2K") else 16_000
    head = encoded(kind, subtype, rate)[:4096]
    assert foreign_format(head) is None
    assert holds_no_sound(head) is None
    if kind not in ("HTK", "MAT4", "MAT5", "MPC2K", "SDS", "WVE", "IRCAM", "PAF", "XI"):
        assert begins_as_sound(head)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_mp3_is_known_by_its_frames(rate: int, channels: int) -> None:
    content = encoded("MP3", "MPEG_LAYER_III", rate, channels)
    start = content.index(b"\xff", 0)
    assert begins_as_sound(content[start:][:4096])
    # One frame is not enough.
    assert not begins_as_sound(content[start : start + 60])


def adts(length: int, frames: int) -> bytes:
    head = bytes([0xFF, 0xF1, 0x50, 0x80 | length >> 11, length >> 3 & 255, (length & 7) << 5, 0])
    return (head + b"\x11" * (length - 7)) * frames


def test_aac_is_known_by_its_frames() -> None:
    found = foreign_format(adts(300, 3))
    assert found is not None
    assert (found.name, found.reader) == ("AAC", "aac")
    assert foreign_format(adts(300, 1)) is None


@given(st.binary(max_size=600))
def test_any_bytes_are_named_or_not(head: bytes) -> None:
    for start in (b"", b"\xff\xf1", b"\xff\xfb", b"OggS", EBML, b"\0\0\0\x20ftyp"):
        kind = foreign_format(start + head)
        assert kind is None or (kind.name and kind.cure)
        begins_as_sound(start + head)
        assert explain_refusal(Path("a.wav"), start + head, "?")


def test_codecs_that_only_ffmpeg_knows() -> None:
    ogg = b"OggS" + bytes(24)
    opus, speex = for_ffmpeg(ogg + b"OpusHead", None), for_ffmpeg(ogg + b"Speex   ", None)
    assert opus is not None
    assert speex is not None
    assert (opus.name, opus.reader) == ("Opus in Ogg", "ogg")
    assert speex.name == "Speex in Ogg"
    assert for_ffmpeg(ogg + b"\1vorbis", None) is None
    wma = for_ffmpeg(b"RIFF\0\0\0\0WAVE", 0x161)
    assert wma is not None
    assert wma.name == "a WAV file in the codec 0x0161"
    assert for_ffmpeg(b"RIFF\0\0\0\0WAVE", 1) is None
    assert has_sound_signature(b"RIFF\0\0\0\0WAVE")


def test_a_codec_that_nobody_knows_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    path = tmp_path / "a.wav"
    fmt = struct.pack("<HHIIHHH", 0x161, 1, 16_000, 4_000, 372, 16, 0)
    chunks = b"fmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", 4_000)
    path.write_bytes(b"RIFF" + struct.pack("<I", 4_040) + b"WAVE" + chunks + b"\1" * 4_000)
    ((rule, cause),) = [(p.rule, p.cause) for p in examine(path, path)[1]]
    assert rule == "unreadable"
    assert cause.startswith("it is a WAV file in the codec 0x0161, which is only read where ffmpeg")
