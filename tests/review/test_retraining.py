"""Trainings in the background: what they are given, how they fail, and kills."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import toy
import unfreeze
from reviewing import LENGTH, PROGRAM, label_of, write_field
from unfreeze.errors import UnfreezeError
from unfreeze.review.label_store import Answer, LabelStore
from unfreeze.review.retraining import Retraining, run_of, table_of, train_words
from unfreeze.review.review_session import ReviewSession
from unfreeze.search.embedding import embed
from unfreeze.search.index_folder import open_index

# In the place of `unfreeze`: notes its words, waits for a file `go`, and writes a run's scores.
STANDS_IN = """
import json, pathlib, sys, time
home = pathlib.Path(sys.argv[1])
words = sys.argv[2:]
with (home / "called").open("a") as file:
    file.write(json.dumps(words) + chr(10))
out = pathlib.Path(words[words.index("--out") + 1])
out.mkdir(parents=True, exist_ok=True)
if words[0] == "train":
    (out / "config.yaml").write_text("unfreeze_run: 1\\nlabels: [cat, dog]\\n")
    while not (home / "go").exists():
        time.sleep(0.02)
    if (home / "go").read_text():
        print("error: " + (home / "go").read_text(), file=sys.stderr)
        sys.exit(2)
    test = {"clips": 6, "before": {"accuracy": 0.5}, "after": {"accuracy": 0.75}}
    (out / "metrics.json").write_text(json.dumps({"change": {"test": test}}))
    (out / "notes.json").write_text(json.dumps({"notes": [], "problems": [
        {"path": "a.wav", "rule": "disputed", "cause": "left out", "fatal": False}]}))
"""


def called(home):
    file = home / "called"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def until(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def home(tmp_path):
    """A store with three labels; trainings wait for `go`."""
    store = LabelStore(tmp_path / "review", {})
    for clip, label in enumerate(("dog", "cat", "dog")):
        start = 3.0 * clip
        place = Path("/field/a.wav"), start, start + 3
        store.decide(Answer(*place, "other", label, "dog"))
    scored = []
    made = []

    def begin():
        made.append(
            Retraining(
                LabelStore(tmp_path / "review", {}), tmp_path / "review", tmp_path / "run",
                lambda: [Path("/field/a.wav")], scored.append,
                (sys.executable, "-c", STANDS_IN, str(tmp_path)),
            )
        )  # fmt: skip
        return made[-1]

    yield tmp_path, store, begin, scored
    (tmp_path / "go").touch()
    for one in made:
        one.close()


def test_it_trains_on_the_labels_and_scores_what_is_left(home):
    folder, store, begin, scored = home
    training = begin()
    assert training.progress() is None
    assert training.begin(store.decisions(), ("cat", "dog"), False) == 1
    assert training.progress()["stage"] == "training"
    with pytest.raises(UnfreezeError, match="under way"):
        training.begin(store.decisions(), ("cat", "dog"), False)
    (folder / "go").touch()
    training.wait()
    train, embed = called(folder)
    assert train == [*train_words(folder / "review", 1, folder / "run"), "--quiet"]
    run = str(run_of(folder / "review", 1))
    assert embed == [
        "embed", "/field/a.wav", "--out", str(folder / "review" / "index-1"), "--run", run,
    ]  # fmt: skip
    rows = table_of(folder / "review", 1).read_text().splitlines()
    assert rows[1] == "/field/a.wav,0.000,3.000,dog"
    assert len(rows) == 4
    (record,) = store.trainings()
    assert (record.state, record.labels, record.last_decision) == ("done", 3, 3)
    assert record.result["change"]["test"]["after"] == {"accuracy": 0.75}
    assert record.result["change"]["problems"] == ["a.wav: left out"]
    assert record.result["scored"] == 1
    assert scored == [1]
    assert training.progress() is None


def test_why_it_failed_is_kept_and_the_next_is_another(home):
    folder, store, begin, scored = home
    training = begin()
    (folder / "go").write_text("The new model is worse")
    training.begin(store.decisions(), ("cat", "dog"), False)
    training.wait()
    (record,) = store.trainings()
    assert (record.state, record.result) == ("failed", {"cause": "The new model is worse"})
    (folder / "go").write_text("")
    assert training.begin(store.decisions(), ("cat", "dog"), False) == 2
    training.wait()
    assert [one.state for one in store.trainings()] == ["failed", "done"]
    assert scored == [2]


def test_what_was_stopped_is_resumed(home):
    folder, store, begin, scored = home
    training = begin()
    training.begin(store.decisions(), ("cat", "dog"), False)
    until(lambda: (run_of(folder / "review", 1) / "config.yaml").exists())
    training.close()
    assert [one.state for one in store.trainings()] == ["running"]
    again = begin()
    assert again.resume() == 1
    (folder / "go").touch()
    again.wait()
    words = [words for words in called(folder) if words[0] == "train"]
    assert [one[-1] for one in words] == ["--quiet", "--quiet"]
    assert "--resume" in words[1]
    assert [one.state for one in store.trainings()] == ["done"]
    assert scored == [1]
    assert begin().resume() is None


SERVER = """
import pathlib, sys, time
sys.path[:0] = [{tests!r}]
import pytest, toy
folder = pathlib.Path({folder!r})
toy.register(pytest.MonkeyPatch(), folder)
import toy
import unfreeze
from reviewing import LENGTH, PROGRAM, label_of, write_field
from unfreeze.review.review_session import ReviewSession
from unfreeze.search.index_folder import open_index
session = ReviewSession(folder / "run", open_index(folder / "index"), pathlib.Path({out!r}),
                        length=LENGTH, program=PROGRAM)
