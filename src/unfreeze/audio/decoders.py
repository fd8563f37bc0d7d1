"""Files that nobody vouches for, read so that none of them can end the run.

libsndfile and its codecs are C: a damaged file can crash them, or make them loop
for ever. So they run in processes of their own, which are killed and replaced,
and the file is named. Plain WAV files, which numpy reads, are read here: no
decoder sees them, and a process would only cost time.

A file that died with its process is tried once more in a new one: an earlier file
may have spoilt the memory of the first. Never is it then read in this process,
nor is one that was read in full before: it may have changed, and what a spoilt
memory did not do once it may do the next time.
"""

import os
import sys
import threading
import time
import weakref
from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unfreeze.audio.decode import Resampler, waveform_blocks
from unfreeze.audio.limits import PATIENCE
from unfreeze.audio.mono import BLOCK
from unfreeze.audio.process import DecodeProcess, DecoderDied
from unfreeze.audio.rules import Facts, Problem, content_hash, examine, examine_sound, sound_hash
from unfreeze.audio.sound import Sound, SoundError, open_sound, plain_sound
from unfreeze.audio.worker import HARMFUL, REFUSED

_WORKER = "unfreeze.audio.worker"
# Seconds of waiting that are worth a further process: as long as it takes to start
# one on a machine that is busy.
_WORTH = 1.0
# Bytes of files that are handed over together; a file may be larger.
_TOGETHER = 1 << 20

#: The facts of a good file, and what is to be said of it.
Judged = tuple[Facts | None, list[Problem]]


@dataclass(frozen=True)
class Waveform:
    """A recording that is being decoded.

    Attributes:
        path: the file.
        sample_rate: of the file, hertz.
        promised: samples that its header promises, at that rate.
        blocks: its samples at the wanted rate, as `decode.waveform_blocks`.
        plain: the open file where it is read in this process.
    """

    path: Path
    sample_rate: int
    promised: int
    blocks: Iterator[np.ndarray]
    plain: Sound | None = None

    def content(self) -> str:
        """Return the SHA-256 of the file's bytes, in hex.

        Raises:
            OSError: it cannot be read.
        """
        return content_hash(self.path) if self.plain is None else sound_hash(self.plain)


class Decoders:
    """Processes that decode; started when they are needed. Threads may share it.

    Another one is started when threads have waited for the others for as long as it
    takes; there are never more than threads that ask. They end with `close`, at the
    end of a `with` block, or when nobody holds this object any more.

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
        """End the processes that wait; another request starts new ones."""
        with self._change:
            _close_all(self._idle)

    def examine(self, files: Iterable[tuple[Path, Path]]) -> list[Judged]:
        """Read files from end to end and judge each, as `rules.examine`.

        Args:
            files: each file, and what to call it in a problem.

        Returns:
            For each file the facts, None when it must be left out; and its problems.

        Raises:
            RunError: no process can be started.
        """
        judged: list[Judged] = []
        # Those that a process shall read: short ones go there together, as to hand one
        # over takes as long as to read it. Their places in `judged` wait for them.
        waiting: list[tuple[int, Path, Path]] = []
        size = 0
        for path, name in files:
            judged.append((None, []))
            try:
                plain = plain_sound(path)
                if plain is not None:
                    judged[-1] = examine_sound(plain, name)
                elif not _can_start():
                    judged[-1] = examine(path, name)
                else:
                    waiting.append((len(judged) - 1, path, name))
                    size += _size(path)
            except SoundError as error:
                judged[-1] = None, [Problem(name, error.rule, error.cause, True)]
            if size > _TOGETHER:
                self._examine_there(waiting, judged)
                waiting, size = [], 0
        self._examine_there(waiting, judged)
        return judged

    def _examine_there(self, files: list[tuple[int, Path, Path]], judged: list[Judged]) -> None:
        tried = -1
        while files:
            request = {"paths": [_absolute(path) for _, path, _ in files]}
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
        self, path: Path, resampler: Resampler, *, block: int = BLOCK
    ) -> Iterator[Waveform]:
        """Open a file to read its waveform block by block.

        Args:
            path: the file.
            resampler: to the wanted rate; in use until the block ends.
            block: values (samples times channels) to decode at once.

        Yields:
            The recording; its blocks raise SoundError as `decode.waveform_blocks`.

        Raises:
            SoundError: as `sound.open_sound`, or decoding crashes or hangs.
            RunError: no process can be started.
        """
        plain = plain_sound(path)
        if plain is not None:
            yield _here(plain, resampler, block)
        elif not _can_start():
            with open_sound(path) as sound:
                yield _here(sound, resampler, block)
        else:
            messages = self._decode(path, resampler.sample_rate, block)
            try:
                _, begun = next(messages)
                # The last message has no samples.
                pieces = (piece for _, piece in messages if isinstance(piece, np.ndarray))
                yield Waveform(path, begun["sample_rate"], begun["promised"], pieces)
            finally:
                messages.close()

    def _decode(
        self, path: Path, sample_rate: int, block: int
    ) -> Generator[tuple[bytes, Any], None, None]:
        """Yield what a process tells of a file; a second goes on where the first died."""
        request = {"paths": [_absolute(path)], "sample_rate": sample_rate, "block": block}
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
    """Decoders for one call: those given, which stay open, or else new ones, which end with it."""
    return Decoders() if decoders is None else nullcontext(decoders)


def _judgement(name: Path, kind: bytes, answer: dict[str, Any]) -> Judged:
    if kind == REFUSED:
        return None, [Problem(name, answer["rule"], answer["cause"], True)]
    facts = None if answer["facts"] is None else Facts(**answer["facts"])
    return facts, [Problem(name, *problem) for problem in answer["problems"]]


def _cause(death: DecoderDied) -> str:
    return f"the decoder {death}; if the file plays elsewhere, export it again"


def _here(sound: Sound, resampler: Resampler, block: int) -> Waveform:
    blocks = waveform_blocks(sound, resampler, block=block)
    return Waveform(sound.path, sound.sample_rate, sound.promised, blocks, sound)


def _absolute(path: Path) -> str:
    # The process may have been started in another folder. No link is followed.
    return os.path.abspath(path)  # noqa: PTH100


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # gone by now: the process will say so


def _can_start() -> bool:
    # A program frozen into one file would start itself again.
    return bool(sys.executable) and not getattr(sys, "frozen", False)


def _close_all(processes: list[DecodeProcess]) -> None:
    while processes:
        processes.pop().close()
