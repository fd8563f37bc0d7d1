"""Reads formats that libsndfile does not know through ffmpeg, where it is installed.

ffmpeg runs as a process of its own, started by the process that decodes. It gets one file
and the name of its format, which was found by content; it may open nothing else (no
network, no lists of other files), has no standard input, and writes samples to a pipe. It is
ended when it gives nothing for a while; on Linux also when it takes too much processor time
or memory.
"""

import contextlib
import math
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from unfreeze.audio.wav import WavError, is_readable, read_wav_start

PROGRAM = "ffmpeg"
# Bytes of its messages that are kept.
_SAID = 2_000
# Seconds without any samples after which it is ended: less than the process that
# decodes is given.
_PATIENCE = 30.0
_PREFIX = re.compile(r"^\[[^\]]*\] *")
# From here on a length means "unknown", as libsndfile has it.
_ENDLESS = (1 << 63) - 1


class FfmpegError(Exception):
    """ffmpeg cannot decode a file; the message is what it says."""


def find_ffmpeg() -> str | None:
    """Return where ffmpeg is; None where it is not installed."""
    return shutil.which(PROGRAM)


class FfmpegReader:
    """Reads forwards, as the part of `soundfile.SoundFile` that is needed here.

    Args:
        program: from `find_ffmpeg`.
        path: the file.
        kind: ffmpeg's name of its format.
        seconds: of processor time that it may take.
        memory: bytes that it may hold.

    Raises:
        FfmpegError: it cannot be started, or finds no sound.
    """

    format, subtype, frames = "FFMPEG", "FLOAT", _ENDLESS

    def __init__(self, program: str, path: Path, kind: str, seconds: float, memory: int) -> None:
        self._said, self._path = b"", path
        self._deadline, self._hung = math.inf, False
        self._over = threading.Event()
        try:
            self._process = subprocess.Popen(
                _command(program, path, kind),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except OSError as error:
            raise FfmpegError(error.strerror or str(error)) from error
        _limit(self._process.pid, seconds, memory)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._out = self._process.stdout
        self._threads = [
            threading.Thread(target=self._hear, args=(self._process.stderr,), daemon=True),
            threading.Thread(target=self._watch, daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        try:
            with self._waiting():
                start = read_wav_start(self._out.read, _skipper(self._out.read))
        except WavError:
            self.close()
            raise FfmpegError(self._message()) from None
        if not is_readable(start.format) or start.format.bits != 32 or start.format.codec != 3:
            self.close()
            raise FfmpegError("it gives no floats")
        self.samplerate, self.channels = start.format.sample_rate, start.format.channels

    def read(self, out: np.ndarray) -> np.ndarray:
        """Fill (samples, channels) float32; return the part filled.

        Raises:
            FfmpegError: the process was ended before its own end.
        """
        view = out.data.cast("B")
        with self._waiting():
            # Buffered: it reads until all is there, or the end.
            done: int = self._out.readinto(view)  # type: ignore[attr-defined]
        if done < len(view) and self._process.wait(_PATIENCE) < 0:
            raise FfmpegError("it hangs" if self._hung else "it takes too much time or memory")
        return out[: done // (4 * self.channels)]

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._over.set()
        self._process.kill()
        self._process.wait()
        for thread in self._threads:
            thread.join(timeout=5)
        self._out.close()

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        """The clock runs only while we wait for samples."""
        self._deadline = time.monotonic() + _PATIENCE
        try:
            yield
        finally:
            self._deadline = math.inf

    def _watch(self) -> None:
        while not self._over.wait(min(_PATIENCE / 4, 1.0)):
            if time.monotonic() > self._deadline:
                self._hung = True
                self._process.kill()

    def _hear(self, errors: IO[bytes]) -> None:
        # All of it is read, so that the process never waits; the beginning is kept.
        with errors, contextlib.suppress(OSError, ValueError):
            while said := errors.read1(4096):  # type: ignore[attr-defined]
                self._said = (self._said + said)[:_SAID]

    def _message(self) -> str:
        if self._hung:
            return f"it sent nothing for {_PATIENCE:g} s"
        # Not the place of the file, which is told with its name.
        said = self._said.replace(b"file:" + os.fsencode(self._path) + b": ", b"")
        lines = said.decode("utf-8", "replace").strip().splitlines()
        # "[mov @ 0x55d9ce] moov atom not found": the first is the cause of the others.
        told = [_PREFIX.sub("", line).strip() for line in lines]
        first = next(filter(None, told), f"it ends with code {self._process.returncode}")
        if "matches no streams" in first:
            return "it has no sound track"
        return "".join(c if c.isprintable() else "?" for c in first)[:200].rstrip(".")


def _command(program: str, path: Path, kind: str) -> list[str | bytes]:
    # "file:" keeps a name like "http:..." a name.
    name: str | bytes = f"file:{path}" if os.name == "nt" else b"file:" + os.fsencode(path)
    return [
        *(program, "-nostdin", "-hide_banner", "-loglevel", "error", "-threads", "1"),
        *("-protocol_whitelist", "file,pipe", "-f", kind, "-i", name),
        *("-map", "0:a:0", "-map_metadata", "-1", "-c:a", "pcm_f32le", "-f", "wav", "pipe:1"),
    ]


def _skipper(read: Callable[[int], bytes]) -> Callable[[int], object]:
    def skip(count: int) -> None:
        while count > 0 and (data := read(min(count, 1 << 16))):
            count -= len(data)

    return skip


def _limit(process: int, seconds: float, memory: int) -> None:
    try:
        from resource import RLIMIT_CPU, RLIMIT_DATA, prlimit
    except ImportError:
        return  # only Linux limits another process
    for what, most in ((RLIMIT_CPU, int(seconds) + 1), (RLIMIT_DATA, memory)):
        # It may have ended already.
        with contextlib.suppress(OSError, ValueError):
            _, hard = prlimit(process, what)
            soft = most if hard < 0 else min(most, hard)
            prlimit(process, what, (soft, hard))
