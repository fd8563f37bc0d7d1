import os
from pathlib import Path

import pytest

from unfreeze.audio.class_folders import read_folders
from unfreeze.errors import DataError


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def rules(root: Path) -> dict[str, str]:
    return {str(note.path): note.rule for note in read_folders(root)[1]}


def test_a_folder_per_class(tmp_path: Path) -> None:
    touch(tmp_path, "dog/b.WAV", "dog/a.wav", "cat/a.wav", "cat/deep/er/c.mp3")
    entries, notes = read_folders(tmp_path)
    assert [(e.label, e.name.as_posix()) for e in entries] == [
        ("cat", "cat/a.wav"),
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


def test_what_may_be_labels_is_named_where_there_are_no_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "a.TextGrid", "Label Track.txt", "notes.md")
    with pytest.raises(DataError, match=r"holds Label Track\.txt, a\.TextGrid, which cannot be"):
        read_folders(tmp_path)


def test_archives_are_to_be_unpacked(tmp_path: Path) -> None:
    touch(tmp_path, "dog.zip")
    with pytest.raises(DataError, match=r"but archives \(dog\.zip\)\. Unpack them"):
        read_folders(tmp_path)
    touch(tmp_path, "cat/a.wav")
    assert rules(tmp_path) == {"dog.zip": "archive"}


def test_folders_of_systems_are_no_classes(tmp_path: Path) -> None:
    touch(tmp_path, "__MACOSX/dog/a.wav", "@eaDir/a.wav", "dog/@eaDir/a.wav", "dog/a.wav")
    assert [e.name.as_posix() for e in read_folders(tmp_path)[0]] == ["dog/a.wav"]


def test_parts_that_hold_class_folders_are_the_split(tmp_path: Path) -> None:
    touch(tmp_path, "train/dog/a.wav", "train/cat/b.wav", "Test/dog/c.wav", "val/cat/d.wav")
    entries, _ = read_folders(tmp_path)
    assert [(e.label, e.split, e.name.as_posix()) for e in entries] == [
        ("dog", "test", "Test/dog/c.wav"),
        ("cat", "train", "train/cat/b.wav"),
        ("dog", "train", "train/dog/a.wav"),
        ("cat", "validation", "val/cat/d.wav"),
    ]


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (("train_audio/dog", "test_audio/dog"), "parts of a split"),
        (("train", "test", "wind"), "parts of a split"),
        (("audio_train", "audio_eval"), "parts of a split"),
        (("evaluation", "development_test"), "parts of a split"),
        (("FSD50K.dev_audio", "FSD50K.eval_audio"), "parts of a split"),
        (("fold1", "fold2", "fold10"), "folds"),
        (("Fold_1", "fold-2"), "folds"),
        (("cv1", "cv2"), "folds"),
        (("trainset", "testset"), "parts of a split"),
        (("TrainData", "TestData"), "parts of a split"),
        (("Trainingsdaten", "Testdaten"), "parts of a split"),
        (("development", "evaluation"), "parts of a split"),
        (("entrainement", "test"), "parts of a split"),
        (("treino", "teste"), "parts of a split"),
        (("Training", "Prüfung"), "parts of a split"),
        (("Training", "Pru\u0308fung"), "parts of a split"),
        (("addestramento", "verifica"), "parts of a split"),
        (("seen", "unseen"), "parts of a split"),
        (("train/fold1", "train/fold2", "test/fold1"), "folds"),
    ],
)
def test_parts_and_folds_are_no_classes(tmp_path: Path, names: tuple, what: str) -> None:
    touch(tmp_path, *(f"{name}/a.wav" for name in names))
    with pytest.raises(DataError, match=rf"look like {what}, not like classes.*rename them"):
        read_folders(tmp_path)


def test_one_class_may_be_called_train(tmp_path: Path) -> None:
    names = ("train", "train_horn", "bus", "Kedi-Part1")
    touch(tmp_path, *(f"{name}/a.wav" for name in names))
    assert {e.label for e in read_folders(tmp_path)[0]} == set(names)


