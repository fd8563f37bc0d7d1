"""Labels: silent classes by their other names, new names, and labels that cannot be used."""

from pathlib import Path

import pytest

from unfreeze.audio.entries import (
    Entry,
    check_label,
    read_label_map,
    rename_labels,
    settle_labels,
)
from unfreeze.errors import DataError, ScheduleError


def entries(*labels: str) -> list[Entry]:
    return [Entry(Path(f"/d/{n}.wav"), Path(f"{n}.wav"), x) for n, x in enumerate(labels)]


@pytest.mark.parametrize(
    "name",
    ["Background", "BACKGROUND", "_background_noise_", "background noise", "nocall", "No_call"],
)
def test_other_names_of_the_silent_class(name: str) -> None:
    found, notes = settle_labels(entries("dog", name))
    assert [e.label for e in found] == ["dog", "background"]
    assert [(n.rule, n.fatal) for n in notes] == [("background", False)]


@pytest.mark.parametrize("name", ["Noise", "silence", "Other", "unknown"])
def test_names_that_may_be_meant_as_silent_are_asked_about(name: str) -> None:
    found, notes = settle_labels(entries("dog", name))
    assert [e.label for e in found] == ["dog", name]
    assert "if it stands for none of the sounds, name it 'background'" in notes[0].cause


def test_samples_that_are_not_of_a_class_are_no_class() -> None:
    with pytest.raises(DataError, match=r"looks like sounds that are not 'call'.*--negative"):
        settle_labels(entries("call", "-call"))
    assert settle_labels(entries("noisy miner", "dog"))[1] == []


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "names.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_classes_are_renamed_merged_and_dropped(tmp_path: Path) -> None:
    file = write(tmp_path, "Kedi-Part1: cat\nKedi-Part2: cat\nnoise:\n7: seven\n")
    names = read_label_map(file)
    assert names == {"Kedi-Part1": "cat", "Kedi-Part2": "cat", "noise": None, "7": "seven"}
    found = rename_labels(entries("Kedi-Part1", "dog", "Kedi-Part2", "noise", "7"), names, file)
    assert [(e.name.stem, e.label) for e in found] == [
        ("0", "cat"), ("1", "dog"), ("2", "cat"), ("4", "seven"),
    ]  # fmt: skip


def test_a_map_that_is_wrong_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "dgo: cat\n")
    with pytest.raises(DataError, match=r"no class is named 'dgo'.*Did you mean 'dog'"):
        rename_labels(entries("dog"), read_label_map(file), file)
    with pytest.raises(DataError, match="several classes"):
        read_label_map(write(tmp_path, "dog: cat;dog\n"))
    with pytest.raises(ScheduleError, match="appears twice"):
        read_label_map(write(tmp_path, "dog: cat\ndog: cow\n"))
    with pytest.raises(ScheduleError, match="cannot be read"):
        read_label_map(tmp_path / "absent.yaml")


def test_labels_have_one_unicode_form() -> None:
    assert check_label("gro\u0308ße", "x") == "größe"
    with pytest.raises(DataError, match="several classes"):
        check_label("a;b", "x")


def test_labels_of_sets_are_settled_one_by_one() -> None:
    found, notes = settle_labels(entries("cat;nocall", "nocall", "cat;dog?"), several=True)
    assert [e.label for e in found] == ["cat", "", "cat;dog?"]
    assert [n.cause for n in notes] == ["is no class: clips of it are clips without a label"]
    names = {"cat": "felid", "dog": None}
    made = entries("cat;dog", "dog", "", "dog?;owl")
    renamed = rename_labels(made, names, Path("map.yaml"), several=True)
    assert [e.label for e in renamed] == ["felid", "", "owl"]


