"""Corrections beside the data of an earlier run: the laws, and the whole round."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

import toy
import unfreeze
from unfreeze.audio.entries import Entry
from unfreeze.audio.manifest import Clip, Manifest
from unfreeze.audio.rules import Facts
from unfreeze.audio.segments_file import (
    Corrections,
    Segment,
    SegmentsFile,
    find_corrections,
    write_segments,
)
from unfreeze.review.add_to import divide, merge
from unfreeze.review.old_run import inherited_options, run_source

NOTHING = Corrections(0, (), 0, 0, ())
SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}


def recording(name, label, content, split=None, group=None):
    return Entry(Path(name), Path(name), label, group, split), Facts(content, 1.0, 16_000, 1)


def labels_of(merged):
    return {str(entry.path): entry.label for entry, _ in merged.recordings}


def test_the_same_bytes_are_used_once():
    old = [recording("old", "dog", "x", "train", "g"), recording("other", "cat", "y", "test", "h")]
    new = [recording("new", "dog", "x"), recording("fresh", "cat", "z")]
    merged = merge(old, new)
    assert labels_of(merged) == {"old": "dog", "other": "cat", "fresh": "cat"}
    assert merged.counts == {"repeated": 1, "relabelled": 0, "disputed": 0}
    assert merged.problems == []


@pytest.mark.parametrize("part", ["train", "validation"])
def test_a_correction_counts_for_clips_that_do_not_test(part):
    old = [recording("old", "dog", "x", part, "g"), recording("copy", "dog", "x", part, "g")]
    merged = merge(old, [recording("new", "cat", "x")])
    assert labels_of(merged) == {"old": "cat", "copy": "cat"}
    assert {entry.split for entry, _ in merged.recordings} == {part}
    assert merged.counts["relabelled"] == 2


def test_a_correction_never_changes_a_test_clip():
    merged = merge([recording("old", "dog", "x", "test", "g")], [recording("new", "cat", "x")])
    assert labels_of(merged) == {"old": "dog"}
    assert merged.counts["disputed"] == 1
    (problem,) = merged.problems
    assert (str(problem.path), problem.fatal) == ("new", False)
    assert "test clip of the run" in problem.cause


def test_new_clips_that_contradict_each_other_take_nothing_of_the_run_with_them():
    old = [recording("old", "dog", "x", "train", "g")]
    merged = merge(old, [recording("a", "dog", "x"), recording("b", "cat", "x")])
    assert labels_of(merged) == {"old": "dog"}
    assert [p.rule for p in merged.problems] == ["duplicate_label"] * 2


def clip(number, label, group, split):
    return Clip(Path(f"{number}.wav"), label, group, split, 1.0, 16_000, 1, f"c{number}")


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_added_the_old_parts_stay_and_no_group_straddles(seed):
    rng = np.random.default_rng(seed)
    part_of = {
        f"old{g}": str(rng.choice(["train", "train", "validation", "test"])) for g in range(9)
    }
    part_of["old0"] = "train"
    clips = [clip(n, label, "old0", "train") for n, label in enumerate("abc")]
    for group, part in part_of.items():
        for _ in range(rng.integers(1, 4)):
            clips.append(clip(len(clips), str(rng.choice(list("abc"))), group, part))
    old = len(clips)
    for _ in range(rng.integers(0, 25)):
        # Some are of recordings that the run has: also of its test recordings.
        group = f"{rng.choice(['old', 'new'])}{rng.integers(0, 9)}"
        clips.append(clip(len(clips), str(rng.choice(list("abc"))), group, None))
    data = divide(Manifest(Path(), tuple(clips), tuple("abc"), (), "f"), SHARES, seed, NOTHING)
    parts = data.parts()
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(clips)))
    for name in ("train", "validation", "test"):
        stayed = [i for i, c in enumerate(clips[:old]) if c.split == name]
        assert [i for i in parts[name] if i < old] == stayed
    # The test set is that of the run: nothing joins it, nothing leaves it.
    assert all(i < old for i in parts["test"])
    tested = {clips[i].group for name in ("test", "corrected") for i in parts[name]}
    assert not tested & {clips[i].group for i in (*parts["train"], *parts["validation"])}
    assert not {clips[i].group for i in parts["train"]} & {
        clips[i].group for i in parts["validation"]
    }
    assert list(data.added) == list(range(old, len(clips)))


def test_one_new_recording_is_trained_on_and_it_is_said_that_nothing_is_held_out():
    clips = (clip(0, "a", "g0", "train"), clip(1, "b", "g1", "train"), clip(2, "a", "g2", "test"))
    more = (clip(3, "a", "new", None), clip(4, "b", "new", None))
    data = divide(Manifest(Path(), clips + more, ("a", "b"), (), "f"), SHARES, 0, NOTHING)
    assert data.split.train.tolist() == [0, 1, 3, 4]
    assert data.corrected.tolist() == []
    assert any("too few recordings to hold any out" in note for note in data.notes)


def test_corrections_are_counted():
    def segment(file, label):
        return Segment(file, file, "s", "s", 0, 1, label, 0.9, 0.8)

    put = [segment(f"dog/{i}", "dog") for i in range(4)] + [segment("cat/9", "cat")]
    entries = [
        Entry(Path(n), Path(n), n.split("/")[0]) for n in ("dog/0", "cat/1", "owl/2", "owl/x")
    ]
    found = find_corrections(entries, [put[0], put[1], put[2], None], put, ("cat", "dog"))
    assert (found.kept, found.deleted, found.added, found.new_classes) == (1, 2, 1, ("owl",))
    assert sorted(found.moved) == [("dog", "cat", 1), ("dog", "owl", 1)]


# The whole round, on toy sounds.


OPTIONS = {"backbone": "toy", "epochs": 6, "batch_size": 8, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A run, and clips that a person has sorted: of five recordings, with a new class."""
    folder = tmp_path_factory.mktemp("round")
    with pytest.MonkeyPatch.context() as monkeypatch:
        toy.register(monkeypatch, folder)
        toy.write_sounds(folder / "data", clips=10)
        unfreeze.SoundClassifier.train(folder / "data", "head_only", folder / "run", **OPTIONS)
        write_corrected(folder)
        yield folder


