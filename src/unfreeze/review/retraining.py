"""Train again in the background, by the same commands that a person would type.

A training is a process of its own: `unfreeze train LABELS --add-to RUN --schedule probe`, then
`unfreeze embed` with the new run, so that what is left can be put in a new order. So the page
stays quick, what TensorFlow keeps of a training ends with it, and a kill harms neither side: a
training that was under way when the server was killed is resumed by the next one.

All labels are trained on (`--validation 0 --test 0` concern the added clips alone): the run's
own validation and test clips stay what they are, and the change is measured on them.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from unfreeze.errors import RunError, UnfreezeError
from unfreeze.files import make_folder
from unfreeze.output_folder import locked
from unfreeze.pipeline import run_folder
from unfreeze.review.label_files import write_training_table
from unfreeze.review.label_store import Decision, LabelStore, TrainingRecord

#: How `unfreeze` is started.
PROGRAM = (sys.executable, "-P", "-c", "from unfreeze.cli import main; main()")
#: Labels that are worth a training.
FEWEST = 12
TRAINING, SCORING = "training", "scoring"
# Seconds to wait for a training that outlived a killed server.
_PATIENCE = 900.0
# Rules by which added clips are left out, so that the test set stays what it is.
_LEFT_OUT = ("between_parts", "disputed", "duplicate_label")
# Characters of a message that are shown.
_SHOWN = 2000


def table_of(folder: Path, number: int) -> Path:
    """The labels that a training was given."""
    return folder / f"labels-{number}.csv"


def run_of(folder: Path, number: int) -> Path:
    """The run that a training wrote."""
    return folder / f"run-{number}"


def index_of(folder: Path, number: int) -> Path:
    """What the run of a training has scored."""
    return folder / f"index-{number}"


def train_words(folder: Path, number: int, run: Path) -> list[str]:
    """The command that trains, without the name of the program."""
    return [
        *("train", str(table_of(folder, number)), "--add-to", str(run)),
        *("--out", str(run_of(folder, number)), "--schedule", "probe"),
        *("--annotated", "partly", "--validation", "0", "--test", "0"),
    ]


class Retraining:
    """The trainings of a review; one at a time.

    Args:
        store: keeps what was begun and how it ended.
        folder: of the review.
        run: the run that labels are added to.
        to_score: returns the recordings to score with a new run.
        on_scored: called with the number of a training whose run has scored them.
        program: starts `unfreeze`.
    """

    def __init__(
        self,
        store: LabelStore,
        folder: Path,
        run: Path,
        to_score: Callable[[], Sequence[Path]],
        on_scored: Callable[[int], None],
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self._store, self._folder, self._run = store, folder.absolute(), run.absolute()
        self._to_score, self._on_scored, self._program = to_score, on_scored, tuple(program)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._doing: tuple[int, str, float] | None = None

    def begin(self, decisions: Sequence[Decision], labels: Sequence[str], several: bool) -> int:
        """Begin to train on what was decided; return the number of the training.

        Args:
            decisions: that count.
            labels: the classes of the run.
            several: whether each class is judged by itself.

        Raises:
            UnfreezeError: one is under way.
        """
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                raise UnfreezeError("a training is under way: wait until it has ended")
            last = max((one.number for one in decisions), default=0)
            number = len(self._store.trainings()) + 1
            # The labels first: a training that is begun has them.
            rows = write_training_table(table_of(self._folder, number), decisions, labels, several)
            number = self._store.begin_training(rows, last)
            self._start(number)
            return number

    def resume(self) -> int | None:
        """Resume the training that a killed server left; return its number, or None."""
        for record in self._store.trainings():
            if record.state == "running":
                with self._lock:
                    self._start(record.number)
                return record.number
        return None

    def progress(self) -> dict[str, Any] | None:
        """What is being done: `number`, `stage` and `seconds`; None if nothing is."""
        doing = self._doing
        if doing is None:
            return None
        return {"number": doing[0], "stage": doing[1], "seconds": time.monotonic() - doing[2]}

    def wait(self, seconds: float | None = None) -> None:
        """Wait until the training has ended."""
        if self._thread is not None:
            self._thread.join(seconds)

    def close(self) -> None:
        """End a training that is under way; it is resumed the next time."""
        self._stopped = True
        process = self._process
        if process is not None:
            with suppress(OSError):
                process.terminate()
        self.wait(30)

    def _start(self, number: int) -> None:
        self._doing = number, TRAINING, time.monotonic()
        self._thread = threading.Thread(target=self._work, args=(number,), daemon=True)
        self._thread.start()

    def _work(self, number: int) -> None:
        try:
            begun = time.monotonic()
            failed = self._train(number)
            if self._stopped:
                return
            if failed is not None:
                self._store.end_training(number, "failed", {"cause": failed})
                return
            trained = time.monotonic()
            self._doing = number, SCORING, trained
            result: dict[str, Any] = {"change": change_of(run_of(self._folder, number))}
            result |= self._score(number)
            if self._stopped:
                return
            result["seconds"] = round(trained - begun, 1)
            result["scoring_seconds"] = round(time.monotonic() - trained, 1)
            self._store.end_training(number, "done", result)
        except Exception as error:
            # Whatever happens here, the page must learn of it.
            with suppress(UnfreezeError):
                self._store.end_training(number, "failed", {"cause": str(error)})
        finally:
            self._doing = None

    def _train(self, number: int) -> str | None:
        """Train; return why that failed, or None."""
        out = run_of(self._folder, number)
        _wait_for_others(out)
        if run_folder.is_finished(out):
            return None
        words = train_words(self._folder, number, self._run)
        if run_folder.is_interrupted(out):
            words.append("--resume")
        return self._call([*words, "--quiet"])

    def _score(self, number: int) -> dict[str, Any]:
        """Score recordings with the new run; what is to be said of it."""
        recordings = list(self._to_score())
        words = [*map(str, recordings), "--out", str(index_of(self._folder, number))]
        words = ["embed", *words, "--run", str(run_of(self._folder, number))]
        failed = self._call(words)
        if failed is not None:
            # The run is there: what is left keeps its order.
            return {"scored": 0, "not_scored": failed}
        self._on_scored(number)
        return {"scored": len(recordings)}

    def _call(self, words: Sequence[str]) -> str | None:
        """Run a command to its end; return its message if it failed, else None."""
        self._process = process = subprocess.Popen(
            [*self._program, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
            # Ctrl-C ends the server, which then ends this one: else it would look like a failure.
            start_new_session=True,
        )
        if self._stopped:
            process.terminate()
        _, said = process.communicate()
        self._process = None
        if process.returncode == 0:
            return None
        lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
        told = [line for line in lines if line.startswith("error")] or lines[-3:]
        text = " ".join(told)[-_SHOWN:].removeprefix("error: ")
        return text or f"it ended with status {process.returncode}"


def change_of(run: Path) -> dict[str, Any]:
    """What a run changed on the earlier one's test clips, and what is to be said of its data.

    Returns:
        `test`: as from `unfreeze.review.before_and_after`, or None without test clips; `labels`:
        the classes of the run; `notes`: sentences; `problems`: clips that were left out, with
        the cause.

    Raises:
        RunError: the run is not finished, or damaged.
    """
    metrics, config = run_folder.read_scores(run), run_folder.read_config(run)
    change = metrics.get("change")
    about: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        about = json.loads((run / run_folder.NOTES).read_text(encoding="utf-8"))
    return {
        "test": change.get("test") if isinstance(change, dict) else None,
        "labels": list(config.get("labels") or ()),
        "notes": [str(note) for note in about.get("notes", ())][:10],
        "problems": [
            f"{problem.get('path')}: {problem.get('cause')}"
            for problem in about.get("problems", ())
            if problem.get("fatal") or problem.get("rule") in _LEFT_OUT
        ][:10],
    }


def last_done(records: Sequence[TrainingRecord]) -> TrainingRecord | None:
    """The last training that ended with a run; None without one."""
    return next((one for one in reversed(records) if one.state == "done"), None)


def _wait_for_others(out: Path) -> None:
    """Wait for a process that still writes to a run: it may have outlived its server.

    Raises:
        RunError: it does not end.
    """
    make_folder(out.parent)
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            with locked(out):
                return
        except RunError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
