"""The processes of the studio: a training, an export, a page to listen on.

A training is a process of its own and in no way tied to the studio: it is `unfreeze train` with
`--progress`, and what is known of it comes from that file. So a studio that is killed takes no
training with it, the next studio finds it still running, and a training that crashes leaves the
page as it is. To stop one is to send the signal that its terminal would send. All else that the
studio starts ends with the studio, even if that is killed.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unfreeze.errors import UnfreezeError, show
from unfreeze.files import make_folder, remove
from unfreeze.pipeline import run_folder
from unfreeze.pipeline.run_progress import (
    FAILED,
    FINISHED,
    INTERRUPTED,
    RUNNING,
    is_being_written,
    read_progress,
)

#: Starts `unfreeze`; it ends when whoever started it does, as its standard input then closes.
TIED_PROGRAM = (
    # Not from the current folder, which may hold a module of any name.
    *(sys.executable, "-P", "-c"),
    "import os, threading\n"
    "def end():\n"
    "    while os.read(0, 1024):\n"
    "        pass\n"
    "    os._exit(1)\n"
    "threading.Thread(target=end, daemon=True).start()\n"
    "from unfreeze.cli import main\n"
    "main()",
)
# Bytes of a log that are shown, and characters of a message.
_LOG_SHOWN, _SHOWN = 20_000, 2000
_PROGRESS, _LOG = ".progress.json", ".log"
_ADDRESS = re.compile(r" is at (http://\S+)")


class Training:
    """The trainings of a studio; one at a time.

    Args:
        home: the folder for what is known of them, beside the runs.
        program: starts `unfreeze`.
    """

    def __init__(self, home: Path, program: Sequence[str]) -> None:
        self._home, self._program = home, tuple(program)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0
        self._stops = 0
        self._name = self._found()

    def start(self, run: Path, words: Sequence[str], resumes: bool) -> None:
        """Start a training.

        Args:
            run: its folder.
            words: of the command, after `unfreeze`.
            resumes: whether it is one that was interrupted.

        Raises:
            UnfreezeError: one is under way, or none can be started.
        """
        with self._lock:
            if self._is_running():
                raise UnfreezeError(
                    f"the training of {self._name} is under way: wait until it has ended, or "
                    "stop it; there is one at a time"
                )
            progress, log = self._files(run.name)
            try:
                make_folder(self._home)
                if not resumes:
                    # What another run of that name left is not of this one.
                    remove(progress)
                with log.open("wb") as file:
                    self._process = subprocess.Popen(
                        [*self._program, *words, "--progress", str(progress)],
                        stdin=subprocess.DEVNULL,
                        stdout=file,
                        stderr=subprocess.STDOUT,
                        env=environment(),
                        # Ctrl-C at the studio's terminal is not meant for it.
                        start_new_session=True,
                    )
            except OSError as error:
                raise UnfreezeError(
                    f"the training cannot be started: {error.filename or ''} {error.strerror}"
                ) from None
            self._name, self._began, self._stops = run.name, time.time(), 0

    def stop(self, name: str) -> None:
        """Ask a training to end, as Ctrl-C does; the second time at once.

        Raises:
            UnfreezeError: it is not running.
        """
        with self._lock:
            if name != self._name or not self._is_running():
                raise UnfreezeError(f"no training of {show(name)} is under way")
            self._stops += 1
            process = self._process
            if process is not None and process.poll() is None:
                process.terminate()
                return
            found = read_progress(self._files(name)[0])
            if found is not None:
                # Its lock is held, so the process that wrote its number there lives.
                with contextlib.suppress(OSError):
                    os.kill(found["pid"], signal.SIGTERM)

    def name(self) -> str | None:
        """The run whose training is under way; None if none is."""
        with self._lock:
            return self._name if self._is_running() else None

    def state(self) -> dict[str, Any] | None:
        """What is known of the training that runs or ran last; None without one.

        Returns:
            `name`, `state` ("running", "finished", "interrupted" or "failed"), `cause`,
            `stopping`, `log` and what the progress file holds.
        """
        with self._lock:
            name = self._name
            if name is None:
                return None
            running = self._is_running()
            process, began, stops = self._process, self._began, self._stops
        file, log = self._files(name)
        found = read_progress(file)
        told: dict[str, Any] = {"name": name, "stopping": stops > 0, "log": _tail(log)}
        if running:
            if found is not None and process is not None and found["updated"] < began:
                # Of the process before: this one is still starting.
                found |= {"stage": None, "work": None, "left": None}
            return {**(found or {}), **told, "state": RUNNING, "cause": None}
        written = found is not None and (process is None or found["updated"] >= began)
        state, cause = (found["state"], found["cause"]) if found and written else (RUNNING, None)
        if state == RUNNING:
            # It ended without a word of its own.
            run = self._home.parent / name
            killed = stops > 0 or run_folder.is_interrupted(run)
            state = INTERRUPTED if killed else FAILED
            cause = None if stops else _why(told["log"]) or "it was killed"
            if run_folder.is_finished(run):
                state, cause = FINISHED, None
        return {**(found or {}), **told, "state": state, "cause": cause}

    def close(self, seconds: float = 60.0) -> str | None:
        """Stop a training that is under way, and wait for it; return the run's name."""
        name = self.name()
        if name is None:
            return None
        with contextlib.suppress(UnfreezeError):
            self.stop(name)
        deadline = time.monotonic() + seconds
        while self.name() is not None and time.monotonic() < deadline:
            time.sleep(0.1)
        return name

    def _found(self) -> str | None:
        """The training that another studio began: the one that still runs, or the last."""
        files = list(self._home.glob(f"[!.]*{_PROGRESS}"))
        running = [file for file in files if is_being_written(file)]
        last = max(running or files, key=lambda file: file.stat().st_mtime, default=None)
        return None if last is None else last.name.removesuffix(_PROGRESS)

    def _is_running(self) -> bool:
        if self._process is not None and self._process.poll() is None:
            return True
        return self._name is not None and is_being_written(self._files(self._name)[0])

    def _files(self, name: str) -> tuple[Path, Path]:
        return self._home / f"{name}{_PROGRESS}", self._home / f"{name}{_LOG}"


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: its status.
        out: what it printed.
        cause: why it failed; None if it did not.
    """

    code: int
    out: str
    cause: str | None


class Errands:
    """Commands that take seconds to minutes, and end with the studio.

    Args:
        program: starts `unfreeze`, tied to this process.
        seconds: that one may take.
    """

    def __init__(self, program: Sequence[str] = TIED_PROGRAM, seconds: float = 1800.0) -> None:
        self._program, self._seconds = tuple(program), seconds
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._export: dict[str, Any] | None = None
        self._page: dict[str, Any] | None = None
        self._page_process: subprocess.Popen[bytes] | None = None

    def call(self, words: Sequence[str]) -> Ended:
        """Run a command to its end."""
        process = self._start(words)
        timer = threading.Timer(self._seconds, process.kill)
        timer.start()
        try:
            # Not `communicate`, which would close its standard input, to which it is tied.
            err: list[bytes] = []
            assert process.stdout is not None
            assert process.stderr is not None
            reader = threading.Thread(target=_drain, args=(process.stderr, err.append))
            reader.start()
            out = process.stdout.read()
            reader.join()
            code = process.wait()
        finally:
            overdue = not timer.is_alive()
            timer.cancel()
            self._end(process)
        cause = None
        if code:
            said = b"".join(err).decode(errors="replace")
            cause = _why(said) or f"it ended with status {code}"
            if overdue:
                cause = f"it took more than {self._seconds:g} s and was ended"
        return Ended(code, out.decode(errors="replace"), cause)

    def export(self, run: str, format: str, words: Sequence[str], line: str) -> None:
        """Begin an export.

        Raises:
            UnfreezeError: one is under way.
        """
        with self._lock:
            if self._export is not None and self._export["state"] == RUNNING:
                raise UnfreezeError(
                    f"the export of {self._export['run']} is under way: wait until it has ended"
                )
            self._export = {"run": run, "format": format, "command": line, "state": RUNNING}
        threading.Thread(target=self._exporting, args=(words,), daemon=True).start()

    def exported(self) -> dict[str, Any] | None:
        """The export that runs or ran last: `run`, `format`, `state`, `cause`, `path`, `bytes`."""
        return self._export

    def listen(self, run: str, words: Sequence[str], line: str) -> None:
        """Serve a run as a page of its own, in place of the one that was served before."""
        with self._lock:
            page = self._page
            if page is not None and page["run"] == run and page["state"] != FAILED:
                return
            if self._page_process is not None:
                self._end(self._page_process)
            self._page = page = {"run": run, "command": line, "state": "starting", "url": None}
            # Any free port: 8000 may be taken.
            self._page_process = process = self._start([*words, "--port", "0"])
        threading.Thread(target=self._listening, args=(page, process), daemon=True).start()

    def listening(self) -> dict[str, Any] | None:
        """The page of a run: `run`, `state` ("starting", "running", "failed"), `url`, `cause`."""
        return self._page

    def close(self) -> None:
        """End all of them."""
        with self._lock:
            for process in list(self._processes):
                self._end(process)

    def _exporting(self, words: Sequence[str]) -> None:
        assert self._export is not None
        told: dict[str, Any] = {"state": FAILED}
        try:
            ended = self.call([*words, "--json"])
            told["cause"] = ended.cause
            if ended.cause is None:
                details = json.loads(ended.out[ended.out.index("{") :])
                told |= {"state": FINISHED, "bytes": details.get("bytes")}
                told["agrees"] = details.get("check", {}).get("top_class_agreement")
                told["file"] = details.get("file")
        except (OSError, ValueError) as error:
            told["cause"] = str(error)
        self._export = {**self._export, **told}

    def _listening(self, page: dict[str, Any], process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        said: list[bytes] = []
        reader = threading.Thread(target=_drain, args=(process.stderr, said.append), daemon=True)
        reader.start()
        for line in process.stdout:
            found = _ADDRESS.search(line.decode(errors="replace"))
            if found:
                page |= {"url": found[1], "state": RUNNING}
        code = process.wait()
        reader.join(5)
        cause = _why(b"".join(said).decode(errors="replace")) or f"it ended with status {code}"
        page |= {"state": FAILED, "url": None, "cause": cause}

    def _start(self, words: Sequence[str]) -> "subprocess.Popen[bytes]":
        try:
            process = subprocess.Popen(
                [*self._program, *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment(),
                start_new_session=True,
            )
        except OSError as error:
            raise UnfreezeError(f"the command cannot be started: {error.strerror}") from None
        self._processes.add(process)
        return process

    def _end(self, process: "subprocess.Popen[bytes]") -> None:
        self._processes.discard(process)
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()


def environment() -> dict[str, str]:
    """The environment of the studio's processes: lines of a readable length, without colours."""
    more = {"COLUMNS": "110", "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **more}


def _drain(stream: Any, keep: Callable[[bytes], Any]) -> None:
    for line in stream:
        keep(line)


def _tail(log: Path) -> str:
    """The end of a log."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - _LOG_SHOWN, 0))
            return file.read(_LOG_SHOWN).decode(errors="replace")
    except OSError:
        return ""


def _why(said: str) -> str | None:
    """The message of a command that failed."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("error: ")] or lines[-1:]
    return " ".join(told)[-_SHOWN:].removeprefix("error: ") or None
