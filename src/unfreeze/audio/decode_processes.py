"""Decodes files that may be damaged in processes of their own, which may crash.

libsndfile and its codecs are C: a damaged file can crash them or make them loop for ever.
So they run in processes of their own, which are killed and replaced, and the error names
the file. Plain WAV files are read in this process, by numpy and without a decoder.

A file whose process died is tried once more in a new one, because an earlier file may have
damaged the memory of the first. Invariant: it is never read in this process afterwards, even
if it was once read in full, because it may have changed since. Only a program that cannot
start others (one frozen into a single file) reads everything in its own process.
"""

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

import unfreeze
from unfreeze.audio.decode import BLOCK, Resampler, waveform_blocks
from unfreeze.audio.decode_worker import ALIVE, BEGUN, DONE, HARMFUL, HEAD, PIECE, READY, REFUSED
from unfreeze.audio.hearing import HIGHEST_HEARD
from unfreeze.audio.rules import (
    Extent,
    Facts,
    Finding,
    Problem,
    content_hash,
    examine,
    examine_sound,
    sound_hash,
)
from unfreeze.audio.sound_file import (
    PATIENCE,
    Sound,
    SoundError,
    file_size,
    open_sound,
    plain_sound,
)
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

_WORKER = "unfreeze.audio.decode_worker"
# Seconds of waiting that justify another process: as long as it takes to start
# one on a machine that is busy.
_WORTH = 1.0
# Bytes of files that are handed over together; a file may be larger.
_TOGETHER = 1 << 20

#: The facts of a good file, None for a bad one; and its problems.
Judged = tuple[Facts | None, list[Problem]]


class DecoderDied(Exception):
    """The process is gone; the message continues "the decoder ...".

    Attributes:
        hung: whether it was killed because it stopped responding.
    """

    def __init__(self, message: str, hung: bool) -> None:
        super().__init__(message)
        self.hung = hung


class DecodeProcess:
    """A process that runs `unfreeze.audio.decode_worker`. One thread at a time may use it.

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
            request: plain values; see `unfreeze.audio.decode_worker`. It is for one file,
                unless it has `paths`.

        Yields:
            Messages except signs of life: the kind, and what came with it. The messages
            about a file end with DONE or REFUSED.

        Raises:
            DecoderDied: it died, or was killed because it hung.
        """
        self.idle = False
        try:
            self._in.write(json.dumps(request).encode("ascii") + b"\n")
            self._in.flush()
        except OSError:
            raise self._death() from None
        left = len(request["paths"]) if "paths" in request else 1
        while left:
            kind, rest = self._message(self._patience)
            if kind != ALIVE:
                left -= kind in (DONE, REFUSED)
                self.idle = not left
                yield kind, rest

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._over.set()
        if os.getpid() != self._owner:
            return  # this is a fork: the process belongs to the parent
        self._process.kill()
        self._process.wait()
        self._out.close()
        try:
            self._in.close()
        except OSError:
            return  # a request that the process never read

    def _message(self, patience: float) -> tuple[bytes, Any]:
        # The clock runs only here: between messages the caller may take its time.
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
            raise DecoderDied("gives an invalid answer", False) from None
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
            return DecoderDied("stops responding", False)
        if self._hung:
            return DecoderDied(f"hangs: it sent nothing for {self._patience:g} s", True)
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
        return "takes too long"
    if name == "SIGKILL":
        return "is killed by the system, perhaps because memory ran out"
    return f"crashes ({name})"


@dataclass(frozen=True)
class Waveform:
    """A recording that is being decoded.

    Attributes:
        path: the file.
        sample_rate: of the file, hertz.
        promised: samples that its header promises, at that rate.
        blocks: its samples at the wanted rate, as `decode.waveform_blocks`.
        findings: what breaks a rule (`rules.Finding`), if that was asked for; filled at the
            end of the blocks.
        plain: the open file where it is read in this process.
    """

    path: Path
    sample_rate: int
    promised: int
    blocks: Iterator[np.ndarray]
    findings: list[Finding]
    plain: Sound | None = None

    def content(self) -> str:
        """Return the SHA-256 of the file's bytes, in hex.

        Raises:
            OSError: it cannot be read.
        """
        return content_hash(self.path) if self.plain is None else sound_hash(self.plain)


