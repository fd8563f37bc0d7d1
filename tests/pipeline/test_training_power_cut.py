"""What is left after a power cut at any moment: whole, and enough to go on from."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

import toy
import unfreeze
from power_cut import Disk, restore
from unfreeze.core import run_state
from unfreeze.files import atomic_path, remove, write_text
from unfreeze.pipeline import run_folder

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="files by handle")


def test_the_test_disk_loses_what_was_not_synced(tmp_path):
    (tmp_path / "old").write_bytes(b"kept")
    disk = Disk(tmp_path)
    with disk.watched():
        (tmp_path / "new").write_bytes(b"lost")
        (tmp_path / "new").rename(tmp_path / "newer")
    (_, safe), (_, early) = disk.pictures
    assert safe == {"old": b"kept"}
    assert early == {"old": b"kept", "newer": b""}


def test_a_file_is_old_or_new_and_stays_when_the_call_is_over(tmp_path):
    write_text(tmp_path / "a", "old")
    disk = Disk(tmp_path)
    with disk.watched():
        write_text(tmp_path / "a", "new")
        with atomic_path(tmp_path / "deep" / "er" / "b") as partial:
            partial.write_bytes(b"b")
    assert {picture["a"] for _, picture in disk.pictures} == {b"old", b"new"}
    assert {picture.get("deep/er/b", b"b") for _, picture in disk.pictures} == {b"b"}
    for _, last in disk.pictures[-2:]:
        assert last == {"a": b"new", "deep/er/b": b"b"}


def test_a_removed_file_stays_removed(tmp_path):
    write_text(tmp_path / "a", "x")
    disk = Disk(tmp_path)
    with disk.watched():
        remove(tmp_path / "a")
        remove(tmp_path / "a")
    assert [picture for _, picture in disk.pictures[-2:]] == [{}, {}]


SETTINGS = {"backbone": "toy", "epochs": 3, "batch_size": 4, "learning_rate": 0.005}


def train(place, **options):
    return unfreeze.SoundClassifier.train(
        place / "data", "two_stage", place / "run", **{**SETTINGS, **options}
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training run, and pictures of its disk at all moments."""
    place = tmp_path_factory.mktemp("power")
    with pytest.MonkeyPatch.context() as monkeypatch:
        toy.register(monkeypatch, place)
        monkeypatch.setattr(run_state.Checkpointer, "_is_time", lambda self: True)
        toy.write_sounds(place / "data", clips=6)
        disk = Disk(place)
        with disk.watched():
            train(place)
        yield place, disk.pictures


def test_a_cache_that_says_it_is_whole_is_whole(trained):
    place, pictures = trained
    final = {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}
    descriptions = [n for n in final if n.startswith("cache/") and n.endswith("/meta.json")]
    assert len(descriptions) == 3  # features; prefixes of training and validation data
    for moment, picture in pictures:
        for name in set(descriptions) & set(picture):
            home = name.removesuffix("meta.json")
            here, there = ({n: c for n, c in p.items() if n.startswith(home)} for p in
                           (picture, final))  # fmt: skip
            for each in there:
                if not each.endswith(".lock"):
                    assert here.get(each) == there[each], (moment, each)


def test_a_record_names_only_weights_that_are_there(trained):
    _, pictures = trained
    seen = set()
    for moment, picture in pictures:
        if "run/stages/fit.json" not in picture or "run/metrics.json" in picture:
            continue  # not begun, or over and being cleared away
        stages = json.loads(picture["run/stages/fit.json"])["stages"]
        seen.add(len(stages))
        for name in ("stage_0.safetensors", *(stage["weights"] for stage in stages)):
            assert load(picture[f"run/stages/{name}"]), moment
    assert seen == {0, 1, 2}


def test_from_what_is_left_at_any_moment_it_ends_the_same(trained, tmp_path, monkeypatch):
    place, pictures = trained
    moments = np.random.default_rng(0).choice(len(pictures), size=3, replace=False)
    begun = 0
    for number in sorted(moments):
        moment, picture = pictures[number]
        left = restore(picture, tmp_path / str(number))
        monkeypatch.setenv("UNFREEZE_CACHE", str(left / "cache"))
        begun += (left / "run" / run_folder.CONFIG).is_file()
        if not (left / "run" / run_folder.METRICS).is_file():
            train(left, resume=True)
        models = [unfreeze.SoundClassifier.load(p / "run").model for p in (place, left)]
        for a, b in zip(*(model.get_weights() for model in models), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=moment)
        for name in (run_folder.METRICS, run_folder.AUDIT, run_folder.SPLITS, run_folder.SCHEDULE):
            assert (left / "run" / name).read_bytes() == (place / "run" / name).read_bytes()
        assert history(left) == history(place)
    assert begun >= 2


def history(place):
    with (place / "run" / run_folder.HISTORY).open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
