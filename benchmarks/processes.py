"""The parent's end of `benchmarks.worker`: start a side, ask it for a round, end it."""

import json
import os
import re
import subprocess
import tempfile
import time
from typing import IO, Any

from benchmarks.environments import ROOT, EnvironmentMissing, python_of
from benchmarks.plan import Side

_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


class SideFailed(Exception):
    """A side could not start, or broke down; the message is the cause."""


class Process:
    """A running worker."""

    def __init__(self, side: Side) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        try:
            python = python_of(side.environment)
        except EnvironmentMissing as error:
            raise SideFailed(str(error)) from None
        command = [str(python), "-m", "benchmarks.worker", side.module, json.dumps(side.args)]
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
        if side.cores:
            command.append(str(side.cores))
            environment |= dict.fromkeys(_THREADS, str(side.cores))
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        try:
            self.versions: dict[str, str] = self._read()["versions"]
        except SideFailed:
            self.close()
            raise

    def round(self) -> dict[str, Any]:
        """Let the side do its work once."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise SideFailed(self._death()) from None
        result = self._read()
        self.versions = result.pop("versions")
        if "items" in result:
            result["rate"] = result["items"] / result["seconds"]
        return result

    def close(self) -> None:
        """End the process and wait for it."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()
        self._errors.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SideFailed(self._death())
        message: dict[str, Any] = json.loads(line)
        if "failed" in message:
            raise SideFailed(without_places(message["failed"]))
        return message

    def _death(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return without_places(f"ended with code {code}: {said[-1] if said else 'no message'}")


class FreshProcess:
    """A side that is a new process in each round, timed from its start to its end."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.versions: dict[str, str] = {}

    def round(self) -> dict[str, Any]:
        """Start, work, end."""
        began = time.perf_counter()
        process = Process(self.side)
        try:
            result = process.round()
        finally:
            process.close()
        result["inside_seconds"] = result["seconds"]
        result["seconds"] = time.perf_counter() - began
        self.versions = process.versions
        return result

    def close(self) -> None:
        """Nothing runs between rounds."""


def start(side: Side) -> Process | FreshProcess:
    """Start a side; returns when it is ready for its first round.

    Raises:
        SideFailed: with the cause.
    """
    return FreshProcess(side) if side.fresh else Process(side)


def without_places(text: str) -> str:
    """A message in which paths keep their last part alone, as results are published."""
    short = re.sub(r"(?:/[^\s/'\",:]+){2,}", lambda found: found[0].rpartition("/")[2], text)
    return " ".join(short.split())[:300]
