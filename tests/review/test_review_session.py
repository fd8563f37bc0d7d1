"""What is asked, two tabs, what a restart finds, and what must stay unseen."""

import os
import shutil
from pathlib import Path

import pytest

from reviewing import LENGTH, PROGRAM, label_of, write_index
from unfreeze.errors import DataError, RunError, UnfreezeError
from unfreeze.pipeline.run_folder import CONFIG
from unfreeze.review.label_store import TakenError
from unfreeze.review.old_run import recordings_of_run, run_source
from unfreeze.review.retraining import EARLY, Retraining
from unfreeze.review.review_session import ReviewSession
from unfreeze.search.embedding import embed
from unfreeze.search.index_folder import open_index


@pytest.fixture(autouse=True)
def prepared(monkeypatch):
    """How often a session had the run's recordings heard, which takes a process; none does."""
    calls = []
    monkeypatch.setattr(Retraining, "prepare", lambda self: calls.append(self))
    return calls


@pytest.fixture
def begin(reviewed, tmp_path):
    """Begin, or go on with, a review of the field recordings."""
    folder, sessions = reviewed[0], []

    def begin(index="index", out="review", length=LENGTH):
        sessions.append(
            ReviewSession(
                folder / "run", open_index(folder / index), tmp_path / out,
                length=length, program=PROGRAM,
            )
        )  # fmt: skip
        return sessions[-1]

    yield begin
    for session in sessions:
        session.close()


def answer(session, truth, question, tab="a", order="uncertain"):
    """Say what a person would who hears the clip."""
    label = label_of(truth, question)
    if label == question.asked:
        return session.decide(tab, question.clip, "yes", asked=question.asked, order=order)
    label = label or "background"
    return session.decide(
        tab, question.clip, "other", asked=question.asked, label=label, order=order
    )


def test_each_clip_is_asked_once_in_whatever_order(begin, reviewed):
    session, seen = begin(), []
    for number in range(40):
        order = ("uncertain", "quota", "like")[number % 3]
        question = session.next("a", order)
        if question is None:
            break
        seen.append((question.recording.name, question.start, question.end))
        answer(session, reviewed[1], question, order=order)
    assert len(seen) == len(set(seen)) == session.counts()["all"] == 32
    assert session.counts()["left"] == 0
    assert session.counts()["labels"] == {"background": 24, "high": 4, "low": 4}
    assert all(end - start == LENGTH for _, start, end in seen)


def test_tabs_get_other_clips_and_do_not_overwrite_each_other(begin):
    session = begin()
    first, second = session.next("a", "uncertain"), session.next("b", "uncertain")
    assert first.clip != second.clip
    session.decide("a", first.clip, "unsure", asked="high")
    # A page that still shows the clip: it went to sleep, say.
    with pytest.raises(TakenError) as taken:
        session.decide("b", first.clip, "yes", asked="high")
    assert taken.value.decision.answer == "unsure"
    session.decide("b", first.clip, "yes", asked="high", replace=True)
    assert session.counts()["answers"] == {"yes": 1}
    # What the other tab had said is history: there is nothing of its own left to undo.
    assert session.undo("a") is None
    assert session.undo("b").clip == first.clip
    assert session.counts()["left"] == 32


def test_what_was_said_is_there_after_a_restart(begin):
    session = begin()
    asked = [session.next("a", "uncertain")]
    session.decide("a", asked[0].clip, "no", asked="high")
    asked.append(session.next("a", "uncertain"))
    session.decide("a", asked[1].clip, "other", asked="high", label="owl")
    session.close()
    again = begin()
    assert again.counts()["answers"] == {"no": 1, "other": 1}
    assert "owl" in again.labels
    assert again.next("a", "uncertain").clip not in [one.clip for one in asked]
    assert again.undo("a").clip == asked[1].clip


def test_skipped_clips_come_back_at_the_end(begin):
    session, clips = begin(), []
    while (question := session.next("a", "uncertain")).clip not in clips:
        clips.append(question.clip)
        session.decide("a", question.clip, "skip", asked=question.asked)
    assert len(clips) == session.counts()["left"] == 32


def test_like_the_last_confirmed_finds_the_other_tones(begin, reviewed):
    session, truth = begin(), reviewed[1]
    while True:
        question = session.next("a", "quota", "low")
        answer(session, truth, question)
        if label_of(truth, question) == "low":
            break
    found = []
    for _ in range(10):
        question = session.next("a", "like")
        found.append(label_of(truth, question))
        session.decide("a", question.clip, "unsure", asked=question.asked, order="like")
    # By chance one would be found. Some windows of the clips after a tone hear its end.
    assert found[0] == "low"
    assert found.count("low") == 3


