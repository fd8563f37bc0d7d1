import os
from pathlib import Path

import pytest

from unfreeze.audio.folders import read_folders
from unfreeze.errors import DataError


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def rules(root: Path) -> dict[str, str]:
    return {str(note.path): note.rule for note in read_folders(root)[1]}


def test_a_folder_per_class(tmp_path: Path) -> None:
    touch(tmp_path, "dog/b.WAV", "dog/a.wav", "cat/deep/er/c.mp3")
    entries, notes = read_folders(tmp_path)
    assert [(e.label, e.name.as_posix()) for e in entries] == [
        ("cat", "cat/deep/er/c.mp3"),
        ("dog", "dog/a.wav"),
        ("dog", "dog/b.WAV"),
    ]
    assert all(e.path == tmp_path / e.name and e.group is None and e.split is None for e in entries)
    assert notes == []


def test_what_is_no_recording_is_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "dog/a.wav", "dog/._a.wav", "dog/.DS_Store", ".git/x.wav", "README.md")
    touch(tmp_path, "dog/Thumbs.db", "dog/notes.txt", "stray.wav", "docs/manual.pdf")
    (tmp_path / "empty").mkdir()
    assert [e.name.as_posix() for e in read_folders(tmp_path)[0]] == ["dog/a.wav"]
    assert rules(tmp_path) == {
        "dog/Thumbs.db": "not_audio",
        "dog/notes.txt": "not_audio",
        "docs/manual.pdf": "not_audio",
        "docs": "no_audio",
        "empty": "no_audio",
        "stray.wav": "no_class",
    }
    assert not any(note.fatal for note in read_folders(tmp_path)[1])


def test_recordings_in_formats_that_cannot_be_read_are_not_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "dog/a.m4a")
    assert [e.name.as_posix() for e in read_folders(tmp_path)[0]] == ["dog/a.m4a"]


def test_no_class_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no class folders"):
        read_folders(tmp_path)
    touch(tmp_path, "a.wav", "b.wav")
    with pytest.raises(DataError, match=r"CLASS/clip\.wav"):
        read_folders(tmp_path)


def test_folders_that_are_parts_of_a_split(tmp_path: Path) -> None:
    touch(tmp_path, "train/dog/a.wav", "Test/dog/b.wav")
    with pytest.raises(DataError, match="look like parts of a split"):
        read_folders(tmp_path)
    touch(tmp_path, "train_noises/c.wav")
    assert len(read_folders(tmp_path)[0]) == 3


def test_odd_names(tmp_path: Path) -> None:
    touch(tmp_path, "größe/line\nbreak.wav", "größe/ホタル.wav", "größe/-rf *.wav")
    entries, _ = read_folders(tmp_path)
    assert {e.name.name for e in entries} == {"line\nbreak.wav", "ホタル.wav", "-rf *.wav"}


def test_a_decomposed_class_name_is_the_composed_one(tmp_path: Path) -> None:
    touch(tmp_path, "gro\u0308ße/a.wav")
    assert read_folders(tmp_path)[0][0].label == "größe"


@pytest.mark.parametrize("name", [b"bad\xff", b"line\nbreak"])
def test_class_names_that_cannot_be_written(tmp_path: Path, name: bytes) -> None:
    try:
        touch(tmp_path, f"{os.fsdecode(name)}/a.wav")
    except OSError:
        pytest.skip("this file system refuses the name itself")
    with pytest.raises(DataError, match="cannot be printed"):
        read_folders(tmp_path)


def test_links_that_leave_the_folder(tmp_path: Path) -> None:
    data, outside = tmp_path / "data", tmp_path / "outside"
    touch(data, "dog/a.wav", "cat/b.wav")
    touch(outside, "c.wav")
    link = data / "cat/c.wav"
    link.symlink_to(outside / "c.wav")
    with pytest.raises(DataError, match=r"c\.wav is a link that leaves"):
        read_folders(data)
    link.unlink()
    (data / "pig").symlink_to(outside)
    with pytest.raises(DataError, match="pig is a link that leaves"):
        read_folders(data)


def test_links_within_the_folder(tmp_path: Path) -> None:
    touch(tmp_path, "dog/a.wav")
    (tmp_path / "dog/b.wav").symlink_to("a.wav")
    (tmp_path / "dog/gone.wav").symlink_to("absent.wav")
    (tmp_path / "dog/loop").symlink_to("..")
    (tmp_path / "hound").symlink_to("dog")
    entries, _ = read_folders(tmp_path)
    assert [e.name.as_posix() for e in entries] == ["dog/a.wav", "dog/b.wav", "dog/gone.wav"]
    assert rules(tmp_path) == {"dog/loop": "link", "hound": "link"}
