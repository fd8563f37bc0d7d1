"""The layouts of data sets, each made by a small generator, found without any option."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from unfreeze.audio.label_table import Columns
from unfreeze.audio.manifest import check_classes, read_manifest
from unfreeze.audio.sources import Reading, find_source
from unfreeze.errors import DataError


def sounds(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng([*name.encode()]).normal(0, 0.1, 4000).astype("float32")
        soundfile.write(path, noise, 16_000)


LABELS = ("dog", "dog", "rain", "rain")


def text(root: Path, name: str, *lines: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def esc50(root: Path) -> None:
    sounds(root, *(f"audio/1-{n}-A-0.wav" for n in range(4)))
    rows = [
        f"1-{n}-A-0.wav,{n % 2 + 1},{n % 2},{('dog', 'rain')[n // 2]},True,{n},A" for n in range(4)
    ]
    text(root, "meta/esc50.csv", "filename,fold,target,category,esc10,src_file,take", *rows)


def urbansound8k(root: Path) -> None:
    sounds(root, *(f"audio/fold{n % 2 + 1}/{n}-0-0-0.wav" for n in range(4)))
    rows = [
        f"{n}-0-0-0.wav,{n},30.5,34.5,1,{n % 2 + 1},0,{('dog', 'rain')[n // 2]}" for n in range(4)
    ]
    head = "slice_file_name,fsID,start,end,salience,fold,classID,class"
    text(root, "metadata/UrbanSound8K.csv", head, *rows)


def birdclef(root: Path) -> None:
    sounds(root, *(f"train_audio/{('dog', 'rain')[n // 2]}/XC{n}.ogg" for n in range(4)))
    rows = [
        f"{('dog', 'rain')[n // 2]},[],5.0,{('dog', 'rain')[n // 2]}/XC{n}.ogg" for n in range(4)
    ]
    text(root, "train_metadata.csv", "primary_label,secondary_labels,rating,filename", *rows)
    # Of recordings to predict; no table of labels, though it is named like one.
    text(root, "test.csv", "row_id,file_id,bird,end_time", "s1_dog_5,s1,dog,5")
    text(root, "sample_submission.csv", "row_id,target", "s1_dog_5,False")


def dcase(root: Path) -> None:
    sounds(root, *(f"audio/{n}.wav" for n in range(4)))
    rows = [f"audio/{n}.wav\t{x}\tsite{n % 2}" for n, x in enumerate(LABELS)]
    text(root, "meta.csv", "filename\tscene_label\tidentifier", *rows)


def dcase_with_its_split(root: Path) -> None:
    dcase(root)
    head = "filename\tscene_label"
    rows = [f"audio/{n}.wav\t{x}" for n, x in enumerate(LABELS)]
    text(root, "evaluation_setup/fold1_train.csv", head, *rows[::2])
    text(root, "evaluation_setup/fold1_evaluate.csv", head, *rows[1::2])
    text(root, "evaluation_setup/fold1_test.csv", "filename", "audio/1.wav", "audio/3.wav")


def dcase_2017(root: Path) -> None:
    """Without headers, in four folds."""
    sounds(root, *(f"audio/b{n}_0_10.wav" for n in range(4)))
    rows = [f"audio/b{n}_0_10.wav\t{x}" for n, x in enumerate(LABELS)]
    text(root, "meta.txt", *(f"{row}\tb{n}" for n, row in enumerate(rows)))
    for fold in (1, 2):
        own = rows[fold - 1 :: 2]
        rest = [row for row in rows if row not in own]
        text(root, f"evaluation_setup/fold{fold}_train.txt", *rest)
        text(root, f"evaluation_setup/fold{fold}_evaluate.txt", *own)


def hugging_face(root: Path) -> None:
    for part in ("train", "test"):
        sounds(root / part, *(f"{n}.wav" for n in range(2)))
        text(root / part, "metadata.csv", "file_name,label", "0.wav,dog", "1.wav,rain")


def part_folders(root: Path) -> None:
    sounds(root, *(f"{part}/{x}/0.wav" for part in ("train", "test") for x in ("dog", "rain")))


def speech_commands(root: Path) -> None:
    sounds(root, *(f"{x}/{n}.wav" for x in ("dog", "rain") for n in range(2)))
    text(root, "testing_list.txt", "dog/1.wav", "rain/1.wav")


def one_table(root: Path) -> None:
    sounds(root, *(f"clips/{n}.wav" for n in range(4)))
    text(
        root,
        "sounds.csv",
        "file;species",
        *(f"clips/{n}.wav;{('dog', 'rain')[n // 2]}" for n in range(4)),
    )


LAYOUTS = {
    esc50: ("fold 1", None),
    urbansound8k: ("fold 1", None),
    birdclef: (None, None),
    dcase: ("site0", None),
    dcase_with_its_split: ("site0", "train"),
    dcase_2017: ("fold 1", None),
    hugging_face: (None, "train"),
    part_folders: (None, "train"),
    speech_commands: (None, "train"),
    one_table: (None, None),
}


@pytest.mark.parametrize("make", LAYOUTS, ids=lambda make: make.__name__)
def test_a_public_layout_as_it_is(make, tmp_path: Path) -> None:
    make(tmp_path)
    manifest = read_manifest(tmp_path)
    assert Counter(clip.label for clip in manifest.clips) == {"dog": 2, "rain": 2}
    entries = find_source(tmp_path).entries
    group, split = LAYOUTS[make]
    assert Counter(e.group for e in entries)[group] == (4 if group is None else 2)
    assert Counter(e.split for e in entries)[split] == (4 if split is None else 2)


def test_recordings_in_no_list_of_a_fold_are_left_out_with_a_note(tmp_path: Path) -> None:
    dcase_with_its_split(tmp_path)
    rest = tmp_path / "evaluation_setup" / "fold1_train.csv"
    rest.write_text("filename\tscene_label\naudio/0.wav\tdog\n")
    found = find_source(tmp_path)
    assert [(e.name.name, e.split) for e in found.entries] == [
        ("0.wav", "train"), ("1.wav", "test"), ("3.wav", "test"),
    ]  # fmt: skip
    assert [note.cause for note in found.notes if note.path.name == "evaluation_setup"] == [
        "its fold is the split",
        "1 recording is in none of its lists, and not used",
    ]
    rest.write_text("filename\naudio/7.wav\n")
    with pytest.raises(DataError, match=r"fold1_train.csv: 1 of the 1 files .* audio/7.wav"):
        find_source(tmp_path)
    rest.write_text("filename\naudio/0.wav\naudio/1.wav\n")
    with pytest.raises(DataError, match=r"audio/1\.wav is in two lists"):
        find_source(tmp_path)
    rest.unlink()
    found = find_source(tmp_path)
    assert len(found.entries) == 4
    (note,) = [note for note in found.notes if note.rule == "folds"]
    assert note.cause == "no fold in it has both lists, train and evaluate; it is not used"


def test_fsd50k_has_several_labels(tmp_path: Path) -> None:
    sounds(tmp_path, "FSD50K.dev_audio/64760.wav", "FSD50K.eval_audio/37199.wav")
    head = "fname,labels,mids,split"
    text(tmp_path, "FSD50K.ground_truth/dev.csv", head, '64760,"Bark,Dog","/m/1,/m/2",train')
    text(tmp_path, "FSD50K.ground_truth/eval.csv", "fname,labels,mids", "37199,Rain,/m/3")
    found = find_source(tmp_path)
    assert [(e.label, e.split) for e in found.entries] == [("Bark;Dog", "train"), ("Rain", "test")]
    assert found.several
    assert found.labels == ("Bark", "Dog", "Rain")


def test_common_voice_with_a_column_that_is_named(tmp_path: Path) -> None:
    sounds(tmp_path, *(f"clips/{n}.wav" for n in range(6)))
    for part, first in (("train", 0), ("dev", 2), ("test", 4)):
        rows = [f"anna{n}\t{n}.wav\tHello\t{('female', 'male')[n % 2]}" for n in (first, first + 1)]
        text(tmp_path, f"{part}.tsv", "client_id\tpath\tsentence\tgender", *rows)
    found = find_source(tmp_path, how=Reading(columns=Columns(label="gender")))
    assert [(e.label, e.split, e.group) for e in found.entries] == [
        ("female", "train", "anna0"), ("male", "train", "anna1"),
        ("female", "validation", "anna2"), ("male", "validation", "anna3"),
        ("female", "test", "anna4"), ("male", "test", "anna5"),
    ]  # fmt: skip


def test_votes_are_no_classes_and_a_part_may_be_empty(tmp_path: Path) -> None:
    sounds(tmp_path, *(f"clips/{n}.wav" for n in range(4)))
    head = "client_id\tpath\tsentence\tup_votes\tdown_votes\taccents"
    for part, numbers in (("train", (0, 1)), ("dev", ()), ("test", (2, 3))):
        rows = [f"anna\t{n}.wav\tHello\t{n % 2}\t{1 - n % 2}\t{'ab'[n % 2]}" for n in numbers]
        text(tmp_path, f"{part}.tsv", head, *rows)
    with pytest.raises(DataError, match="name no recordings and labels"):
        find_source(tmp_path)
    found = find_source(tmp_path, how=Reading(columns=Columns(label="accents")))
    assert [(e.label, e.split) for e in found.entries] == [
        ("a", "train"), ("b", "train"), ("a", "test"), ("b", "test"),
    ]  # fmt: skip
    assert "it has no rows, so no recording is validation" in [n.cause for n in found.notes]


def test_labels_of_one_part_tell_how_those_of_another_are_joined(tmp_path: Path) -> None:
    sounds(tmp_path, *(f"{n}.wav" for n in range(4)))
    text(tmp_path, "train.csv", "path,label", "0.wav,cat", "1.wav,dog")
    text(tmp_path, "test.csv", "path,label", '2.wav,"cat,dog"', '3.wav,"owl, tawny"')
    found = find_source(tmp_path)
    assert [e.label for e in found.entries] == ["cat", "dog", "cat;dog", "owl, tawny"]
    assert found.several


def test_several_tables_are_asked_about(tmp_path: Path) -> None:
    one_table(tmp_path)
    text(tmp_path, "again.csv", "path,label", "clips/0.wav,dog")
    with pytest.raises(DataError, match=r"several tables of labels: again\.csv, sounds\.csv"):
        find_source(tmp_path)


def test_recordings_outside_are_used_and_told(tmp_path: Path) -> None:
    data, disk = tmp_path / "home/data", tmp_path / "disk"
    sounds(disk, "a.wav", "b.wav")
    sounds(data, "c.wav")
    table = text(
        data,
        "manifest.csv",
        "path,label",
        f"{disk}/a.wav,dog",
        "../../disk/b.wav,rain",
        "c.wav,dog",
    )
    for place in (data, table):
        found = find_source(place)
        assert found.root == tmp_path
        assert [e.name.as_posix() for e in found.entries] == [
            "disk/a.wav", "disk/b.wav", "home/data/c.wav",
        ]  # fmt: skip
        assert [(n.rule, n.fatal) for n in found.notes] == [("outside", False)]


def test_a_linked_folder_of_another_place_is_a_class(tmp_path: Path) -> None:
    sounds(tmp_path / "data", "dog/a.wav")
    sounds(tmp_path / "disk", "b.wav")
    (tmp_path / "data/rain").symlink_to(tmp_path / "disk")
    manifest = read_manifest(tmp_path / "data")
    assert {clip.label for clip in manifest.clips} == {"dog", "rain"}
    assert manifest.root == tmp_path
    assert all(clip.path.is_relative_to(manifest.root) for clip in manifest.clips)
    assert [p.rule for p in manifest.problems] == ["outside"]


def test_a_file_that_is_no_table(tmp_path: Path) -> None:
    sounds(tmp_path, "a.wav")
    with pytest.raises(DataError, match=r"is a file, but not a table of labels"):
        find_source(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path;label\na.wav;größe\n".encode("latin-1"), "line 2: this is not UTF-8"),
        (b"path,label,label\na.wav,x,y\n", "line 1: the column 'label' appears twice"),
        (b"Datei;Art\na.wav;x\n", "its columns .'datei', 'art'. name no recordings"),
    ],
)
def test_a_table_of_labels_that_fails_is_not_passed_over(content, message, tmp_path: Path) -> None:
    sounds(tmp_path, "dog/a.wav", "cat/b.wav")
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(DataError, match=rf"labels\.csv cannot be used as a table .*: {message}"):
        find_source(tmp_path)
    (tmp_path / "labels.csv").rename(tmp_path / "weather.csv")
    notes = find_source(tmp_path).notes
    assert [(n.path.name, n.rule) for n in notes] == [("weather.csv", "no_table")]


def test_options_for_a_table_without_one_are_refused(tmp_path: Path) -> None:
    sounds(tmp_path, "dog/a.wav", "rain/b.wav")
    with pytest.raises(DataError, match="has no table of labels that --path-column"):
        find_source(tmp_path, how=Reading(columns=Columns(label="species")))
    text(tmp_path, "list.csv", "path,kind", "dog/a.wav,x")
    with pytest.raises(DataError, match=r"list\.csv: .*has no column 'knd'.*Did you mean 'kind'"):
        find_source(tmp_path, how=Reading(columns=Columns(label="knd")))


def test_parts_in_the_paths_of_one_table_are_kept(tmp_path: Path) -> None:
    sounds(tmp_path, *(f"{part}/{n}.wav" for part in ("train", "test") for n in range(2)))
    rows = [f"{p}/{n}.wav,{x}" for p in ("train", "test") for n, x in enumerate(("dog", "rain"))]
    text(tmp_path, "metadata.csv", "file_name,label", *rows)
    assert Counter(e.split for e in find_source(tmp_path).entries) == {"train": 2, "test": 2}


def test_recordings_that_no_row_names_are_counted(tmp_path: Path) -> None:
    one_table(tmp_path)
    sounds(tmp_path, "clips/extra.wav", "more/extra.wav")
    (note,) = find_source(tmp_path).notes
    assert note.cause == "2 recordings in it are named by no row, and not used"


def test_one_table_for_all_comes_before_tables_beside_recordings(tmp_path: Path) -> None:
    one_table(tmp_path)
    text(tmp_path, "clips/0.txt", "0.1\t0.2\train")
    found = find_source(tmp_path)
    assert [(e.label, e.start) for e in found.entries][:1] == [("dog", None)]
    assert len(found.entries) == 4


def test_numbers_beside_clips_are_no_label_tracks(tmp_path: Path) -> None:
    sounds(tmp_path, "dog/a.wav", "rain/b.wav")
    for name in ("dog/a.txt", "rain/b.txt"):
        text(tmp_path, name, "0.01\t120\t0.9", "0.02\t121\t1.0")
    assert {e.label for e in find_source(tmp_path).entries} == {"dog", "rain"}


def test_a_folder_of_recordings_relative_to_where_the_command_runs(tmp_path, monkeypatch) -> None:
    sounds(tmp_path, "clips/a.wav", "clips/b.wav", "a.wav")
    text(tmp_path, "list.csv", "path,label", "a.wav,dog", "b.wav,rain")
    monkeypatch.chdir(tmp_path)
    found = find_source("list.csv", how=Reading(columns=Columns(folder=Path("clips"))))
    assert [e.path for e in found.entries] == [tmp_path / "clips/a.wav", tmp_path / "clips/b.wav"]
    assert found.root == tmp_path


def test_tables_beside_recordings_are_not_those_of_the_data_set(tmp_path: Path) -> None:
    """BirdNET-Analyzer's have a column of paths, too."""
    sounds(tmp_path, "a.wav", "b.wav")
    for name, label in (("a", "dog"), ("b", "rain")):
        row = f"0.01,0.2,{label},{name}.wav"
        text(tmp_path, f"{name}.csv", "Start (s),End (s),Common name,File", row)
    found = find_source(tmp_path)
    assert [(e.path.name, e.start, e.label) for e in found.entries] == [
        ("a.wav", 0.01, "dog"), ("b.wav", 0.01, "rain"),
    ]  # fmt: skip


def test_an_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "data.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"data\.zip is an archive\. Unpack it"):
        find_source(tmp_path / "data.zip")


def test_a_table_that_was_not_read_is_named_where_only_one_class_is_found(tmp_path: Path) -> None:
    sounds(tmp_path, "clips/a.wav")
    (tmp_path / "metadata.jsonl").write_text("{}")
    with pytest.raises(DataError, match=r"only one class.*metadata\.jsonl: save it as a CSV"):
        check_classes(find_source(tmp_path))