def write_corrected(folder, seed=5, name="fix"):
    """As after `unfreeze segments` and a person's work on it."""
    rng = np.random.default_rng(seed)
    segments = []
    for source in range(5):
        for label, was, pitch in (("low", "low", 200), ("high", "low", 2500), ("mid", "high", 900)):
            time = np.arange(16_000) / 16_000
            sound = 0.3 * np.sin(6.283 * pitch * rng.uniform(0.9, 1.1) * time)
            file = folder / name / label / f"{was}_{name}_{source}.wav"
            file.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(file, sound + 0.01 * rng.normal(size=len(time)), 16_000)
            segments.append(
                Segment(
                    f"{was}/{file.name}",
                    "",
                    f"/field/{source}.wav",
                    f"{name}{source}",
                    0,
                    1,
                    was,
                    0.9,
                    0.8,
                )
            )
    segments.append(Segment("low/gone.wav", "", "/field/0.wav", "s0", 5, 6, "low", 0.7, 0.5))
    write_segments(
        folder / name, SegmentsFile("run", "c", ("high", "low", "noise"), tuple(segments))
    )
    return folder / name


def rows_of(run):
    return list(csv.DictReader((run / "splits.csv").open()))


@pytest.fixture(scope="module")
def added(home):
    return unfreeze.SoundClassifier.train(home / "fix", out=home / "new", add_to=home / "run")


def test_the_old_test_clips_are_the_test_set(home, added):
    before, after = rows_of(home / "run"), rows_of(home / "new")
    old = {Path(row["path"]).name: (row["label"], row["split"]) for row in before}
    kept = {
        Path(row["path"]).name: (row["label"], row["split"])
        for row in after
        if row["added"] == "no"
    }
    assert kept == old
    assert added.metrics["test"]["clips"] == sum(part == "test" for _, part in old.values())
    assert added.labels == ("high", "low", "mid", "noise")
    # The new ones are divided by the recording that they were cut from.
    parts = {}
    for row in after:
        if row["added"] == "yes":
            parts.setdefault(row["group"], set()).add(row["split"])
    assert set(parts) == {f"fix{i}" for i in range(5)}
    assert all(len(found) == 1 for found in parts.values())
    assert {"train", "test"} <= set.union(*parts.values())


