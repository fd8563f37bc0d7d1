"""One decoding process, from the side of the process that started it."""

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

import unfreeze
from unfreeze.audio.worker import ALIVE, BEGUN, DONE, HEAD, PIECE, READY, REFUSED
from unfreeze.errors import RunError

# A block of 8 MB at the lowest sample rate, at any model's rate, is shorter.
_LONGEST_MESSAGE = 1 << 30
# Seconds for all imports, on a machine that is busy or reads them over a network.
_START = 300.0
# A bare package in place of ours, whose own module waits for Keras: that takes a
# third of the time, and no decoder needs it.
_CODE = """
import importlib, json, sys, types
sys.path[:] = json.loads(sys.argv[1])
sys.modules["unfreeze"] = types.ModuleType("unfreeze")
sys.modules["unfreeze"].__path__ = json.loads(sys.argv[2])
importlib.import_module(sys.argv[3]).main()
"""
# The decoders need no threads of their own; numpy would keep memory for them.
_SINGLE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class DecoderDied(Exception):
    """The process is gone; the message goes on from "the decoder".

    Attributes:
        hung: it was killed as it said nothing any more.
    """

    def __init__(self, message: str, hung: bool) -> None:
        super().__init__(message)
        self.hung = hung


class DecodeProcess:
    """A process that runs `unfreeze.audio.worker`. One thread at a time may use it.

    Args:
        module: whose `main` it runs.
        patience: seconds without a message after which it is killed.

    Attributes:
        idle: whether it waits for a request.

    Raises:
        RunError: it cannot be started.
    """

    def __init__(self, module: str, patience: float) -> None:
        self.idle = True
        self._patience, self._owner = patience, os.getpid()
        self._deadline, self._hung = math.inf, False
        self._over = threading.Event()
        with tempfile.TemporaryFile() as errors:
            self._process = _start(module, errors)
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._in, self._out = self._process.stdin, self._process.stdout
            threading.Thread(target=self._watch, name="unfreeze-watch", daemon=True).start()
            try:
                self._message(_START)
            except DecoderDied as death:
                self.close()
                errors.seek(0)
                said = errors.read().decode("utf-8", "replace").strip().splitlines()
                raise RunError(
                    f"The process that decodes sound files could not start: "
                    f"{said[-1] if said else f'it {death}'}"
                ) from None

    def ask(self, request: dict[str, Any]) -> Iterator[tuple[bytes, Any]]:
        """Send a request.

        Args:
            request: plain values; see `unfreeze.audio.worker`.

        Yields:
            Messages but for signs of life: kind, and what came with it. Those on
            one of the files end with DONE or REFUSED.

        Raises:
            DecoderDied: it died, or was killed as it hung.
        """
        self.idle = False
        try:
            self._in.write(json.dumps(request).encode("ascii") + b"\n")
            self._in.flush()
        except OSError:
            raise self._death() from None
        left = len(request["paths"])
        while left:
            kind, rest = self._message(self._patience)
            if kind != ALIVE:
                left -= kind in (DONE, REFUSED)
                self.idle = not left
                yield kind, rest

    def close(self) -> None:
        """End the process, whatever it does."""
        self._over.set()
        if os.getpid() != self._owner:
            return  # a fork of ours has no business with it
        self._process.kill()
        self._process.wait()
        self._out.close()
        try:
            self._in.close()
        except OSError:
            return  # a request that it never read

    def _message(self, patience: float) -> tuple[bytes, Any]:
        # The clock runs only here: between messages our reader may take its time.
        self._deadline = time.monotonic() + patience
        try:
            kind, length = HEAD.unpack(self._read(HEAD.size))
            if length > _LONGEST_MESSAGE or kind not in (READY, ALIVE, BEGUN, PIECE, DONE, REFUSED):
                raise ValueError(kind)
            if kind == PIECE:
                samples = np.empty(length // 4, np.dtype("<f4"))
                if self._out.readinto(samples.data.cast("B")) < length:  # type: ignore[attr-defined]
                    raise self._death()
                return kind, samples
            rest = self._read(length)
            return kind, json.loads(rest) if rest else None
        except ValueError:
            raise DecoderDied("gives an answer that makes no sense", False) from None
        except OSError:
            raise self._death() from None
        finally:
            self._deadline = math.inf

    def _read(self, length: int) -> bytes:
        content = self._out.read(length)
        if len(content) < length:
            raise self._death()
        return content

    def _watch(self) -> None:
        while not self._over.wait(min(self._patience / 4, 1.0)):
            if time.monotonic() > self._deadline:
                self._hung = True
                self._process.kill()

    def _death(self) -> DecoderDied:
        try:
            # Its output has ended, so it is ending.
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return DecoderDied("says nothing any more", False)
        if self._hung:
            return DecoderDied(f"hangs: nothing came in {self._patience:g} s", True)
        return DecoderDied(_manner(code), False)


def _start(module: str, errors: BinaryIO) -> "subprocess.Popen[bytes]":
    # -P: a file in the current folder must not stand in for a module.
    paths = [path or os.getcwd() for path in sys.path]  # noqa: PTH109 (text is wanted)
    try:
        return subprocess.Popen(
            [
                *(sys.executable, "-P", "-c", _CODE),
                *(json.dumps(paths), json.dumps(list(unfreeze.__path__)), module),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **_SINGLE},
        )
    except OSError as error:
        raise RunError(
            f"The process that decodes sound files could not start: {error.strerror or error}"
        ) from error


def _manner(code: int) -> str:
    if code >= 0:
        return f"ends with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name == "SIGXCPU":
        return "takes too much time"
    if name == "SIGKILL":
        return "is killed from outside, perhaps as memory runs out"
    return f"crashes ({name})"
