"""From the sound files of clips to their log-mel frames in the store's file.

Each clip has its place, known beforehand, so threads write in any order. Long
recordings go through in pieces and memory stays flat. Short clips are computed
and written together: one at a time they would cost twice as much.
"""

import threading
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np

from unfreeze.audio.decode import Resampler
from unfreeze.audio.decoders import Decoders, Waveform
from unfreeze.audio.frames import FrameMaker
from unfreeze.audio.manifest import Clip
from unfreeze.audio.names import show
from unfreeze.audio.patches import FLOAT
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.errors import DataError

# Patch hops computed at once from a long recording: about 30 s.
_HOPS = 64
# Frames of short clips computed and written at once: about 10 s.
_TOGETHER = 1024


class FrameWriter:
    """Writes the frames of clips at their places; threads may call it at once.

    Args:
        file: open for writing bytes.
        front_end: the settings.
        clips: of the manifest.
        offsets: (clips + 1,) int, the first row of each clip, and the end.
        decoders: to read with.
    """

    def __init__(
        self,
        file: BinaryIO,
        front_end: FrontEnd,
        clips: Sequence[Clip],
        offsets: np.ndarray,
        decoders: Decoders,
    ) -> None:
        self._file, self._front_end, self._decoders = file, front_end, decoders
        self._clips, self._offsets = clips, offsets.tolist()
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
            if end - first > _TOGETHER:
                self._write_short(short, start)
                self._write_long(number)
                short = []
                continue
            short.append(self._waveform(number))
            if end - start >= _TOGETHER:
                self._write_short(short, start)
                short = []
        self._write_short(short, start)

    def _waveform(self, number: int) -> np.ndarray:
        first, end = self._offsets[number : number + 2]
        _, resampler = self._tools()
        pieces, samples = [], 0
        with self._decoders.waveform(self._clips[number].path, resampler) as sound:
            for piece in sound.blocks:
                pieces.append(piece)
                samples += len(piece)
                if self._front_end.frames(samples) > end - first:
                    # It has grown, perhaps to what would not fit into memory.
                    break
            self._check(sound, number, first + self._front_end.frames(samples))
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _write_short(self, waveforms: list[np.ndarray], start: int) -> None:
        if waveforms:
            maker, _ = self._tools()
            self._write(maker(waveforms), start)

    def _write_long(self, number: int) -> None:
        row, end = self._offsets[number : number + 2]
        maker, resampler = self._tools()
        with self._decoders.waveform(self._clips[number].path, resampler) as sound:
            for frames in waveform_frames(sound.blocks, maker):
                # Never beyond this clip's place, should the file have grown.
                self._write(frames[: max(end - row, 0)], row)
                row += len(frames)
            self._check(sound, number, row)

    def _check(self, sound: Waveform, number: int, row: int) -> None:
        """Refuse a clip that ends before or behind `row`, or has other bytes."""
        clip = self._clips[number]
        if row != self._offsets[number + 1] or sound.content() != clip.content:
            raise DataError(
                f"{show(clip.path)} changed while it was being read. Run again when nothing "
                f"writes to the data."
            )

    def _tools(self) -> tuple[FrameMaker, Resampler]:
        """Return what only this thread uses."""
        if not hasattr(self._own, "tools"):
            front = self._front_end
            self._own.tools = FrameMaker(front), Resampler(front.sample_rate)
        tools: tuple[FrameMaker, Resampler] = self._own.tools
        return tools

    def _write(self, rows: np.ndarray, first: int) -> None:
        data = rows.astype(FLOAT, copy=False).data.cast("B")
        place = first * self._front_end.bands * FLOAT.itemsize
        with self._lock:
            self._file.seek(place)
            self._file.write(data)


def waveform_frames(blocks: Iterator[np.ndarray], maker: FrameMaker) -> Iterator[np.ndarray]:
    """Compute the log-mel frames of a waveform that comes piece by piece.

    Args:
        blocks: (samples,) float32 each, at the front end's rate.
        maker: with the settings.

    Yields:
        (n, bands) float32; together `log_mel_frames` of the whole waveform.
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
