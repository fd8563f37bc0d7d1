"""A new head from vectors that are known: what it is of, what it changes, what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from reviewing import LENGTH
from unfreeze.errors import RunError, UnfreezeError
from unfreeze.review import quick_head
from unfreeze.review.clip_pool import make_pool, scored_again
from unfreeze.review.old_run import run_source
from unfreeze.review.quick_head import (
    QuickHead,
    read_head_file,
    train_head_again,
    write_head_file,
)
from unfreeze.search.embedding import embed
from unfreeze.search.index_folder import HEAD, open_index

# The toy backbone is known for as long as each test runs.
pytestmark = pytest.mark.usefixtures("reviewed")


@pytest.fixture(scope="module")
def home(review_home, tmp_path_factory):
    """The run, its index, that of its own recordings, and a table of what the field holds."""
    import toy

    folder, truth = review_home
    made = tmp_path_factory.mktemp("known")
    with pytest.MonkeyPatch.context() as monkeypatch:
        toy.register(monkeypatch, folder)
        files = [entry.path for entry in run_source(folder / "run").entries]
        known = embed(files, made / "known", run=folder / "run", hop=0.48)
    rows = [f"{folder / 'field' / n},{a},{b},{x}" for n, own in truth.items() for a, b, x in own]
    rows += [f"{folder / 'field' / n},6,8,background" for n in truth]
    table = made / "labels.csv"
    table.write_text("recording,start,end,label\n" + "\n".join(rows) + "\n")
    return folder / "run", open_index(folder / "index"), known, table


def test_with_the_runs_own_head_the_scores_are_the_runs_behind_its_gate(home):
    _, index, known, _ = home
    old, labels = quick_head._old_head(known)
    assert labels == ("background", "high", "low")
    same = QuickHead(old, labels, old, labels, known.labels, known.settings.encoder)
    for each in (index, known):
        before = each.scores(0, each.rows).astype(np.float32)
        found = same.scores(each.vectors(0, each.rows).astype(np.float32), before)
        assert np.abs(found - before).max() < 5e-3
        assert np.allclose(found.sum(axis=1), 1, atol=5e-3)


def test_the_change_is_on_the_runs_test_clips_and_before_is_the_runs_own_score(home):
    run, index, known, table = home
    quick, told = train_head_again(run, index, known, table)
    metrics = json.loads((run / "metrics.json").read_text())["test"]
    assert told["test"]["clips"] == metrics["clips"]
    assert told["test"]["before"]["accuracy"] == pytest.approx(metrics["accuracy"])
    assert told["test"]["after"]["accuracy"] >= told["test"]["before"]["accuracy"]
    assert told["labels"] == list(quick.labels) == ["background", "high", "low"]
    assert told["problems"] == []


def test_the_clips_of_the_review_get_its_scores_and_it_is_read_again(home, tmp_path):
    run, index, known, table = home
    quick, _ = train_head_again(run, index, known, table)
    pool = make_pool(index, LENGTH)
    again = scored_again(index, pool, quick)
    write_head_file(quick, tmp_path / "head.npz")
    kept = read_head_file(tmp_path / "head.npz", index)
    assert np.array_equal(scored_again(index, pool, kept).scores, again.scores)
    # What was labelled is now as it was labelled.
    for row in table.read_text().splitlines()[1:]:
        file, start, _, label = row.split(",")
        if label != "background":
            rows = (again.start == float(start)) & (
                [str(again.recordings[r]) == file for r in again.recording]
            )
            assert again.scores[rows][0, again.labels.index(label)] > 0.5
    assert read_head_file(tmp_path / "none.npz", index) is None
    (tmp_path / "head.npz").write_bytes(b"PK damaged")
    assert read_head_file(tmp_path / "head.npz", index) is None
    write_head_file(replace(quick, encoder="another"), tmp_path / "head.npz")
    assert read_head_file(tmp_path / "head.npz", index) is None


def test_a_new_class_is_added(home, tmp_path):
    run, index, known, _ = home
    table = tmp_path / "labels.csv"
    table.write_text(home[3].read_text().replace(",high", ",owl"))
    quick, told = train_head_again(run, index, known, table)
    assert quick.names == ("background", "high", "low", "owl")
    assert told["test"] is not None


def test_another_model_and_a_recording_that_is_not_there_are_refused(home, tmp_path):
    run, index, known, table = home
    other = open_index(known.folder)
    other.settings = replace(other.settings, encoder="another")
    with pytest.raises(RunError, match="was made with another model"):
        train_head_again(run, index, other, table)
    with pytest.raises(UnfreezeError, match="is not in"):
        train_head_again(run, index, index, table)
    (tmp_path / "of another kind").mkdir()
    other = open_index(known.folder)
    other.folder = tmp_path / "of another kind"
    assert not (other.folder / HEAD).exists()
    with pytest.raises(RunError, match="more than one layer"):
        train_head_again(run, index, other, table)


def test_a_head_that_is_worse_is_not_taken(home):
    run, index, known, table = home

    def worse(*_):
        return {
            "intervals": {"accuracy": [-0.5, -0.1]},
            "before": {"accuracy": 0.9},
            "after": {"accuracy": 0.6},
        }

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(quick_head, "_change", worse)
        with pytest.raises(RunError, match=r"0\.900 before, 0\.600 now .* its order"):
            train_head_again(run, index, known, table)


def _head(bias, several):
    return quick_head.VectorHead(np.zeros((1, len(bias)), np.float32), np.array(bias), several)


def test_a_new_class_is_heard_where_no_old_one_is_and_no_gate_holds_it_back():
    # Of the old classes none has a score that an index could tell from 0.
    vectors, old, new = np.ones((1, 1), np.float32), [-16.0, -17.0], [-16.0, -17.0, 3.0]
    several = QuickHead(
        *(_head(new, True), ("cat", "dog", "owl"), _head(old, True), ("cat", "dog")),
        *(("cat", "dog"), "model"),
    )
    before = several.old.scores(vectors).astype(np.float16)
    assert several.scores(vectors, before)[0, 2] == pytest.approx(1 / (1 + np.exp(-3)))
    # A gate of a run with several labels is known by its classes' scores.
    loud = replace(several, old=_head([1.0, -17.0], True))
    half = (loud.old.scores(vectors) / 2).astype(np.float16)
    assert loud.scores(vectors, half)[0, 2] == pytest.approx(0.5 / (1 + np.exp(-3)), rel=2e-3)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("passes", [0.0, 0.25, 1.0])
def test_with_one_label_the_gate_is_known_by_what_it_calls_background(passes, trained):
    vectors = np.ones((1, 1), np.float32)
    names = ("background", "cat") if trained else ("cat", "dog")
    old = _head([1.0, 1.0], False)
    quick = QuickHead(
        *(_head([1.0, 1.0], False), names, old, names, tuple(sorted({*names, "background"}))),
        "model",
    )
    mine, labels = old.scores(vectors)[0] * passes, quick.run_labels
    before = np.zeros((1, len(labels)), np.float16)
    before[0, [labels.index(name) for name in names]] = mine
    before[0, labels.index("background")] += 1 - passes
    assert quick.scores(vectors, before)[0] == pytest.approx(before[0], abs=1e-3)


def test_without_a_gate_a_class_of_one_label_is_held_back_by_nothing():
    vectors, names = np.ones((1, 1), np.float32), ("cat", "dog")
    old = _head([0.0, 0.0], False)
    quick = QuickHead(_head([0.0, 0.0, 4.0], False), (*names, "owl"), old, names, names, "model")
    before = np.zeros((1, 2), np.float16)
    assert quick.scores(vectors, before)[0, 2] == pytest.approx(np.exp(4) / (np.exp(4) + 2))
