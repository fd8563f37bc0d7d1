"""Train again in the background: a new head in seconds, and a model where one is asked for.

"Train again" solves the run's head again (`unfreeze.review.quick_head`), in a thread of this
process, which needs no network and so no Keras. What it reads is made once for each review, by
`unfreeze embed` as a process of its own: the vectors of the run's recordings. That begins with
the first labels, so that mostly nobody waits for it.

A head is no model that others can use. "Write the model" runs the command that a person would
type, `unfreeze train LABELS --add-to RUN --schedule probe`, on the labels of that training: an
ordinary run, with a gate solved again, thresholds and a report. Processes keep the page quick,
and a kill harms neither side: what was under way when the server was killed is resumed by the
next one.

All labels are trained on (`--validation 0 --test 0` concern the added clips alone): the run's
own validation and test clips stay what they are, and the change is measured on them.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from unfreeze.audio.sound_file import file_size, plain_sound
from unfreeze.detection.detector import hop_steps
from unfreeze.errors import RunError, UnfreezeError, show
from unfreeze.files import make_folder
from unfreeze.output_folder import locked
from unfreeze.pipeline import run_folder
from unfreeze.review.label_files import write_training_table
from unfreeze.review.label_store import Decision, LabelStore, TrainingRecord
from unfreeze.review.old_run import run_front_end, run_source
from unfreeze.review.quick_head import HOW, told_of, train_head_again, write_head_file
from unfreeze.search.encoder import digest, model_file
from unfreeze.search.index_folder import JOURNAL, Index, open_index

#: How `unfreeze` is started.
PROGRAM = (sys.executable, "-P", "-c", "from unfreeze.cli import main; main()")
#: Labels that are worth a training; and from how many on the run's recordings are heard.
FEWEST, EARLY = 12, 3
LISTENING, TRAINING = "listening", "training"
# Seconds of the run's recordings that are heard for this: a minute of work for each half hour.
_LONGEST = 4 * 3600.0
# Bytes a second of sound whose length only another program knows: a usual compressed file.
_RATE = 16_000
#: What becomes of a model that was asked for, in the result of a training.
MODEL, WRITING, WRITTEN, FAILED = "model", "writing", "written", "failed"
# Seconds to wait for a process that outlived a killed server.
_PATIENCE = 900.0
# Characters of a message that are shown; and of the names of files in one command.
_SHOWN, _COMMAND = 2000, 20_000 if os.name == "nt" else 500_000


def table_of(folder: Path, number: int) -> Path:
    """The labels that a training was given."""
    return folder / f"labels-{number}.csv"


def run_of(folder: Path, number: int) -> Path:
    """The run that a training wrote."""
    return folder / f"run-{number}"


def head_of(folder: Path, number: int) -> Path:
    """The head that a training solved."""
    return folder / f"head-{number}.npz"


def train_words(folder: Path, number: int, run: Path) -> list[str]:
    """The command that writes a training's model, without the name of the program."""
    return [
        *("train", str(table_of(folder, number)), "--add-to", str(run)),
        *("--out", str(run_of(folder, number)), "--schedule", str(HOW["schedule"])),
        *("--annotated", str(HOW["annotated"])),
        *("--validation", f"{HOW['validation']:g}", "--test", f"{HOW['test']:g}"),
    ]