for clip in range(14):
    question = session.next("a", "uncertain")
    session.decide("a", question.clip, "other", asked=question.asked,
                   label=("high", "low")[clip % 2], order="uncertain")
session.train()
print("begun", flush=True)
time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_server_killed_in_a_training_loses_nothing(reviewed, tmp_path):
    """The child may outlive it: the next server waits for it, and takes what it did."""
    folder, _ = reviewed
    code = SERVER.format(
        tests=str(Path(__file__).parents[1]), folder=str(folder), out=str(tmp_path / "review")
    )
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert server.stdout.readline() == "begun\n"
    until(lambda: (tmp_path / "review" / "run-1" / "config.yaml").exists(), 120)
    server.send_signal(signal.SIGKILL)
    server.wait()
    session = ReviewSession(
        folder / "run", open_index(folder / "index"), tmp_path / "review",
        length=LENGTH, program=PROGRAM,
    )  # fmt: skip
    assert session.resumed == 1
    assert session.counts()["answers"] == {"other": 14}
    session.wait(300)
    (record,) = session.store.trainings()
    assert (record.state, record.labels) == ("done", 14)
    assert record.result["scored"] == 4
    session.close()


@pytest.mark.slow
def test_where_each_class_is_judged_by_itself_a_no_is_learned_from(tmp_path, monkeypatch):
    toy.register(monkeypatch, tmp_path)
    toy.write_mixed(tmp_path / "data", clips=60)
    run = tmp_path / "run"
    unfreeze.SoundClassifier.train(tmp_path / "data", "probe", run, backbone="toy")
    truth = write_field(tmp_path / "field")
    index = embed(sorted((tmp_path / "field").iterdir()), tmp_path / "index", run=run)
    session = ReviewSession(run, index, tmp_path / "review", length=LENGTH, program=PROGRAM)
    assert session.several
    for _ in range(16):
        question = session.next("a", "uncertain")
        label = label_of(truth, question)
        if label == question.asked:
            session.decide("a", question.clip, "yes", asked=question.asked)
        elif label is None and question.asked == "noise":
            session.decide("a", question.clip, "unsure", asked=question.asked)
        else:
            session.decide("a", question.clip, "no", asked=question.asked)
    for clip in range(12 - session.training()["trainable"]):
        session.decide("b", 31 - clip, "other", asked="low", label="background", replace=True)
    session.train()
    session.wait(300)
    (record,) = session.store.trainings()
    assert record.state == "done", record.result
    assert record.labels == session.training()["trainable"]
    assert list(record.result["change"]["test"]["difference"]) == ["mean_average_precision"]
    assert record.result["scored"] == 4
    session.close()
