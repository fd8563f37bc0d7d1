"""A head on labelled places of an index: the run that it makes, and what it refuses."""

import csv
import json

import numpy as np
import pytest

import toy
from unfreeze.audio.entries import BACKGROUND
from unfreeze.audio.made_background import make_background
from unfreeze.audio.split import split_clips
from unfreeze.errors import DataError, RunError
from unfreeze.search import head_from_index
from unfreeze.search.embedding import embed
from unfreeze.search.head_from_index import train_head


@pytest.fixture(scope="module")
def home(tmp_path_factory, toy_run):
    """Sounds of three classes, two annotated recordings, and an index of all of them."""
    folder = tmp_path_factory.mktemp("labelled")
    toy.write_sounds(folder / "sounds", clips=12, seed=3)
    for number in range(2):
        toy.write_annotated(folder / "field", seconds=60, seed=number, name=f"site{number}")
    files = sorted(folder.rglob("*.wav"))
    embed(files, folder / "index", run=toy_run)
    return folder


@pytest.fixture(scope="module")
def index(home):
    from unfreeze.search.index_folder import open_index

    return open_index(home / "index")


@pytest.fixture(scope="module")
def table(home):
    rows = [("file", "label"), *((p, p.parent.name) for p in (home / "sounds").rglob("*.wav"))]
    with (home / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return home / "labels.csv"


@pytest.fixture(scope="module")
def trained(index, table, tmp_path_factory):
    out = tmp_path_factory.mktemp("head") / "run"
    return out, train_head(index, table, out, gate=False)


def test_other_places_of_the_same_number_have_another_fingerprint(index, table):
    """Or the gate of a corrected table would be solved on the vectors of the one before."""
    manifest, rows, _ = head_from_index._labelled(index, table, False)
    split = split_clips(manifest)
    for other, same in ((rows, True), (rows[::-1], False)):
        one, two = (
            head_from_index._pieces(index, manifest, split, given).parts["train"]
            for given in (rows, other)
        )
        assert one.shape == two.shape
        assert (one.fingerprint == two.fingerprint) == same


def test_it_is_a_run_that_predicts(trained, home):
    import unfreeze

    out, metrics = trained
    assert metrics["test"]["accuracy"] == 1.0
    assert metrics["test"]["clips"] >= 3
    assert set(metrics["thresholds"]) == {"high", "low", "noise"}
    classifier = unfreeze.SoundClassifier.load(out)
    assert classifier.labels == ("high", "low", "noise")
    rows = list(csv.DictReader((out / "predictions.csv").open()))
    assert {row["split"] for row in rows} == {"validation", "test"}
    for row in rows[:6]:
        # The model hears the sound; the head was told of vectors in float16.
        (block,) = classifier.scan(home / "sounds" / row["path"], hop=0.96)
        told = [float(row[f"score_{label}"]) for label in classifier.labels]
        np.testing.assert_allclose(block.scores.mean(axis=0), told, atol=5e-3)
    events = classifier.detect(home / "field" / "site0.wav")
    assert {event.label for event in events} >= {"high", "low"}


def test_no_recording_is_in_two_parts_and_the_same_seed_gives_the_same(
    trained, index, table, tmp_path
):
    out, metrics = trained
    rows = list(csv.DictReader((out / "splits.csv").open()))
    assert len(rows) == 36
    assert {row["split"] for row in rows} == {"train", "validation", "test"}
    assert train_head(index, table, tmp_path / "again", gate=False) == metrics
    with pytest.raises(RunError, match="holds a finished run"):
        train_head(index, table, out)


def test_places_in_long_recordings_are_labelled_by_tables(index, home, tmp_path):
    shares = {"validation": 0.25, "test": 0.25}
    metrics = train_head(index, home / "field", tmp_path / "run", gate=False, **shares)
    assert metrics["test"]["accuracy"] > 0.8
    notes = (tmp_path / "run" / "notes.json").read_text()
    assert "recordings only, so its parts are stretches of time" in notes


def test_places_with_two_labels_are_left_out_and_repeated_ones_count_once(index, home, tmp_path):
    sounds = sorted((home / "sounds").rglob("*.wav"))
    rows = [f"{path},0,0.9,{path.parent.name}\n" for path in sounds]
    (tmp_path / "tables").mkdir()
    head = "file,start,end,label\n"
    (tmp_path / "tables" / "one.csv").write_text(head + "".join(rows))
    (tmp_path / "tables" / "two.csv").write_text(head + f"{sounds[0]},0,0.9,noise\n" + rows[1])
    train_head(index, tmp_path / "tables", tmp_path / "run", gate=False)
    clips = list(csv.DictReader((tmp_path / "run" / "splits.csv").open()))
    assert len(clips) == len(sounds) - 1
    (note,) = (n for n in _notes(tmp_path / "run") if "two labels" in n)
    assert f"1 places have two labels and are left out, such as {sounds[0]} from 0 to 0." in note
    assert note.endswith("high and noise. If both are heard there, say --multilabel")


def test_places_with_several_labels_make_a_head_that_judges_each_class(index, home, tmp_path):
    import unfreeze

    # Noise is both, and one class is left open.
    said = {"high": "high", "low": "low", "noise": "high;low"}
    sounds = sorted((home / "sounds").rglob("*.wav"))
    rows = [f"{path},{said[path.parent.name]}\n" for path in sounds]
    rows[0] = f"{sounds[0]},high;low?\n"
    (tmp_path / "labels.csv").write_text("file,label\n" + "".join(rows))
    out = tmp_path / "run"
    metrics = train_head(index, tmp_path / "labels.csv", out, gate=False)
    assert metrics["test"]["mean_average_precision"] == 1.0
    assert set(metrics["clip_thresholds"]) == set(metrics["thresholds"]) == {"high", "low"}
    assert metrics["background"]
    assert "12 of 36 places have several labels, 0 have none" in _notes(out)[-1]
    classifier = unfreeze.SoundClassifier.load(out)
    assert classifier.multilabel
    told = {
        name: set(classifier.heard(classifier.predict(home / "sounds" / name / f"{name}_11.wav")))
        for name in said
    }
    assert told == {"high": {"high"}, "low": {"low"}, "noise": {"high", "low"}}
    rows = list(csv.DictReader((out / "predictions.csv").open()))
    right = [row["label"].replace(";low?", "") == row["predicted"] for row in rows]
    assert np.mean(right) > 0.7


def test_two_rows_of_one_place_are_two_labels_where_a_place_may_have_several(index, home, tmp_path):
    rows = []
    for path in sorted((home / "sounds").rglob("*.wav")):
        own = path.parent.name
        for label in ("high", "low") if own == "noise" else (own,):
            rows.append(f"{path},0,0.5,{label}\n")
    (tmp_path / "labels.csv").write_text("file,start,end,label\n" + "".join(rows))
    metrics = train_head(
        index, tmp_path / "labels.csv", tmp_path / "run", gate=False, multilabel=True
    )
    assert metrics["test"]["multilabel"]
    labels = [row["label"] for row in csv.DictReader((tmp_path / "run" / "splits.csv").open())]
    assert {label: labels.count(label) for label in set(labels)} == {
        "high": 12, "low": 12, "high;low": 12,
    }  # fmt: skip


def test_with_its_gate_a_head_names_nothing_where_only_background_is_heard(
    index, home, tmp_path, monkeypatch
):
    import unfreeze

    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))
    toy.little_background(monkeypatch)
    rows = [
        f"{path},{path.parent.name}\n"
        for path in sorted((home / "sounds").rglob("*.wav"))
        if path.parent.name != "noise"
    ]
    (tmp_path / "labels.csv").write_text("file,label\n" + "".join(rows))
    metrics = train_head(index, tmp_path / "labels.csv", tmp_path / "run")
    classifier = unfreeze.SoundClassifier.load(tmp_path / "run")
    assert classifier.labels == (BACKGROUND, "high", "low")
    assert classifier.knows_background
    assert metrics["background"]
    assert metrics["test"]["accuracy"] == 1.0
    # Six sounds of each kind that is used, 2.88 s each.
    sounds = metrics["threshold_counts"]["hours_of_background"] * 3600 / 2.88
    assert 6 * 4 <= round(sounds) <= 6 * 9
    rng = np.random.default_rng(99)
    made = [make_background("coloured noise", 3.0, rng).astype("float32") for _ in range(12)]
    plain = train_head(index, tmp_path / "labels.csv", tmp_path / "open", gate=False)
    assert not plain["background"]
    ungated = unfreeze.SoundClassifier.load(tmp_path / "open")
    assert all(ungated.heard(ungated.predict(sound)) for sound in made)
    # The toy's vectors know little of noise; those of YAMNet are in benchmarks and docs.
    assert sum(not classifier.heard(classifier.predict(sound)) for sound in made) >= 6
    # What was computed is kept for the next head, whatever its labels.
    kept = list((tmp_path / "cache").rglob("fit.npz"))
    before = [file.stat().st_mtime_ns for file in kept]
    assert len(kept) >= 3
    again = train_head(index, tmp_path / "labels.csv", tmp_path / "again")
    assert again == metrics
    assert [file.stat().st_mtime_ns for file in kept] == before


def _notes(run):
    return json.loads((run / "notes.json").read_text())["notes"]


def test_what_cannot_be_used_is_refused_and_nothing_is_left(index, home, tmp_path):
    table, out = tmp_path / "labels.csv", tmp_path / "run"
    scene = home / "field" / "site0.wav"
    for text, said in (
        ("file,label\n/nowhere/a.wav,cat\n", r"has no place that is in .*index.*a\.wav"),
        (f"file,start,end,label\n{scene},1,2,cat\n{scene},3,4,cat\n", "has places of cat alone"),
        (
            f"file,start,end,label\n{scene},1,2,cat\n/nowhere/a.wav,1,2,dog\n",
            r"places of cat alone: .* \(1 places are of 1 recordings that are not in the index",
        ),
        (f"file,start,end,label\n{scene},,,cat\n", "none of its 1 rows has both a label and a st"),
        (f"file,start,end,label\n{scene},1,2,cat\n{scene},3,4,dog\n", "group"),
    ):
        table.write_text(text)
        with pytest.raises(DataError, match=said):
            train_head(index, table, out)
    with pytest.raises(DataError, match="does not exist"):
        train_head(index, tmp_path / "none.csv", out)
    assert not out.exists()
