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
import weakref
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unfreeze.audio.decode import Resampler, waveform_blocks
from unfreeze.audio.limits import PATIENCE
from unfreeze.audio.process import DecodeProcess, DecoderDied
from unfreeze.audio.rules import Facts, Problem, content_hash, examine_sound, sound_hash
from unfreeze.audio.sound import BLOCK, Sound, SoundError, open_sound, plain_sound
from unfreeze.audio.worker import HARMFUL, REFUSED

_WORKER = "unfreeze.audio.worker"


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

    There are as many as threads have asked at once. They end with `close`, at the
    end of a `with` block, or when nobody holds this object any more.

    Args:
        patience: seconds without a sample after which decoding counts as hung.
        module: what the processes run.
    """

    def __init__(self, *, patience: float = PATIENCE, module: str = _WORKER) -> None:
        self._patience, self._module = patience, module
        self._idle: list[DecodeProcess] = []
        self._lock = threading.Lock()
        self._owner = os.getpid()
        weakref.finalize(self, _close_all, self._idle)

    def __enter__(self) -> "Decoders":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes that wait; another request starts new ones."""
        with self._lock:
            _close_all(self._idle)

    def examine(self, path: Path, name: Path) -> tuple[Facts | None, list[Problem]]:
        """Read one file from end to end and judge it, as `rules.examine`.

        Args:
            path: the file.
            name: what to call it in a problem.

        Returns:
            The facts, None when the file must be left out; and its problems.

        Raises:
            RunError: no process can be started.
        """
        try:
            plain = plain_sound(path)
            if plain is not None:
                return examine_sound(plain, name)
            if not _can_start():
                with open_sound(path) as sound:
                    return examine_sound(sound, name)
            ((_, answer),) = self._ask(path, {})
        except SoundError as error:
            return None, [Problem(name, error.rule, error.cause, True)]
        facts = None if answer["facts"] is None else Facts(**answer["facts"])
        return facts, [Problem(name, *problem) for problem in answer["problems"]]

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
            request = {"sample_rate": resampler.sample_rate, "block": block}
            messages = self._ask(path, request)
            try:
                _, begun = next(messages)
                # The last message has no samples.
                pieces = (piece for _, piece in messages if isinstance(piece, np.ndarray))
                yield Waveform(path, begun["sample_rate"], begun["promised"], pieces)
            finally:
                messages.close()

    def _ask(self, path: Path, request: dict[str, Any]) -> Generator[tuple[bytes, Any], None, None]:
        """Yield a process' messages on a file; a second process goes on where a first died."""
        request = {"path": os.path.abspath(path), **request}  # noqa: PTH100 (follows no link)
        passed = 0
        for last in (False, True):
            process = self._take()
            try:
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
                    cause = f"the decoder {death}; if it plays elsewhere, export it again"
                    raise SoundError(path, HARMFUL, cause) from None
            finally:
                self._give_back(process)

    def _take(self) -> DecodeProcess:
        with self._lock:
            if self._owner != os.getpid():
                # A fork: the processes are our parent's.
                self._idle.clear()
                self._owner = os.getpid()
            if self._idle:
                return self._idle.pop()
        return DecodeProcess(self._module, self._patience)

    def _give_back(self, process: DecodeProcess) -> None:
        if not process.idle:
            process.close()
            return
        with self._lock:
            self._idle.append(process)


def _here(sound: Sound, resampler: Resampler, block: int) -> Waveform:
    blocks = waveform_blocks(sound, resampler, block=block)
    return Waveform(sound.path, sound.sample_rate, sound.promised, blocks, sound)


def _can_start() -> bool:
    # A program frozen into one file would start itself again.
    return bool(sys.executable) and not getattr(sys, "frozen", False)


def _close_all(processes: list[DecodeProcess]) -> None:
    while processes:
        processes.pop().close()