def test_a_random_sample_counts_the_calls(begin, reviewed):
    session, truth = begin(), reviewed[1]
    assert session.density("high") == (None, {"known": 0, "unsure": 0})
    for _ in range(16):
        question = session.next("a", "sample", "high")
        said = "yes" if label_of(truth, question) == "high" else "no"
        session.decide("a", question.clip, said, asked="high", order="sample")
    density, known = session.density("high")
    assert known == {"known": 16, "unsure": 0}
    assert density.low <= 4 <= density.high
    assert density.clips == 32


def test_picture_and_sound_are_of_the_clip(begin):
    session = begin()
    question = session.next("a", "uncertain")
    media = session.media(question.clip)
    assert media.picture.startswith("data:image/png;base64,")
    assert media.seconds == pytest.approx(LENGTH, abs=0.01)
    assert session.media(question.clip) is media
    with pytest.raises(UnfreezeError, match="no clip 99"):
        session.media(99)


def test_recordings_that_the_run_knows_are_never_asked(reviewed, tmp_path):
    folder, _ = reviewed
    tested = [e.path for e in run_source(folder / "run").entries if e.split == "test"]
    trained = [e.path for e in run_source(folder / "run").entries if e.split == "train"]
    (tmp_path / "more").mkdir()
    shutil.copy(tested[0], tmp_path / "more" / "copy.wav")
    shutil.copy(folder / "field" / "field-0.wav", tmp_path / "more" / "new.wav")
    files = [tested[0], trained[0], tmp_path / "more" / "copy.wav", tmp_path / "more" / "new.wav"]
    found = recordings_of_run(folder / "run", files)
    assert found == {tested[0]: "used", trained[0]: "used", tmp_path / "more" / "copy.wav": "copy"}
    index = embed(files, tmp_path / "index", run=folder / "run")
    session = ReviewSession(folder / "run", index, tmp_path / "review", length=LENGTH)
    assert session.notes == [
        "2 of 4 recordings are left out: the run was trained or tested on them.",
        "1 of 4 recordings are left out: they are copies of test recordings of the run, which "
        "must stay unseen.",
    ]
    assert session.counts()["all"] == 8
    seen = set()
    while (question := session.next("a", "uncertain")) is not None:
        seen.add(question.recording)
        session.decide("a", question.clip, "no", asked=question.asked)
    assert [path.name for path in seen] == ["new.wav"]
    session.close()
    index = embed(files[:3], tmp_path / "known", run=folder / "run")
    with pytest.raises(DataError, match="There is no clip to review"):
        ReviewSession(folder / "run", index, tmp_path / "other", length=LENGTH)


def test_what_cannot_be_reviewed_is_refused(begin, reviewed, tmp_path):
    with pytest.raises(UnfreezeError, match=r"give a --length from 0\.96 s"):
        begin(length=0.5)
    begin()
    with pytest.raises(RunError, match="another review"):
        begin(length=3.0)
    session = begin(out="other")
    for words, message in (
        (("a", "best"), "is no order"),
        (("a", "uncertain", "owl"), "does not know"),
        (("a", "sample"), "choose the class"),
    ):
        with pytest.raises(UnfreezeError, match=message):
            session.next(*words)
    with pytest.raises(UnfreezeError, match="at least 12"):
        session.train()
    for label in ("", "a;b", "\n", "x" * 101):
        with pytest.raises(UnfreezeError):
            session.decide("a", 0, "other", asked="high", label=label)
    assert session.counts()["answers"] == {}


def test_an_index_of_other_classes_is_refused(reviewed, tmp_path):
    index = write_index(tmp_path / "index", {"a.wav": 10.0})
    with pytest.raises(DataError, match="a run of other classes"):
        ReviewSession(reviewed[0] / "run", index, tmp_path / "review")
    index = write_index(tmp_path / "plain", {"a.wav": 10.0}, labels=())
    with pytest.raises(DataError, match="without a run"):
        ReviewSession(reviewed[0] / "run", index, tmp_path / "review")


