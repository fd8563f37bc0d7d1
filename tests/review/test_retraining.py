"""Trainings in the background: what they are given, how they fail, and kills."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import toy
import unfreeze
from reviewing import LENGTH, PROGRAM, label_of, write_field
from unfreeze.errors import RunError, UnfreezeError
from unfreeze.pipeline.vector_head import VectorHead
from unfreeze.review import retraining
from unfreeze.review.label_files import write_training_table
from unfreeze.review.label_store import Answer, LabelStore
from unfreeze.review.quick_head import QuickHead
from unfreeze.review.retraining import Retraining, head_of, run_of, table_of, train_words
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


class Held:
    """In the place of `train_head_again`: waits for a file `go`, which may hold a cause."""

    def __init__(self, home):
        self.home, self.tables = home, []

    def __call__(self, run, index, known, table):
        self.tables.append(table)
        until(lambda: (self.home / "go").exists())
        if cause := (self.home / "go").read_text():
            raise RunError(cause)
        head = VectorHead(np.zeros((4, 2), np.float32), np.zeros(2, np.float32), False)
        labels = ("cat", "dog")
        return QuickHead(head, labels, head, labels, labels, "encoder"), {"test": None}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A store with three labels; trainings and models wait for `go`."""
    store = LabelStore(tmp_path / "review", {})
    for clip, label in enumerate(("dog", "cat", "dog")):
        start = 3.0 * clip
        place = Path("/field/a.wav"), start, start + 3
        store.decide(Answer(*place, "other", label, "dog"))
    solved, made = [], []
    monkeypatch.setattr(retraining, "train_head_again", Held(tmp_path))
    monkeypatch.setattr(Retraining, "_known", lambda self: None)

    def begin():
        made.append(
            Retraining(
                LabelStore(tmp_path / "review", {}), tmp_path / "review", tmp_path / "run",
                None, solved.append, (sys.executable, "-c", STANDS_IN, str(tmp_path)),
            )
        )  # fmt: skip
        return made[-1]

    yield tmp_path, store, begin, solved
    (tmp_path / "go").touch()
    for one in made:
        one.close()


def test_a_head_is_solved_from_the_labels_and_kept(home):
    folder, store, begin, solved = home
    training = begin()
    assert training.progress() is None
    with pytest.raises(UnfreezeError, match="train again first"):
        training.write()
    assert training.begin(store.decisions(), ("cat", "dog"), False) == 1
    until(lambda: training.progress()["stage"] == "training")
    with pytest.raises(UnfreezeError, match="under way"):
        training.begin(store.decisions(), ("cat", "dog"), False)
    (folder / "go").touch()
    training.wait()
    rows = table_of(folder / "review", 1).read_text().splitlines()
    assert rows[1] == "/field/a.wav,0.000,3.000,dog"
    assert len(rows) == 4
    (record,) = store.trainings()
    assert (record.state, record.labels, record.last_decision) == ("done", 3, 3)
    assert record.result["change"] == {"test": None}
    assert head_of(folder / "review", 1).is_file()
    assert solved == [1]
    assert training.progress() is None
    # No program was called: a model is written where one is asked for.
    assert called(folder) == []


def test_why_it_failed_is_kept_and_the_next_is_another(home):
    folder, store, begin, solved = home
    training = begin()
    (folder / "go").write_text("The new head is worse")
    training.begin(store.decisions(), ("cat", "dog"), False)
    training.wait()
    (record,) = store.trainings()
    assert (record.state, record.result) == ("failed", {"cause": "The new head is worse"})
    (folder / "go").write_text("")
    assert training.begin(store.decisions(), ("cat", "dog"), False) == 2
    training.wait()
    assert [one.state for one in store.trainings()] == ["failed", "done"]
    assert solved == [2]


def test_what_was_killed_is_resumed(home):
    folder, store, begin, solved = home
    # What a killed server leaves: a record, and the labels.
    write_training_table(table_of(folder / "review", 1), store.decisions(), ("cat", "dog"), False)
    store.begin_training(3, 3)
    (folder / "go").touch()
    again = begin()
    assert again.resume() == 1
    again.wait()
    assert [one.state for one in store.trainings()] == ["done"]
    assert solved == [1]
    assert begin().resume() is None


def trained(home):
    """A training that is done, and its folder."""
    folder, store, begin, _ = home
    (folder / "go").touch()
    training = begin()
    training.begin(store.decisions(), ("cat", "dog"), False)
    training.wait()
    (folder / "go").unlink()
    return training, folder / "review"


def test_a_model_is_written_by_the_command_that_is_shown(home):
    training, review = trained(home)
    assert training.write() == 1
    assert training.writing()["number"] == 1
    with pytest.raises(UnfreezeError, match="is being written"):
        training.write()
    (home[0] / "go").touch()
    training.wait()
    (words,) = called(home[0])
    assert words == [*train_words(review, 1, home[0] / "run"), "--quiet"]
    (record,) = home[1].trainings()
    model = record.result["model"]
    assert (model["state"], model["run"]) == ("written", str(run_of(review, 1)))
    assert model["change"]["test"]["after"] == {"accuracy": 0.75}
    assert model["change"]["problems"] == ["a.wav: left out"]
    assert training.writing() is None
    with pytest.raises(UnfreezeError, match="already"):
        training.write()


