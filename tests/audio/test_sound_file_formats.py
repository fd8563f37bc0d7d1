from pathlib import Path

import pytest
import soundfile

from unfreeze.audio.sound_file import file_size, meant_as_sound
from unfreeze.audio.sound_formats import explain_refusal, holds_no_sound, why_unreadable


@pytest.mark.parametrize("name", ["a.wav", "a.WAV", "a.Flac", "a.mp3", "a.opus", "a.m4a", "a.WMA"])
def test_endings_in_any_case(tmp_path: Path, name: str) -> None:
    assert meant_as_sound(tmp_path / name)


def test_sound_without_a_known_ending_is_found_by_content(tmp_path: Path) -> None:
    for kind in ("WAV", "FLAC", "OGG", "AIFF", "AU", "CAF", "W64", "RF64", "VOC"):
        path = tmp_path / f"sound_{kind}.bin"
        soundfile.write(path, [0.0, 0.1] * 100, 8000, format=kind)
        assert meant_as_sound(path), kind


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0AVI "])
def test_other_files_are_not_meant_as_sound(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "Thumbs.db"
    path.write_bytes(content)
    assert not meant_as_sound(path)
    assert not meant_as_sound(tmp_path / "missing.txt")


def test_says_what_a_file_holds_instead_of_sound() -> None:
    assert "web page" in str(holds_no_sound(b"\n<!DOCTYPE html><html>"))
    assert "text" in str(holds_no_sound("größer\r\n".encode() * 50))
    # Cut in the middle of a character.
    assert "text" in str(holds_no_sound("größer".encode()[:3]))
    assert holds_no_sound(b"RIFF\0\0\0\0WAVEfmt ") is None
    assert holds_no_sound(b"NIST_1A\n   1024\n") is None
    assert holds_no_sound(b"\xff\xfb\x90\x00") is None


def test_refusals_name_the_cure() -> None:
    assert "ffmpeg" in explain_refusal(Path("a.M4A"), b"\0\0\0 ftyp", "?")
    assert "copy" in explain_refusal(Path("a.wav"), bytes(512), "?")
    assert "(codec 7)" in explain_refusal(Path("a.wav"), b"RIFF\0\0\0\0WAVE", "codec 7")
    assert "convert" in explain_refusal(Path("a.wav"), b"\x01\x02", "?")


def test_an_ending_alone_can_tell_that_a_file_is_unreadable() -> None:
    why = why_unreadable(Path("a/Song.M4A"))
    assert why == "AAC or ALAC in MP4 cannot be read; convert it first (ffmpeg -i FILE FILE.wav)"
    assert why_unreadable(Path("song.wav")) is None
    assert why_unreadable(Path("m4a")) is None


def test_the_size_of_a_file_that_is_gone_is_0(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"1234")
    assert file_size(tmp_path / "a.wav") == 4
    assert file_size(tmp_path / "b.wav") == 0
