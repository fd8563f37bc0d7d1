import pytest

from unfreeze.detection.recordings import find_recordings
from unfreeze.errors import DataError


@pytest.fixture
def folder(tmp_path):
    for name in ("b.WAV", "a.mp3", "notes.txt", ".hidden.wav", "deep/c.flac", ".git/d.wav"):
        path = tmp_path / "all" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"some text")
    (tmp_path / "all" / "bare").write_bytes(b"fLaC and more")
    return tmp_path / "all"


def names(paths, **options):
    return [item.name.as_posix() for item in find_recordings(paths, **options)]


def test_a_folder_gives_its_recordings_by_name(folder):
    assert names([folder]) == ["a.mp3", "b.WAV", "bare"]
    assert names([folder], recursive=True) == ["a.mp3", "b.WAV", "bare", "deep/c.flac"]


def test_a_file_that_is_named_is_taken_as_it_is_and_once(folder):
    found = find_recordings([folder / "notes.txt", folder / "b.WAV", folder])
    assert [item.name.name for item in found] == ["notes.txt", "b.WAV", "a.mp3", "bare"]


def test_links_to_folders_are_not_followed(folder):
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    assert names([folder], recursive=True) == ["a.mp3", "b.WAV", "bare", "deep/c.flac"]


def test_what_is_not_there_is_refused(folder, tmp_path):
    with pytest.raises(DataError, match="none does not exist"):
        find_recordings([tmp_path / "none"])
    with pytest.raises(DataError, match="--recursive"):
        find_recordings([tmp_path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds no recordings$"):
        find_recordings([tmp_path / "empty"])