def test_a_model_that_failed_can_be_written_again_and_one_that_was_stopped_is_resumed(home):
    training, _ = trained(home)
    (home[0] / "go").write_text("The new model is worse")
    training.write()
    training.wait()
    assert home[1].trainings()[0].result["model"] == {
        "state": "failed", "cause": "The new model is worse",
    }  # fmt: skip
    (home[0] / "go").unlink()
    training.write()
    until(lambda: len(called(home[0])) == 2)
    training.close()
    assert home[1].trainings()[0].result["model"] == {"state": "writing"}
    again = home[2]()
    assert again.resume() == 1
    (home[0] / "go").touch()
    again.wait()
    assert home[1].trainings()[0].result["model"]["state"] == "written"
    # The run folder was there, and not finished.
    assert ["--resume" in words for words in called(home[0])] == [False, True, True]


def test_the_runs_recordings_are_heard_once_and_by_one_process(reviewed, tmp_path, monkeypatch):
    folder, _ = reviewed
    words = []

    def call(self, given):
        words.append(given)
        embed(given[1 : given.index("--out")], tmp_path / "known", run=folder / "run", hop=0.48)

    monkeypatch.setattr(Retraining, "_call", call)
    store = LabelStore(tmp_path, {})
    training = Retraining(store, tmp_path, folder / "run", None, lambda number: None)
    training.prepare()
    training.prepare()
    training.wait()
    (given,) = words
    assert given[0] == "embed"
    assert given[-4:] == ["--run", str(folder / "run"), "--hop", "0.48"]
    known = training._known()
    assert len(words) == 1
    assert len(known.recordings) == len(given) - 7 == 36
    # One that has changed is heard again.
    file = known.recordings[0].path
    os.utime(file, ns=(1, 1))
    training._known()
    assert words[1][1:-6] == [str(file)]


def test_hours_of_recordings_are_not_heard_and_the_page_is_told(reviewed, tmp_path, monkeypatch):
    folder, _ = reviewed
    monkeypatch.setattr(retraining, "_LONGEST", 10.0)
    monkeypatch.setattr(Retraining, "_call", lambda self, words: pytest.fail(f"called: {words}"))
    training = Retraining(
        LabelStore(tmp_path, {}), tmp_path, folder / "run", None, lambda number: None
    )
    with pytest.raises(RunError, match=r"last more than .* Write the model instead"):
        training._known()


def test_of_a_run_that_was_trained_again_all_is_heard_again(reviewed, tmp_path, monkeypatch):
    folder, _ = reviewed
    words = []

    def call(self, given):
        words.append(given)
        embed(given[1 : given.index("--out")], tmp_path / "known", run=folder / "run", hop=0.48)

    monkeypatch.setattr(Retraining, "_call", call)
    training = Retraining(
        LabelStore(tmp_path, {}), tmp_path, folder / "run", None, lambda number: None
    )
    training._known()
    monkeypatch.setattr(retraining, "digest", lambda file: "another")
    training._known()
    assert words[1] == words[0]


def test_a_model_can_be_written_where_no_head_was_solved(home):
    folder, store, begin, _ = home
    training = begin()
    (folder / "go").write_text("no head")
    training.begin(store.decisions(), ("cat", "dog"), False)
    training.wait()
    (folder / "go").write_text("")
    assert training.write() == 1
    training.wait()
    (record,) = store.trainings()
    assert (record.state, record.result["cause"]) == ("failed", "no head")
    assert record.result["model"]["state"] == "written"


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

    def served():
        index = open_index(folder / "index")
        out = tmp_path / "review"
        return ReviewSession(folder / "run", index, out, length=LENGTH, program=PROGRAM)

    code = SERVER.format(
        tests=str(Path(__file__).parents[1]), folder=str(folder), out=str(tmp_path / "review")
    )
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert server.stdout.readline() == "begun\n"
    until(lambda: (tmp_path / "review" / "known").is_dir(), 120)
    server.send_signal(signal.SIGKILL)
    server.wait()
    session = served()
    assert session.resumed == 1
    assert session.counts()["answers"] == {"other": 14}
    session.wait(300)
    (record,) = session.store.trainings()
    assert (record.state, record.labels) == ("done", 14)
    assert record.result["change"]["test"]["clips"] > 0
    assert session.write_model() == 1
    session.close()
    session = served()
    assert session.resumed == 1
    session.wait(300)
    model = session.training()["models"][1]
    assert model["state"] == "written", model
    assert unfreeze.SoundClassifier.load(tmp_path / "review" / "run-1").labels
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
    assert set(session._pool.labels) == set(record.result["change"]["labels"])
    session.close()