def test_names_of_speakers_are_asked_about() -> None:
    _, notes = settle_labels(entries("Actor_01", "Actor_02", "Actor_10"))
    (note,) = (n for n in notes if n.rule == "speakers")
    assert "if they are who or where is heard, not what" in note.cause
    for plain in (("Actor_1", "dog", "cat"), ("digit 1", "digit 2", "digit 3"), ("1", "2", "3")):
        assert not any(n.rule == "speakers" for n in settle_labels(entries(*plain))[1])


def test_joined_names_of_classes_are_asked_about() -> None:
    _, notes = settle_labels(entries("cat", "dog", "cat/dog", "cat and owl", "Sparrow, House"))
    assert [str(n.path) for n in notes if n.rule == "joined"] == ["cat and owl", "cat/dog"]


def test_a_mark_of_what_is_not_sure_alone() -> None:
    found, _ = settle_labels(entries("dog", "dog?", "why?", "cat;dog"), several=True)
    assert [e.label for e in found] == ["dog", ";dog?", "why?", "cat;dog"]
    _, notes = settle_labels(entries("dog", "dog?", "why?"))
    assert [str(n.path) for n in notes if n.rule == "unsure"] == ["dog?"]
    with pytest.raises(DataError, match="which means that nobody knows"):
        rename_labels(entries("cat;dog"), {"cat": "dog?"}, Path("map.yaml"), several=True)


def test_dropped_sounds_are_no_speakers() -> None:
    _, notes = settle_labels(entries("\0dropped", "site 1", "site 2", "site 3"))
    (note,) = (n for n in notes if n.rule == "speakers")
    assert str(note.path) == "site 1"
    assert note.cause.startswith("the classes are 3 such names")


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (("siteA", "siteB"), "who or where is heard"),
        (("subject_a", "subject_b"), "who or where is heard"),
        (("AM1", "AM2"), "who or where is heard"),
        (("2021", "2022"), "when or how it was recorded"),
        (("2021-05-01", "20210502"), "when or how it was recorded"),
        (("January", "May 2022"), "when or how it was recorded"),
        (("16k", "44.1 kHz"), "when or how it was recorded"),
    ],
)
def test_names_of_places_times_and_rates_are_asked_about(names: tuple[str, ...], kind: str) -> None:
    (note,) = (n for n in settle_labels(entries(*names))[1] if n.rule == "speakers")
    assert kind in note.cause


def test_names_of_sounds_are_not_asked_about() -> None:
    for names in (("bird", "birds"), ("childs", "children"), ("may", "go"), ("1", "2"), ("2021",)):
        assert settle_labels(entries(*names))[1] == []


def test_names_of_places_for_files_are_asked_about() -> None:
    _, notes = settle_labels(entries("cat", "train", "Unsorted", "test", "wavs"))
    assert [str(n.path) for n in notes if n.rule == "no_sound"] == ["Unsorted", "test", "wavs"]


def test_names_that_differ_in_their_marks_are_asked_about() -> None:
    _, notes = settle_labels(entries("sea gull", "sea_gull", "Sea-Gull", "gull"))
    (note,) = (n for n in notes if n.rule == "alike")
    assert note.cause.startswith("differs from sea gull, sea_gull in case, spaces, - and _")


def test_labels_of_spreadsheets_in_trouble_are_asked_about() -> None:
    _, notes = settle_labels(entries("cat", "#N/A", "#REF!", "=A1", "?", "#1"))
    assert [str(n.path) for n in notes if n.rule == "no_label"] == ["#N/A", "#REF!", "=A1", "?"]


def test_labels_in_a_wrong_encoding_are_asked_about() -> None:
    misread = "Möwe".encode().decode("cp1252")
    _, notes = settle_labels(entries("Möwe", misread, "M\N{REPLACEMENT CHARACTER}we", "ホタル"))
    causes = {str(n.path): n.cause for n in notes if n.rule == "encoding"}
    assert set(causes) == {misread, "M\N{REPLACEMENT CHARACTER}we"}
    assert "perhaps 'Möwe'" in causes[misread]