def test_a_part_without_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, "train/dog/a.wav", "test/b.wav")
    with pytest.raises(DataError, match="test looks like a part of a split, but holds no class"):
        read_folders(tmp_path)


def test_folders_that_hold_only_folders_are_no_classes(tmp_path: Path) -> None:
    touch(tmp_path, "2021/dog/a.wav", "2021/cat/b.wav", "2022/dog/c.wav")
    with pytest.raises(DataError) as caught:
        read_folders(tmp_path)
    assert "2021 holds only folders (cat, dog), no recordings" in str(caught.value)
    assert "--group-regex" in str(caught.value)
    grouped, _ = read_folders(tmp_path, grouped=True)
    assert [e.label for e in grouped] == ["2021", "2021", "2022"]


def test_a_stray_recording_makes_no_class_of_a_folder_of_classes(tmp_path: Path) -> None:
    names = [f"Aves/{kind}/{n}.wav" for kind in ("wren", "robin") for n in range(5)]
    touch(tmp_path, *names, "Aves/test_tone.wav", "Amphibia/toad.wav")
    with pytest.raises(DataError, match=r"Aves holds only folders .*1 of its 11 recordings beside"):
        read_folders(tmp_path)


def test_the_lists_of_speech_commands_are_the_split(tmp_path: Path) -> None:
    touch(tmp_path, "yes/a.wav", "yes/b.wav", "no/c.wav", "no/d.wav", "_background_noise_/e.wav")
    (tmp_path / "validation_list.txt").write_text("yes/b.wav\n")
    (tmp_path / "testing_list.txt").write_text("no/d.wav\n")
    parts = {e.name.as_posix(): e.split for e in read_folders(tmp_path)[0]}
    assert parts == {
        "_background_noise_/e.wav": "train",
        "no/c.wav": "train",
        "no/d.wav": "test",
        "yes/a.wav": "train",
        "yes/b.wav": "validation",
    }
    (tmp_path / "testing_list.txt").write_text("nothing/d.wav\n")
    (tmp_path / "validation_list.txt").unlink()
    with pytest.raises(DataError, match=r"testing_list\.txt: 1 of the 1 files that it names"):
        read_folders(tmp_path)


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


def test_links_that_leave_the_folder_are_followed_and_told(tmp_path: Path) -> None:
    data, outside = tmp_path / "data", tmp_path / "outside"
    touch(data, "dog/a.wav", "cat/b.wav")
    touch(outside, "c.wav", "deep/d.wav")
    (data / "cat/c.wav").symlink_to(outside / "c.wav")
    (data / "pig").symlink_to(outside)
    # A circle: from the other place back to its beginning.
    (outside / "deep/again").symlink_to(outside)
    entries, notes = read_folders(data)
    assert [e.name.as_posix() for e in entries] == [
        "cat/b.wav", "cat/c.wav", "dog/a.wav", "pig/c.wav", "pig/deep/d.wav",
    ]  # fmt: skip
    told = {note.path.as_posix(): note.rule for note in notes}
    assert told["cat/c.wav"] == told["pig"] == "outside"
    assert told["pig/deep/again"] == "link"
    assert not any(note.fatal for note in notes)


def test_links_within_the_folder(tmp_path: Path) -> None:
    touch(tmp_path, "dog/a.wav")
    (tmp_path / "dog/b.wav").symlink_to("a.wav")
    (tmp_path / "dog/gone.wav").symlink_to("absent.wav")
    (tmp_path / "dog/loop").symlink_to("..")
    (tmp_path / "hound").symlink_to("dog")
    entries, _ = read_folders(tmp_path)
    assert [e.name.as_posix() for e in entries] == ["dog/a.wav", "dog/b.wav", "dog/gone.wav"]
    assert rules(tmp_path) == {"dog/loop": "link", "hound": "link"}
