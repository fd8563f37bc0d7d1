import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from unfreeze.audio.manifest import Manifest, check_bad, read_manifest
from unfreeze.errors import DataError


@pytest.fixture
def data(tmp_path: Path, write_sound) -> Path:
    """Two classes of ten clips."""
    for label in ("cat", "dog"):
        for number in range(10):
            write_sound(f"data/{label}/{label}_{number}_ann.wav", seconds=0.1)
    return tmp_path / "data"


def rules(manifest: Manifest) -> dict[str, str]:
    return {p.path.as_posix(): p.rule for p in manifest.problems}


def refusal(data: Path, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        read_manifest(data, **options)
    return str(caught.value)


def test_clips_in_the_order_of_names(data: Path) -> None:
    seen: list[tuple[int, int]] = []
    manifest = read_manifest(data, progress=lambda *at: seen.append(at))
    assert manifest.root == data
    assert manifest.labels == ("cat", "dog")
    assert [c.path.name for c in manifest.clips[:2]] == ["cat_0_ann.wav", "cat_1_ann.wav"]
    assert [c.label for c in manifest.clips] == ["cat"] * 10 + ["dog"] * 10
    first = manifest.clips[0]
    assert (first.seconds, first.sample_rate, first.channels, first.split) == (0.1, 16_000, 1, None)
    assert first.group == first.content
    assert len({c.content for c in manifest.clips}) == 20
    assert manifest.problems == ()
    assert seen[-1] == (20, 20)


def test_neither_place_nor_creation_order_matters(data: Path, tmp_path: Path) -> None:
    before = read_manifest(data)
    files = [p for p in data.rglob("*") if p.is_file()]
    random.Random(0).shuffle(files)
    for path in files:
        target = tmp_path / "elsewhere" / path.relative_to(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    after = read_manifest(tmp_path / "elsewhere", workers=1)
    assert after.fingerprint == before.fingerprint
    assert [c.content for c in after.clips] == [c.content for c in before.clips]


def test_the_fingerprint_follows_contents_labels_groups_and_splits(data: Path) -> None:
    seen = {read_manifest(data).fingerprint}
    seen.add(read_manifest(data, group_regex="(ann)").fingerprint)
    names = [p.relative_to(data).as_posix() for p in sorted(data.rglob("*.wav"))]

    def table(label: str, split: str) -> str:
        rows = [f"{name},{label if i == 0 else name[:3]},g{i}" for i, name in enumerate(names)]
        parts = [split if i == 0 else "train" for i in range(len(names))]
        lines = [f"{row},{part}" for row, part in zip(rows, parts, strict=True)]
        (data / "manifest.csv").write_text("\n".join(["path,label,group,split", *lines]))
        return read_manifest(data).fingerprint

    seen.update([table("cat", "train"), table("dog", "train"), table("cat", "test")])
    with (data / names[3]).open("ab") as file:
        file.write(b"\0")
    seen.add(table("cat", "train"))
    assert len(seen) == 6


def test_a_manifest_by_its_folder_or_its_path(data: Path) -> None:
    rows = ["path,label,group,split", "cat/cat_0_ann.wav,a,g,train", "dog/dog_0_ann.wav,b,,test"]
    (data / "list.csv").write_text("\n".join(rows))
    by_path = read_manifest(data / "list.csv")
    assert [(c.label, c.split) for c in by_path.clips] == [("a", "train"), ("b", "test")]
    assert by_path.clips[0].group == "g"
    # Without a group a clip is its own.
    assert by_path.clips[1].group == by_path.clips[1].content
    (data / "list.csv").rename(data / "manifest.csv")
    assert read_manifest(data).fingerprint == by_path.fingerprint
    assert read_manifest(str(data)).labels == ("a", "b")


def test_nothing_there(tmp_path: Path, write_sound) -> None:
    assert "does not exist" in refusal(tmp_path / "absent")
    assert "no class folders" in refusal(tmp_path)
    assert "is a file" in refusal(write_sound("a.wav"))


def test_one_class_is_refused_before_any_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog/a.wav").write_text("no sound")
    (tmp_path / "empty").mkdir()
    assert "only one class, 'dog'" in refusal(tmp_path)
    (tmp_path / "dog/a.wav").unlink()
    assert "no recordings" in refusal(tmp_path)


def test_bad_files_are_left_out_and_listed(data: Path) -> None:
    (data / "dog/dog_0_ann.wav").write_text("this is no sound\n")
    (data / "dog/dog_1_ann.wav").write_bytes(b"")
    manifest = read_manifest(data)
    assert rules(manifest) == {"dog/dog_0_ann.wav": "unreadable", "dog/dog_1_ann.wav": "empty"}
    assert len(manifest.clips) == 18
    # 2 of 20 is 10 %, and no more than that.
    soundfile.write(data / "cat/cat_0_ann.wav", np.zeros(8000), 16_000)
    message = refusal(data)
    assert "3 of 20 recordings" in message
    assert "15.0 %, more than the 10 % allowed" in message
    assert "cat/cat_0_ann.wav: mixed to mono" in message
    assert len(read_manifest(data, max_bad=0.15).clips) == 17


def test_strict_allows_none(data: Path) -> None:
    assert len(read_manifest(data, strict=True).clips) == 20
    (data / "dog/dog_0_ann.wav").write_bytes(b"")
    assert "strict allows none" in refusal(data, strict=True)
    assert "more than the 0 % allowed" in refusal(data, max_bad=0)
    with pytest.raises(DataError, match="strict"):
        check_bad(read_manifest(data), strict=True)
    assert "from 0 to 1" in refusal(data, max_bad=10)


def test_warnings_are_not_bad_files(data: Path) -> None:
    (data / "dog/notes.txt").write_text("hello")
    shutil.copy(data / "dog/dog_0_ann.wav", data / "dog/copy.wav")
    manifest = read_manifest(data, strict=True)
    assert rules(manifest) == {"dog/dog_0_ann.wav": "duplicate", "dog/notes.txt": "not_audio"}
    same = [c for c in manifest.clips if c.path.name in ("copy.wav", "dog_0_ann.wav")]
    assert same[0].group == same[1].group


def test_the_same_bytes_under_two_labels_are_all_left_out(data: Path) -> None:
    shutil.copy(data / "dog/dog_0_ann.wav", data / "cat/copy.wav")
    manifest = read_manifest(data)
    assert rules(manifest) == {
        "cat/copy.wav": "duplicate_label",
        "dog/dog_0_ann.wav": "duplicate_label",
    }
    assert all(p.fatal and "'cat' and 'dog'" in p.cause for p in manifest.problems)
    assert len(manifest.clips) == 19
    assert "duplicate_label (2)" in refusal(data, strict=True)


def test_a_class_that_loses_all_its_files(data: Path) -> None:
    (data / "pig").mkdir()
    (data / "pig/oink.wav").write_bytes(b"")
    message = refusal(data)
    assert "No recording of 'pig' can be used" in message
    assert "pig/oink.wav: the file has 0 bytes" in message


def test_files_that_a_manifest_names_and_that_are_not_there(data: Path) -> None:
    rows = [f"{p.relative_to(data)},{p.parent.name}" for p in sorted(data.rglob("*.wav"))]
    (data / "manifest.csv").write_text("\n".join(["path,label", *rows, "cat/gone.wav,cat"]))
    manifest = read_manifest(data)
    assert rules(manifest) == {"cat/gone.wav": "missing"}
    (data / "manifest.csv").write_text("path,label\na.wav,x\nb.wav,y\n")
    assert "missing (2)" in refusal(data)


def test_a_split_column_without_training_rows(data: Path) -> None:
    (data / "manifest.csv").write_text("path,label,split\na.wav,x,test\nb.wav,y,val\n")
    assert "no row for train, only test, validation" in refusal(data)


@pytest.mark.parametrize(
    ("pattern", "group"),
    [(r"_([a-z]+)\.wav$", "ann"), (r"^(\w)", "c"), (r"^(cat)/", "cat")],
)
def test_groups_by_regular_expression(data: Path, pattern: str, group: str) -> None:
    shutil.rmtree(data / "dog")
    shutil.copytree(data / "cat", data / "cat/more")
    (data / "pig").mkdir()
    for path in (data / "cat/more").iterdir():
        path.rename(data / "pig" / path.name)
    for path in (data / "pig").iterdir():
        with path.open("ab") as file:
            file.write(b"\0")
    clips = read_manifest(data, group_regex=pattern.replace("^(cat)/", "^(cat|pig)/")).clips
    # The file's name first, then the path below the data.
    assert {c.group for c in clips if c.label == "cat"} == {group}


def test_regular_expressions_that_cannot_be_right(data: Path) -> None:
    assert "no capture group" in refusal(data, group_regex="ann")
    assert "not a regular expression" in refusal(data, group_regex="(ann")
    message = refusal(data, group_regex="(cat)")
    assert "for 10 of 20 files, such as dog/dog_0_ann.wav" in message
    assert "for 20 of 20" in refusal(data, group_regex="()ann")
    (data / "manifest.csv").write_text("path,label,group\na.wav,x,g\nb.wav,y,h\n")
    assert "has a group column already" in refusal(data, group_regex="(ann)")


def test_names_with_line_breaks_and_foreign_bytes(data: Path) -> None:
    (data / "dog/dog_0_ann.wav").rename(data / "dog/line\nbreak.wav")
    (data / "dog/dog_1_ann.wav").rename(data / "dog/größe ホタル.WAV")
    foreign = data / "dog" / os.fsdecode(b"caf\xe9.wav")
    try:
        (data / "dog/dog_2_ann.wav").rename(foreign)
    except OSError:
        pytest.skip("this file system refuses names that are not UTF-8")
    assert len(read_manifest(data, group_regex=r"(.)").clips) == 20
    foreign.write_bytes(b"")
    message = refusal(data, strict=True)
    assert "dog/caf\\xe9.wav: the file has 0 bytes" in message
    assert message.encode("utf-8")


def test_the_animal_sounds(shared_data: Path) -> None:
    manifest = read_manifest(shared_data / "animal-sounds", strict=True)
    assert len(manifest.clips) == 396
    assert len(manifest.labels) == 10
    assert {p.rule for p in manifest.problems} == {"duplicate"}
    # 28 files repeat the bytes of another one; each set shares a group.
    assert len(manifest.problems) == 28
    assert len({c.group for c in manifest.clips}) == 368
    assert sum(c.seconds for c in manifest.clips) == pytest.approx(1469, abs=1)


def test_the_spoken_digits(shared_data: Path) -> None:
    manifest = read_manifest(shared_data / "spoken-digits", strict=True)
    assert len(manifest.clips) == 960
    assert len({c.group for c in manifest.clips}) == 6
    # All are shorter than a patch of YAMNet, which is not too short.
    assert manifest.problems == ()
    by_name = read_manifest(shared_data / "spoken-digits/manifest.csv")
    assert by_name.fingerprint == manifest.fingerprint


def test_silence_may_be_a_class(tmp_path: Path) -> None:
    """A whole class of it, or background; elsewhere a silent clip is a fault."""
    rng = np.random.default_rng(0)
    for label, quiet in (("dog", (0,)), ("hush", (0, 1, 2)), ("background", (0,))):
        (tmp_path / label).mkdir()
        for number in range(4):
            noise = rng.normal(0, 0.1, 8000 + number).astype("float32")
            wave = 1e-6 * noise if number in quiet else noise
            soundfile.write(tmp_path / label / f"{number}.wav", wave, 16_000, subtype="FLOAT")
    manifest = read_manifest(tmp_path)
    counts = {label: sum(c.label == label for c in manifest.clips) for label in manifest.labels}
    assert counts == {"background": 4, "dog": 3, "hush": 4}
    assert [(p.path.as_posix(), p.rule) for p in manifest.problems] == [("dog/0.wav", "silent")]
