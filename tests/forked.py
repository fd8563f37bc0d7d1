"""New Python processes that need not import Keras first, which takes seconds.

On PyTorch they are forked from a process that has imported it and waits, as long as pytest's
does. On other backends, which start threads that a fork lacks, they are started as ever.
"""

import multiprocessing
import os
import subprocess
import sys
from multiprocessing.connection import Connection
from typing import IO

# What commands import one after the other; of the package's own modules none keeps a state.
_IMPORTED = ["keras", "unfreeze.classifier", "unfreeze.cli.app", "unfreeze.pipeline.training"]
_AS_FORKED = os.environ.get("KERAS_BACKEND") == "torch" and sys.platform == "linux"

if _AS_FORKED:
    _CONTEXT = multiprocessing.get_context("forkserver")
    _CONTEXT.set_forkserver_preload(_IMPORTED)


class Forked:
    """What of `subprocess.Popen` the tests use; bytes come in and go out as they are."""

    def __init__(self, code: str, words: list[str], env: dict[str, str] | None):
        pipes = [_CONTEXT.Pipe(duplex=False) for _ in range(3)]
        (stdin, ours), (out, stdout), (err, stderr) = pipes
        environment = dict(os.environ if env is None else env)
        theirs = (stdin, stdout, stderr)
        self._process = _CONTEXT.Process(target=_run, args=(code, words, environment, *theirs))
        self._process.start()
        for end in theirs:
            end.close()
        self.stdin: IO[bytes] = _file(ours, "wb")
        self.stdout: IO[bytes] = _file(out, "rb")
        self.stderr: IO[bytes] = _file(err, "rb")
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("forked", timeout)
        return self.returncode

    def communicate(self, timeout: float) -> tuple[bytes, bytes]:
        """Standard output and error to their ends; killed after `timeout` seconds."""
        import threading

        late = threading.Event()
        giving_up = threading.Timer(timeout, lambda: (late.set(), self.kill()))
        giving_up.start()
        self.stdin.close()
        said: list[bytes] = []
        listener = threading.Thread(target=lambda: said.append(self.stderr.read()))
        listener.start()
        out = self.stdout.read()
        listener.join()
        self._process.join()
        giving_up.cancel()
        if late.is_set():
            raise subprocess.TimeoutExpired("forked", timeout, out, said[0])
        return out, said[0]


def start(code: str, *words: object, env: dict[str, str] | None = None):
    """Run `code` with these words as `sys.argv[1:]`, all three streams through pipes of bytes."""
    said = [str(word) for word in words]
    if _AS_FORKED:
        return Forked(code, said, env)
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, "-c", code, *said], env=env, **streams)


def run(code: str, *words: object, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """The same to its end: exit code, standard output and error."""
    process = start(code, *words, env=env)
    out, err = process.communicate(timeout=300)
    return process.returncode, out.decode(), err.decode()


def _file(end: Connection, mode: str) -> IO[bytes]:
    file = os.fdopen(os.dup(end.fileno()), mode)
    end.close()
    return file


def _run(code: str, words: list[str], environment: dict[str, str], *streams: Connection) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
        stream.close()
    sys.stdin = open(0)  # noqa: SIM115
    at_once = "PYTHONUNBUFFERED" in environment
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stdout.reconfigure(write_through=at_once)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    sys.argv = ["-c", *words]
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
