"""Computes the frames of clips and writes each at its place in a file of frames.

The manifest gives all lengths, so each clip's place is known before it is read: threads,
processes and machines write in any order, and the bytes are the same.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from unfreeze.audio.decode import Resampler
from unfreeze.audio.decode_processes import Waveform
from unfreeze.audio.front_ends import Maker, frame_maker
from unfreeze.audio.patches import FLOAT
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.errors import DataError, show

# Patch hops computed at once from a long recording: about 30 s.
_HOPS = 64
# Values of short clips computed and written at once: YAMNet's frames of about 10 s. One
# clip at a time would cost twice as much.
_TOGETHER = 1024 * 64


class Reader(Protocol):
    """Reads waveforms, as `unfreeze.audio.decode_processes.Decoders` does."""

    def waveform(self, path: Path, resampler: Resampler) -> AbstractContextManager[Waveform]:
        """Open a file to read its waveform block by block."""


class FrameWriter:
    """Writes the frames of clips at their places; threads may call it at once.

    Args:
        file: open for writing bytes.
        front_end: the settings.
        clips: the file of each clip, and the SHA-256 of its bytes, in hex.
        offsets: the first row of each clip, and the end.
        reader: to read with.

    Attributes:
        front_end: the settings.
    """

    def __init__(
        self,
        file: BinaryIO,
        front_end: FrontEnd,
        clips: Sequence[tuple[Path, str]],
        offsets: Sequence[int],
        reader: Reader,
    ) -> None:
        self.front_end = front_end
        self._file, self._reader = file, reader
        self._clips, self._offsets = clips, offsets
        self._together = max(_TOGETHER // front_end.frame_values, 1)
        self._lock = threading.Lock()
        self._own = threading.local()

    def __call__(self, numbers: Iterator[int]) -> None:
        """Write some clips.

        Args:
            numbers: of consecutive clips.

        Raises:
            DataError: a file changed or vanished since the manifest was read.
        """
        short: list[np.ndarray] = []
        start = 0
        for number in numbers:
            first, end = self._offsets[number : number + 2]
            if not short:
                start = first
            if end - first > self._together:
                self._write_short(short, start)
                self._write_long(number)
                short = []
                continue
            short.append(self._waveform(number))
            if end - start >= self._together:
                self._write_short(short, start)
                short = []
        self._write_short(short, start)

    def _waveform(self, number: int) -> np.ndarray:
        first, end = self._offsets[number : number + 2]
        _, resampler = self._tools()
        pieces, samples = [], 0
        with self._reader.waveform(self._clips[number][0], resampler) as sound:
            for piece in sound.blocks:
                pieces.append(piece)
                samples += len(piece)
                if self.front_end.frames(samples) > end - first:
                    # It has grown, perhaps to what would not fit into memory.
                    break
            self._check(sound, number, first + self.front_end.frames(samples))
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _write_short(self, waveforms: list[np.ndarray], start: int) -> None:
        if waveforms:
            maker, _ = self._tools()
            self._write(maker(waveforms), start)

    def _write_long(self, number: int) -> None:
        row, end = self._offsets[number : number + 2]
        maker, resampler = self._tools()
        with self._reader.waveform(self._clips[number][0], resampler) as sound:
            for frames in waveform_frames(sound.blocks, maker):
                # Never beyond this clip's place, should the file have grown.
                self._write(frames[: max(end - row, 0)], row)
                row += len(frames)
            self._check(sound, number, row)

    def _check(self, sound: Waveform, number: int, row: int) -> None:
        """Refuse a clip that ends before or after `row`, or has other bytes."""
        path, content = self._clips[number]
        if row != self._offsets[number + 1] or sound.content() != content:
            raise DataError(
                f"{show(path)} changed while it was being read. Run again when no other "
                f"program writes to the data."
            )

    def _tools(self) -> tuple[Maker, Resampler]:
        """Return the frame maker and the resampler of this thread."""
        if not hasattr(self._own, "tools"):
            front = self.front_end
            self._own.tools = frame_maker(front), Resampler(front.sample_rate, front.channel)
        tools: tuple[Maker, Resampler] = self._own.tools
        return tools

    def _write(self, rows: np.ndarray, first: int) -> None:
        data = rows.astype(FLOAT, copy=False).data.cast("B")
        place = first * self.front_end.frame_values * FLOAT.itemsize
        with self._lock:
            self._file.seek(place)
            self._file.write(data)


def waveform_frames(blocks: Iterator[np.ndarray], maker: Maker) -> Iterator[np.ndarray]:
    """Compute the frames of a waveform that comes piece by piece.

    Args:
        blocks: (samples,) float32 each, at the front end's rate.
        maker: with the settings.

    Yields:
        (n, frame_values) float32; together `frames_of` the whole waveform.
    """
    front = maker.front_end
    step = _HOPS * front.patch_hop
    samples = front.padded_samples(step * front.hop + front.window)
    waiting = np.zeros(0, dtype=np.float32)
    for block in blocks:
        waiting = np.concatenate([waiting, block]) if len(waiting) else block
        # What stays behind must be long enough not to be padded as a short clip.
        while len(waiting) >= samples + front.min_samples:
            yield maker([waiting[:samples]])[:step]
            waiting = waiting[step * front.hop :]
    yield maker([waiting])