def test_settings_are_those_of_the_run_but_for_what_is_given(home, added):
    config = yaml.safe_load((home / "new" / "config.yaml").read_text())
    schedule = unfreeze.read_schedule(home / "new" / "schedule.yaml")
    assert schedule == unfreeze.read_schedule(home / "run" / "schedule.yaml")
    assert schedule.stages[0].epochs == 6
    assert config["options"]["backbone"] == "toy"
    assert "--add-to" in config["command"]
    options = inherited_options(home / "run", home / "fix", {"seed": 3, "epochs": 2})
    assert (options.backbone, options.seed, options.epochs) == ("toy", 3, 2)


def test_a_run_from_before_read_outs_goes_on_without_them(home, tmp_path):
    config = home / "run" / "config.yaml"
    before = config.read_text()
    old = yaml.safe_load(before)
    for name in ("taps", "augment", "class_weight"):
        del old["options"][name]
    try:
        config.write_text(yaml.safe_dump(old))
        options = inherited_options(home / "run", home / "fix", {})
    finally:
        config.write_text(before)
    assert (options.taps, options.augment, options.class_weight) == ("none", "none", "none")
    kept = inherited_options(home / "run", home / "fix", {})
    assert (kept.taps, kept.augment, kept.class_weight) == ("auto", "strong", "balanced")


def test_the_change_is_measured_on_the_same_clips(home, added):
    change = json.loads((home / "new" / "metrics.json").read_text())["change"]
    corrections = change["corrections"]
    assert (corrections["kept"], corrections["deleted"], corrections["added"]) == (5, 1, 0)
    moved = {(m["from"], m["to"]): m["clips"] for m in corrections["moved"]}
    assert moved == {("low", "high"): 5, ("high", "mid"): 5}
    assert corrections["new_classes"] == ["mid"]
    before = unfreeze.SoundClassifier.load(home / "run").metrics["test"]["accuracy"]
    assert change["test"]["before"]["accuracy"] == pytest.approx(before)
    assert change["test"]["after"]["accuracy"] == pytest.approx(added.metrics["test"]["accuracy"])
    held = change["corrected"]
    assert held["clips"] == added.metrics["corrected"]["clips"] > 0
    # The old model does not know the class `mid`: it cannot be right there.
    assert held["before"]["accuracy"] <= 2 / 3
    low, high = held["intervals"]["accuracy"]
    assert low <= held["difference"]["accuracy"] <= high