class Retraining:
    """The trainings of a review; one at a time, and one model at a time.

    Args:
        store: keeps what was begun and how it ended.
        folder: of the review.
        run: the run that labels are added to.
        index: of the review.
        on_head: called with the number of a training whose head is on disk.
        program: starts `unfreeze`.
    """

    def __init__(
        self,
        store: LabelStore,
        folder: Path,
        run: Path,
        index: Index,
        on_head: Callable[[int], None],
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self._store, self._folder, self._run = store, folder.absolute(), run.absolute()
        self._index, self._on_head, self._program = index, on_head, tuple(program)
        # The first guards what follows; the second is held by whoever has the run heard.
        self._lock, self._hearing = threading.Lock(), threading.Lock()
        self._threads: dict[str, threading.Thread] = {}
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._stopped = False
        self._doing: tuple[int, str, float] | None = None
        self._writing: tuple[int, float] | None = None

    def prepare(self) -> None:
        """Have the run's recordings heard, so that a training need not wait for it."""
        with self._lock:
            if LISTENING not in self._threads and not self._stopped:
                # What goes wrong is said by the training that needs it.
                self._begin(LISTENING, lambda: _whatever_fails(self._known))

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
            if self._is_busy(TRAINING):
                raise UnfreezeError("a training is under way: wait until it has ended")
            last = max((one.number for one in decisions), default=0)
            number = len(self._store.trainings()) + 1
            # The labels first: a training that is begun has them.
            rows = write_training_table(table_of(self._folder, number), decisions, labels, several)
            number = self._store.begin_training(rows, last)
            self._start(number)
            return number

    def write(self) -> int:
        """Begin to write a model from the labels of the last training; return its number.

        Where no head could be solved, the model may still be.

        Raises:
            UnfreezeError: there is none, it is written, or one is being written.
        """
        with self._lock:
            if self._is_busy(WRITING):
                raise UnfreezeError("a model is being written: wait until that has ended")
            record = last_ended(self._store.trainings())
            if record is None:
                raise UnfreezeError("nothing was trained yet: train again first")
            if record.result.get(MODEL, {}).get("state") == WRITTEN:
                raise UnfreezeError(
                    f"the model is in {show(run_of(self._folder, record.number))} already"
                )
            self._start_writing(record)
            return record.number

    def resume(self) -> int | None:
        """Resume what a killed server left; return the number of its training, or None."""
        found = None
        for record in self._store.trainings():
            with self._lock:
                if record.state == "running" and found is None:
                    found = record.number
                    self._start(found)
                elif record.result.get(MODEL, {}).get("state") == WRITING:
                    self._start_writing(record)
                    found = found or record.number
        return found

    def progress(self) -> dict[str, Any] | None:
        """What a training does: `number`, `stage` and `seconds`; None if there is none."""
        doing = self._doing
        if doing is None:
            return None
        return {"number": doing[0], "stage": doing[1], "seconds": time.monotonic() - doing[2]}

    def writing(self) -> dict[str, Any] | None:
        """Whose model is being written: `number` and `seconds`; None if none is."""
        writing = self._writing
        if writing is None:
            return None
        return {"number": writing[0], "seconds": time.monotonic() - writing[1]}

    def wait(self, seconds: float | None = None) -> None:
        """Wait until what is under way has ended."""
        deadline = None if seconds is None else time.monotonic() + seconds
        for thread in list(self._threads.values()):
            thread.join(None if deadline is None else max(deadline - time.monotonic(), 0))

    def close(self) -> None:
        """End what is under way; it is resumed the next time."""
        self._stopped = True
        for process in list(self._processes):
            with suppress(OSError):
                process.terminate()
        self.wait(30)

    def _is_busy(self, what: str) -> bool:
        return what in self._threads and self._threads[what].is_alive()

    def _begin(self, what: str, work: Callable[[], object]) -> None:
        self._threads[what] = threading.Thread(target=work, daemon=True)
        self._threads[what].start()

    def _start(self, number: int) -> None:
        self._doing = number, LISTENING, time.monotonic()
        self._begin(TRAINING, lambda: self._work(number))

    def _start_writing(self, record: TrainingRecord) -> None:
        self._tell(record, {"state": WRITING})
        self._writing = record.number, time.monotonic()
        self._begin(WRITING, lambda: self._write(record))

    def _tell(self, record: TrainingRecord, model: dict[str, Any]) -> None:
        """Keep what became of a training's model."""
        self._store.end_training(record.number, record.state, {**record.result, MODEL: model})

    def _work(self, number: int) -> None:
        try:
            begun = time.monotonic()
            known = self._known()
            if self._stopped:
                return
            heard = time.monotonic()
            self._doing = number, TRAINING, heard
            table = table_of(self._folder, number)
            head, change = train_head_again(self._run, self._index, known, table)
            write_head_file(head, head_of(self._folder, number))
            self._on_head(number)
            if self._stopped:
                return
            took = {"seconds": time.monotonic() - heard, "listening_seconds": heard - begun}
            rounded = {name: round(float(value), 1) for name, value in took.items()}
            self._store.end_training(number, "done", {"change": change, **rounded})
        except Exception as error:
            # Whatever happens here, the page must learn of it.
            if not self._stopped:
                with suppress(UnfreezeError):
                    self._store.end_training(number, "failed", {"cause": str(error)})
        finally:
            self._doing = None

    def _write(self, record: TrainingRecord) -> None:
        begun, out = time.monotonic(), run_of(self._folder, record.number)
        try:
            failed = self._train(record.number)
            if self._stopped:
                return
            if failed is not None:
                self._tell(record, {"state": FAILED, "cause": failed})
                return
            seconds = round(time.monotonic() - begun, 1)
            told = {"state": WRITTEN, "run": str(out), "change": change_of(out)}
            self._tell(record, {**told, "seconds": seconds})
        except Exception as error:
            if not self._stopped:
                with suppress(UnfreezeError):
                    self._tell(record, {"state": FAILED, "cause": str(error)})
        finally:
            self._writing = None

    def _train(self, number: int) -> str | None:
        """Train a model; return why that failed, or None."""
        out = run_of(self._folder, number)
        self._wait_for_others(out)
        if run_folder.is_finished(out):
            return None
        words = train_words(self._folder, number, self._run)
        if run_folder.is_interrupted(out):
            words.append("--resume")
        return self._call([*words, "--quiet"])

    def _wait_for_others(self, out: Path) -> None:
        """Wait for a process that still writes to a folder: it may have outlived its server.

        Raises:
            RunError: it does not end.
            UnfreezeError: the review is being closed.
        """
        make_folder(out.parent)
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                with locked(out):
                    return
            except RunError:
                if self._stopped:
                    raise UnfreezeError("the review is being closed") from None
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def _known(self) -> Index:
        """The index of the run's recordings; what it lacks is heard first.

        Raises:
            UnfreezeError: the recordings are missing, or cannot be heard.
        """
        with self._hearing:
            home = self._folder / "known"
            self._wait_for_others(home)
            if (home / JOURNAL).is_file() and (
                open_index(home).settings.encoder != digest(model_file(self._run))
            ):
                # The run was trained again since, into the same folder.
                shutil.rmtree(home)
            files = list(dict.fromkeys(entry.path for entry in run_source(self._run).entries))
            todo = _unheard(home, files)
            if _is_long(todo):
                raise RunError(
                    f"the recordings of {show(self._run)} last more than {_LONGEST / 3600:g} "
                    "hours, and all of them would have to be heard first. Write the model "
                    "instead: it is trained on the same labels, and hears only what the run was "
                    "trained on"
                )
            front = run_front_end(self._run)
            # As the run heard its clips, so that its test scores are those of its report.
            hop = hop_steps(front, None) * front.step / front.sample_rate
            for some in _in_commands(todo):
                more = ["--run", str(self._run), "--hop", f"{hop:.9g}"]
                failed = self._call(["embed", *some, "--out", str(home), *more])
                if self._stopped:
                    raise UnfreezeError("the review is being closed")
                if failed is not None:
                    raise RunError(f"the run's recordings cannot be heard: {failed}")
            return open_index(home)

    def _call(self, words: Sequence[str]) -> str | None:
        """Run a command to its end; return its message if it failed, else None."""
        process = subprocess.Popen(
            [*self._program, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
            # Ctrl-C ends the server, which then ends this one: else it would look like a failure.
            start_new_session=True,
        )
        self._processes.add(process)
        if self._stopped:
            process.terminate()
        _, said = process.communicate()
        self._processes.discard(process)
        if process.returncode == 0:
            return None
        lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
        told = [line for line in lines if line.startswith("error")] or lines[-3:]
        text = " ".join(told)[-_SHOWN:].removeprefix("error: ")
        return text or f"it ended with status {process.returncode}"


def _whatever_fails(work: Callable[[], object]) -> None:
    """Do something whose failure is said elsewhere."""
    with suppress(Exception):
        work()


def _unheard(home: Path, files: Sequence[Path]) -> list[Path]:
    """The recordings that are not in an index, or have changed since."""
    if not (home / JOURNAL).is_file():
        return list(files)
    index = open_index(home)
    known = {file: index.recording(file) for file in files}
    return [file for file, item in known.items() if item is None or item.change() is not None]


def _is_long(files: Sequence[Path]) -> bool:
    """Whether recordings last longer than they can be heard for a training of seconds."""
    total = 0.0
    for file in files:
        # One that cannot be read is reported by the command that hears it.
        with suppress(UnfreezeError, OSError):
            sound = plain_sound(file)
            if sound is None or sound.stated is None:
                total += file_size(file) / _RATE
            else:
                total += sound.stated / sound.sample_rate
        if total > _LONGEST:
            return True
    return False


def _in_commands(files: Sequence[Path]) -> Iterator[list[str]]:
    """The names of files, as many at once as a command takes."""
    most = max(_COMMAND // (max((len(str(file)) for file in files), default=0) + 3), 1)
    for at in range(0, len(files), most):
        yield [str(file) for file in files[at : at + most]]


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
        **told_of(about.get("notes", ()), about.get("problems", ())),
    }


def last_done(records: Sequence[TrainingRecord]) -> TrainingRecord | None:
    """The last training that ended with a head; None without one."""
    return next((one for one in reversed(records) if one.state == "done"), None)


def last_ended(records: Sequence[TrainingRecord]) -> TrainingRecord | None:
    """The last training that ended, with a head or without; None without one."""
    return next((one for one in reversed(records) if one.state != "running"), None)
