"""Decisions on disk: what counts, what is history, two tabs, and kills."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unfreeze.errors import RunError, UnfreezeError
from unfreeze.review.label_store import (
    OTHER,
    SKIP,
    STORE_NAME,
    UNSURE,
    YES,
    Answer,
    LabelStore,
    TakenError,
)

ABOUT = {"run": "/runs/a", "length": 3.0}


def said(clip, answer=YES, label="dog", tab="a", recording="/field/one.wav"):
    label = label if answer in (YES, OTHER) else None
    start = 3.0 * clip
    return Answer(Path(recording), start, start + 3, answer, label, "dog", 0.5, "uncertain", tab)


def test_a_decision_is_kept_with_all_that_was_said(tmp_path):
    store = LabelStore(tmp_path / "review", ABOUT)
    one = store.decide(said(2, OTHER, "cat"))
    (found,) = LabelStore(tmp_path / "review", ABOUT).decisions()
    assert found == one
    assert (found.recording, found.start, found.end) == (Path("/field/one.wav"), 6.0, 9.0)
    assert (found.answer, found.label, found.asked) == (OTHER, "cat", "dog")
    assert (found.score, found.found_by, found.tab) == (0.5, "uncertain", "a")
    assert found.ended_at is None


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("decide"),
            st.integers(0, 4),
            st.sampled_from(["dog", "cat", None]),
            st.sampled_from("ab"),
            st.booleans(),
        ),
        st.tuples(st.just("undo"), st.sampled_from("ab")),
        st.just(("open",)),
    ),
    max_size=25,
)


@given(steps=steps)
@settings(max_examples=40)
def test_any_sequence_equals_a_dict(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("store")
    store, model, count = LabelStore(folder, ABOUT), {}, 0
    for step in steps:
        if step[0] == "open":
            store = LabelStore(folder, ABOUT)
        elif step[0] == "undo":
            mine = [(number, clip) for clip, (number, _, tab) in model.items() if tab == step[1]]
            undone = store.undo(step[1])
            if mine:
                number, clip = max(mine)
                assert undone.number == number
                del model[clip]
            else:
                assert undone is None
        else:
            _, clip, label, tab, replace = step
            answer = said(clip, UNSURE if label is None else OTHER, label, tab)
            there = model.get(clip)
            if there is None or replace:
                count += 1
                assert store.decide(answer, replace=replace).number == count
                model[clip] = count, label, tab
            elif there[1:] == (label, tab):
                assert store.decide(answer).number == there[0]
            else:
                with pytest.raises(TakenError) as taken:
                    store.decide(answer)
                assert taken.value.decision.number == there[0]
        found = {round(d.start / 3): (d.number, d.label, d.tab) for d in store.decisions()}
        assert found == model
    history = store.history()
    assert [one.number for one in history] == list(range(1, count + 1))
    assert sum(one.ended_at is None for one in history) == len(model)


def test_clips_of_another_length_that_overlap_are_taken(tmp_path):
    store = LabelStore(tmp_path, ABOUT)
    store.decide(said(1))
    with pytest.raises(TakenError, match="dog"):
        store.decide(Answer(Path("/field/one.wav"), 5.5, 6.5, UNSURE, None, "cat"))
    # Those that only touch, and those of other recordings, are not.
    store.decide(said(2))
    store.decide(said(1, recording="/field/two.wav"))
    assert len(store.decisions()) == 3


def test_a_skipped_clip_is_still_to_be_decided(tmp_path):
    store = LabelStore(tmp_path, ABOUT)
    store.decide(said(0, SKIP))
    store.decide(said(0, tab="b"))
    assert [one.answer for one in store.decisions()] == [YES]
    assert [one.ended_by for one in store.history()] == ["replaced", None]


def test_of_many_tabs_at_once_one_decides(tmp_path):
    store, won, lost = LabelStore(tmp_path, ABOUT), [], []

    def decide(number):
        for clip in range(5):
            try:
                won.append(store.decide(said(clip, OTHER, f"class {number}", f"tab {number}")))
            except TakenError as error:
                lost.append(error.decision.number)

    threads = [threading.Thread(target=decide, args=(n,)) for n in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert (len(won), len(lost)) == (5, 15)
    assert {one.number for one in store.decisions()} == {one.number for one in won} >= set(lost)


KILLED = """
import sys
from pathlib import Path
from unfreeze.review.label_store import Answer, LabelStore
store = LabelStore(Path(sys.argv[1]), {"run": "/runs/a", "length": 3.0})
for clip in range(100_000):
    store.decide(Answer(Path("/field/one.wav"), 3.0 * clip, 3.0 * clip + 3, "yes", "dog", "dog"))
    print(clip, flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_what_was_confirmed_before_a_kill_is_there(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    told = [process.stdout.readline() for _ in range(30)]
    process.send_signal(signal.SIGKILL)
    told += process.stdout.read().splitlines()
    process.wait()
    confirmed = int([line for line in told if line.strip()][-1])
    store = LabelStore(tmp_path, ABOUT)
    starts = [one.start for one in store.decisions()]
    # The last one may be on disk without having been told.
    assert starts == [3.0 * clip for clip in range(len(starts))]
    assert confirmed + 1 <= len(starts) <= confirmed + 2
    store.decide(said(len(starts)))


def test_trainings_are_remembered(tmp_path):
    store = LabelStore(tmp_path, ABOUT)
    assert store.begin_training(14, 20) == 1
    store.end_training(1, "failed", {"cause": "no space"})
    assert store.begin_training(15, 21) == 2
    first, second = LabelStore(tmp_path, ABOUT).trainings()
    assert (first.state, first.labels, first.result) == ("failed", 14, {"cause": "no space"})
    assert (second.state, second.last_decision, second.result) == ("running", 21, {})


def test_names_that_are_not_utf_8_are_kept(tmp_path):
    store = LabelStore(tmp_path, ABOUT)
    name = os.fsdecode(b"/field/caf\xe9.wav")
    store.decide(said(0, recording=name))
    assert [one.recording for one in store.decisions()] == [Path(name)]


def test_other_reviews_and_damaged_files_are_refused(tmp_path):
    LabelStore(tmp_path / "a", ABOUT)
    with pytest.raises(RunError, match=r"length was 3\.0 and is 2\.0"):
        LabelStore(tmp_path / "a", {**ABOUT, "length": 2.0})
    with sqlite3.connect(tmp_path / "a" / STORE_NAME) as db:
        db.execute("PRAGMA user_version = 9")
    db.close()
    with pytest.raises(RunError, match="format 9"):
        LabelStore(tmp_path / "a", ABOUT)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / STORE_NAME).write_bytes(b"no database, but long enough" * 100)
    with pytest.raises(RunError, match="is damaged"):
        LabelStore(tmp_path / "b", ABOUT)


@pytest.mark.parametrize(
    ("answer", "label", "start", "message"),
    [
        ("maybe", None, 0.0, "is no answer"),
        (YES, None, 0.0, "disagree"),
        (UNSURE, "dog", 0.0, "disagree"),
        (YES, "dog", 4.0, "cannot be from"),
    ],
)
def test_answers_that_make_no_sense_are_refused(answer, label, start, message):
    with pytest.raises(UnfreezeError, match=message):
        Answer(Path("/field/one.wav"), start, 3.0, answer, label, "dog")


def test_a_damaged_file_is_not_called_safe(tmp_path):
    store = LabelStore(tmp_path, {})
    content = store.path.read_bytes()
    for damaged in (content[: len(content) // 2], b"labels" * 1000):
        store.path.write_bytes(damaged)
        with pytest.raises(RunError, match="is damaged") as told:
            LabelStore(tmp_path, {}).decisions()
        assert "is lost" not in str(told.value)