def test_samples_of_two_classes_share_their_clips(begin):
    session = begin()

    def count(label, answers):
        """Answer the sample of a class; return the clips that were asked."""
        asked = []
        for _ in range(answers):
            question = session.next("a", "sample", label)
            if question is None:
                break
            asked.append(question.clip)
            session.decide("a", question.clip, "no", asked=label, order="sample")
        return asked

    first, second = count("high", 20), count("low", 40)
    assert len(set(first)) == 20
    # "No" to one class says nothing of the other: each is asked, once, and both answers count.
    assert sorted(second) == list(range(32))
    for label, known in (("high", 20), ("low", 32)):
        assert session.density(label)[1] == {"known": known, "unsure": 0}
    # The store alone gives the same.
    session.close()
    again = begin()
    assert again.density("high")[1] == {"known": 20, "unsure": 0}
    # What was taken back counts for neither.
    undone = again.undo("a")
    assert undone.clip == second[-1]
    assert again.density("low")[1]["known"] < 32


def test_a_sample_skips_nothing(begin):
    session = begin()
    clip = session.next("a", "sample", "high").clip
    with pytest.raises(UnfreezeError, match="say that you are not sure"):
        session.decide("a", clip, "skip", asked="high", order="sample")
    session.decide("a", clip, "unsure", asked="high", order="sample")
    assert session.next("a", "sample", "high").clip != clip


def test_only_classes_that_there_are_can_be_confirmed(begin):
    session = begin()
    for asked in ("../../x\ny", "", "owl"):
        with pytest.raises(UnfreezeError, match="there is no class"):
            session.decide("a", 0, "yes", asked=asked)
    with pytest.raises(UnfreezeError, match="in capitals alone"):
        session.decide("a", 0, "other", asked="high", label="High")
    assert session.store.history() == []
    assert session.decide("a", 0, "other", asked="high", label="owl").label == "owl"
    assert session.decide("a", 1, "yes", asked="owl").label == "owl"


def test_names_in_a_file_system_that_no_table_can_hold(reviewed, tmp_path):
    folder = reviewed[0]
    odd = tmp_path / os.fsdecode(b"b\xff.wav")
    try:
        shutil.copy(folder / "field" / "field-0.wav", odd)
    except OSError:
        pytest.skip("this file system has no such names")
    good = Path(shutil.copy(folder / "field" / "field-1.wav", tmp_path / "good.wav"))
    index = embed([odd, good], tmp_path / "index", run=folder / "run")
    session = ReviewSession(folder / "run", index, tmp_path / "review", length=LENGTH)
    assert session.counts()["all"] == 8
    assert "1 of 2 recordings are left out: their names or folders are not UTF-8" in str(
        session.notes
    )
    session.close()


def test_a_run_whose_recordings_are_gone_is_said_before_anything_is_labelled(reviewed, tmp_path):
    folder = tmp_path / "moved"
    shutil.copytree(reviewed[0] / "run", folder / "run")
    config = folder / "run" / CONFIG
    config.write_text(config.read_text().replace(str(reviewed[0] / "data"), str(folder / "gone")))
    index = open_index(reviewed[0] / "index")
    session = ReviewSession(folder / "run", index, tmp_path / "review", length=LENGTH)
    assert "cannot be trained on now" in session.notes[0]
    assert "are missing" in session.notes[0]
    session.close()


def test_answers_on_recordings_that_have_moved_are_said_and_not_trained_on(reviewed, tmp_path):
    folder = reviewed[0]
    (tmp_path / "field").mkdir()
    for number in range(2):
        shutil.copy(folder / "field" / f"field-{number}.wav", tmp_path / "field")

    def begin(name, out):
        files = sorted((tmp_path / name).iterdir())
        index = embed(files, tmp_path / out, run=folder / "run")
        return ReviewSession(folder / "run", index, tmp_path / "review", length=LENGTH)

    session = begin("field", "index")
    for clip in range(14):
        session.decide("a", clip, "yes", asked="high")
    assert session.notes == []
    session.close()
    (tmp_path / "field").rename(tmp_path / "moved")
    session = begin("moved", "index-2")
    assert "14 answers are of 2 recordings that are missing" in session.notes[0]
    assert session.counts()["left"] == 16
    with pytest.raises(UnfreezeError, match="0 clips have a label to train on, and"):
        session.train()
    # What this page cannot show is not taken back behind one's back.
    with pytest.raises(UnfreezeError, match=r"field-1\.wav, which is not among the recordings"):
        session.undo("a")
    assert len(session.store.decisions()) == 14
    session.close()


def test_the_runs_recordings_are_heard_from_the_first_labels_on(begin, prepared):
    session = begin()
    session.decide("a", 0, "no", asked="high")
    for clip in range(1, EARLY):
        session.decide("a", clip, "yes", asked="high")
    # A "no" is not trained on.
    assert prepared == []
    session.decide("a", EARLY, "yes", asked="high")
    assert len(prepared) == 1