class Decoders:
    """Processes that decode; started when they are needed. Threads may share it.

    Another process is started once threads have waited as long as starting one takes;
    there are never more of them than threads that ask. They end with `close`, at the
    end of a `with` block, or when this object is garbage-collected.

    Args:
        patience: seconds without a sample after which decoding counts as hung.
        module: what the processes run.
    """

    def __init__(self, *, patience: float = PATIENCE, module: str = _WORKER) -> None:
        self._patience, self._module = patience, module
        self._idle: list[DecodeProcess] = []
        self._change = threading.Condition()
        # Files in hand, and the seconds that threads have waited for one of them.
        self._running, self._waited = 0, 0.0
        self._owner = os.getpid()
        weakref.finalize(self, _close_all, self._idle)

    def __enter__(self) -> "Decoders":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the idle processes; another request starts new ones."""
        with self._change:
            _close_all(self._idle)

    def examine(
        self,
        files: Iterable[tuple[Path, Path]],
        channel: int = 0,
        hears: float = HIGHEST_HEARD,
    ) -> list[Judged]:
        """Read files from end to end and judge each, as `rules.examine`.

        Args:
            files: each file, and what to call it in a problem.
            channel: as for `rules.examine`.
            hears: as for `rules.examine`.

        Returns:
            For each file the facts, None when it must be left out; and its problems.

        Raises:
            RunError: no process can be started.
        """
        judged: list[Judged] = []
        # Files for a process: short ones are handed over together, because handing one
        # over takes as long as reading it. Their places in `judged` are filled later.
        waiting: list[tuple[int, Path, Path]] = []
        size = 0
        for path, name in files:
            judged.append((None, []))
            try:
                plain = plain_sound(path)
                if plain is not None:
                    plain.take(channel)
                    judged[-1] = examine_sound(plain, name, hears=hears)
                elif not can_start():
                    judged[-1] = examine(path, name, channel=channel, hears=hears)
                else:
                    waiting.append((len(judged) - 1, path, name))
                    size += file_size(path)
            except SoundError as error:
                judged[-1] = None, [Problem(name, error.rule, error.cause, True)]
            if size > _TOGETHER:
                self._examine_there(waiting, judged, channel, hears)
                waiting, size = [], 0
        self._examine_there(waiting, judged, channel, hears)
        return judged

    def _examine_there(
        self,
        files: list[tuple[int, Path, Path]],
        judged: list[Judged],
        channel: int,
        hears: float,
    ) -> None:
        tried = -1
        while files:
            paths = [_absolute(path) for _, path, _ in files]
            request: dict[str, Any] = {"paths": paths, "channel": channel, "hears": hears}
            try:
                with self._process() as process:
                    for kind, rest in process.ask(request):
                        number, _, name = files.pop(0)
                        judged[number] = _judgement(name, kind, rest)
            except DecoderDied as death:
                number, _, name = files[0]
                if number == tried or death.hung:
                    del files[0]
                    judged[number] = None, [Problem(name, HARMFUL, _cause(death), True)]
                tried = number

    @contextmanager
    def waveform(
        self, path: Path, resampler: Resampler, *, block: int = BLOCK, judge: bool = False
    ) -> Iterator[Waveform]:
        """Open a file to read its waveform block by block.

        Args:
            path: the file.
            resampler: to the wanted rate; in use until the block ends.
            block: values (samples times channels) to decode at once.
            judge: find out what breaks a rule, too.

        Yields:
            The recording; its blocks raise SoundError as `decode.waveform_blocks`.

        Raises:
            SoundError: as `sound_file.open_sound`; or decoding crashes or hangs.
            RunError: no process can be started.
        """
        plain = plain_sound(path)
        if plain is not None:
            yield waveform_here(plain, resampler, block, judge)
        elif not can_start():
            with open_sound(path) as sound:
                yield waveform_here(sound, resampler, block, judge)
        else:
            messages = self._decode(path, resampler, block, judge)
            try:
                _, begun = next(messages)
                findings: list[Finding] = []
                pieces = _pieces(messages, findings)
                yield Waveform(path, begun["sample_rate"], begun["promised"], pieces, findings)
            finally:
                messages.close()

    def _decode(
        self, path: Path, resampler: Resampler, block: int, judge: bool
    ) -> Generator[tuple[bytes, Any], None, None]:
        """Yield what a process reports of a file; a second continues where the first died."""
        request = {
            "paths": [_absolute(path)],
            "channel": resampler.channel,
            "hears": resampler.hears,
            "sample_rate": resampler.sample_rate,
            "block": block,
            "judge": judge,
        }
        passed = 0
        for last in (False, True):
            try:
                with self._process() as process:
                    for number, (kind, rest) in enumerate(process.ask(request)):
                        if kind == REFUSED:
                            raise SoundError(path, rest["rule"], rest["cause"])
                        # Decoding twice gives the same blocks.
                        if number == passed:
                            passed += 1
                            yield kind, rest
                return
            except DecoderDied as death:
                if last or death.hung:
                    raise SoundError(path, HARMFUL, _cause(death)) from None

    @contextmanager
    def _process(self) -> Iterator[DecodeProcess]:
        process = self._take()
        try:
            yield process
        finally:
            if not process.idle:
                process.close()
            with self._change:
                self._running -= 1
                if process.idle:
                    self._idle.append(process)
                self._change.notify()

    def _take(self) -> DecodeProcess:
        with self._change:
            if self._owner != os.getpid():
                # A fork: the processes are our parent's.
                self._idle.clear()
                self._owner, self._running = os.getpid(), 0
            began = time.monotonic()
            while self._running and not self._idle and self._waited < _WORTH:
                self._change.wait(_WORTH - self._waited)
                now = time.monotonic()
                self._waited, began = self._waited + now - began, now
            self._running += 1
            if self._idle:
                return self._idle.pop()
        try:
            return DecodeProcess(self._module, self._patience)
        except BaseException:
            with self._change:
                self._running -= 1
            raise


def using(decoders: Decoders | None) -> AbstractContextManager[Decoders]:
    """Decoders for one call: those given, which stay open, or new ones that end with the call."""
    return Decoders() if decoders is None else nullcontext(decoders)


def _judgement(name: Path, kind: bytes, answer: dict[str, Any]) -> Judged:
    if kind == REFUSED:
        return None, [Problem(name, answer["rule"], answer["cause"], True)]
    facts = None if answer["facts"] is None else Facts(**answer["facts"])
    return facts, [Problem(name, *problem) for problem in answer["problems"]]


def _cause(death: DecoderDied) -> str:
    return f"the decoder {death}; if the file plays elsewhere, export it again"


def waveform_here(
    sound: Sound, resampler: Resampler, block: int = BLOCK, judge: bool = False
) -> Waveform:
    """The waveform of an open file, decoded in this process as it is read.

    Args:
        sound: from `open_sound` or `plain_sound`.
        resampler: as for `Decoders.waveform`; so are the others.
        block: values to decode at once.
        judge: find out what breaks a rule, too.
    """
    sound.take(resampler.channel)
    extent, findings = Extent(sound, resampler.hears), list[Finding]()

    def blocks() -> Iterator[np.ndarray]:
        watch = extent.add if judge else None
        yield from waveform_blocks(sound, resampler, block=block, watch=watch)
        if judge:
            findings.extend(extent.judge())

    return Waveform(sound.path, sound.sample_rate, sound.promised, blocks(), findings, sound)


def _pieces(messages: Iterable[tuple[bytes, Any]], findings: list[Finding]) -> Iterator[np.ndarray]:
    for kind, rest in messages:
        if kind == PIECE:
            yield rest
        elif kind == DONE:
            findings += [(rule, cause, fatal) for rule, cause, fatal in rest["findings"]]


def _absolute(path: Path) -> str:
    # The process may have been started in another folder. No link is followed.
    return os.path.abspath(path)  # noqa: PTH100


def can_start() -> bool:
    """Whether this program can start processes."""
    # A program frozen into one file would start itself again.
    return bool(sys.executable) and not getattr(sys, "frozen", False)


def _close_all(processes: list[DecodeProcess]) -> None:
    while processes:
        processes.pop().close()