def test_no_old_test_clip_is_trained_on_whatever_it_is_called(home, added):
    """Poisoned labels of the run's test clips leave all weights as they are."""
    shutil.copytree(home / "run", home / "poisoned")
    rows = rows_of(home / "run")
    for row in rows:
        if row["split"] == "test":
            row["label"] = {"high": "low", "low": "noise", "noise": "high"}[row["label"]]
    with (home / "poisoned" / "splits.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    other = unfreeze.SoundClassifier.train(home / "fix", add_to=home / "poisoned")
    for a, b in zip(added.model.get_weights(), other.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert other.metrics["test"] != added.metrics["test"]


def test_a_round_upon_a_round_tests_on_all_that_was_never_trained_on(home, added):
    more = write_corrected(home, seed=8, name="fix2")
    third = unfreeze.SoundClassifier.train(more, out=home / "third", add_to=home / "new")
    tested = [row for row in rows_of(home / "new") if row["split"] == "test"]
    assert third.metrics["test"]["clips"] == len(tested)
    again = {
        Path(r["path"]).name
        for r in rows_of(home / "third")
        if r["split"] == "test" and r["added"] == "no"
    }
    assert again == {Path(row["path"]).name for row in tested}
    with pytest.raises(unfreeze.DataError, match="already"):
        unfreeze.SoundClassifier.train(home / "fix", add_to=home / "new")


def test_a_segment_of_a_test_recording_of_the_run_is_never_trained_on(home, tmp_path):
    """Cut from a test clip: other bytes, the same sound."""
    row = next(row for row in rows_of(home / "run") if row["split"] == "test")
    source = home / "data" / row["path"]
    from unfreeze.audio.rules import content_hash

    folder = write_corrected(tmp_path)
    sound, rate = soundfile.read(source)
    soundfile.write(folder / "low" / "leak.wav", sound[: len(sound) // 2], rate)
    found = json.loads((folder / "segments.json").read_text())
    leak = {**found["segments"][0], "file": "low/leak.wav", "source_sha256": content_hash(source)}
    found["segments"].append(leak)
    (folder / "segments.json").write_text(json.dumps(found))
    unfreeze.SoundClassifier.train(folder, out=tmp_path / "new", add_to=home / "run", epochs=1)
    (leaked,) = [r for r in rows_of(tmp_path / "new") if r["path"].endswith("leak.wav")]
    assert leaked["split"] == "test"
    assert leaked["group"] == row["group"]


def test_the_pattern_of_the_run_groups_segments_by_their_recordings_name(home, tmp_path):
    shutil.copytree(home / "run", tmp_path / "run")
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    config["options"]["group_regex"] = r"(\d)\.wav"
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    from unfreeze.review.add_to import read_both

    data = read_both(inherited_options(tmp_path / "run", home / "fix", {}))
    groups = {data.manifest.clips[i].group for i in data.added}
    assert groups == set("01234")


def test_what_cannot_work_is_refused_with_its_cause(home, tmp_path):
    train = unfreeze.SoundClassifier.train
    shutil.copytree(home / "run", tmp_path / "run")
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())

    def root(place):
        config["data"]["root"] = str(place)
        (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))

    root(tmp_path / "away")
    with pytest.raises(unfreeze.RunError, match=r"away does not exist"):
        train(home / "fix", add_to=tmp_path / "run")
    shutil.copytree(home / "data", tmp_path / "data")
    root(tmp_path / "data")
    lost = tmp_path / "data" / rows_of(home / "run")[0]["path"]
    lost.write_bytes(b"")
    with pytest.raises(unfreeze.RunError, match=f"can no longer be used.*{lost.name}"):
        train(home / "fix", add_to=tmp_path / "run")
    lost.unlink()
    with pytest.raises(unfreeze.RunError, match=f"1 of the 30 recordings.*{lost.name}"):
        train(home / "fix", add_to=tmp_path / "run")
    with pytest.raises(unfreeze.RunError, match="not a run folder"):
        train(home / "fix", add_to=home / "data")
    with pytest.raises(unfreeze.RunError, match="Leave out --backbone"):
        train(home / "fix", add_to=home / "run", backbone="yamnet")
    shutil.copytree(home / "fix", tmp_path / "fix")
    (tmp_path / "fix" / "low").rename(tmp_path / "fix" / "Low")
    with pytest.raises(unfreeze.DataError, match=r"'Low' where .* has 'low'"):
        train(tmp_path / "fix", add_to=home / "run")


def test_a_run_of_an_older_version_tells_its_data_by_the_option(home, tmp_path):
    shutil.copytree(home / "run", tmp_path / "run")
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    del config["data"]["root"]
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    assert run_source(tmp_path / "run").root == home / "data"
    assert len(run_source(tmp_path / "run").entries) == 30


def test_a_class_whose_training_clips_are_all_relabelled_is_refused(home, tmp_path):
    """Every training clip of `noise` is said to be low: nothing of it is left to train on."""
    for row in rows_of(home / "run"):
        label = "low" if row["label"] == "noise" else row["label"]
        target = tmp_path / "fix" / label / f"copy_{Path(row['path']).name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(home / "data" / row["path"], target)
    with pytest.raises(unfreeze.DataError, match="no clip of 'noise'"):
        unfreeze.SoundClassifier.train(tmp_path / "fix", add_to=home / "run")
