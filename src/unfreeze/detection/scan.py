"""Turns recordings into class scores over time; decoding runs ahead of the network.

Each recording has a thread of its own, with a few at once, and only a few of its blocks wait;
so memory depends neither on the length nor on the number of the recordings. The last patches of
neighbouring recordings share batches. Two invariants, to the bit: however the samples are cut
into pieces, the frames and the patches, with their padding at the end, equal those of the whole
waveform; and whichever recording is read first, each batch holds the same patches.
"""

import functools
import queue
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from unfreeze.audio.decode import Resampler
from unfreeze.audio.decode_processes import Decoders, using
from unfreeze.audio.front_ends import cut_patches, frame_maker, patches_of
from unfreeze.audio.parallel import available_cores
from unfreeze.audio.rules import as_warnings
from unfreeze.audio.sound_file import file_size
from unfreeze.backbones.frontend import SAMPLES, FrontEnd
from unfreeze.detection.score_blocks import ScoreBlock
from unfreeze.errors import DataError
from unfreeze.pipeline.inference import all_scores, batch_size

_T = TypeVar("_T")
_R = TypeVar("_R")

# The most results per thread that wait for the reader.
_DEPTH = 2
# Seconds after which a thread that cannot deliver its result checks whether it still should.
_LOOK = 0.1

# What float32 may add to a patch of nothing.
_ROUNDING = 1e-4
# Values (samples times channels) decoded at once: 1 MiB, a few seconds of sound.
_BLOCK = 1 << 18
# Neighbours share batches: so many recordings, or so many bytes of them.
_NEIGHBOURS, _NEIGHBOURS_BYTES = 64, 1 << 24


class FrameStream:
    """Computes log-mel frames of samples that arrive piece by piece.

    Args:
        front_end: the settings. Its `patch_hop` decides how the end is padded.

    Attributes:
        samples: number taken so far.
        frames: number returned so far.
    """

    def __init__(self, front_end: FrontEnd) -> None:
        self._front_end, self._maker = front_end, frame_maker(front_end)
        self._waiting = np.zeros(0, dtype=np.float32)
        self.samples = self.frames = 0

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take samples; return the frames that they complete.

        Args:
            samples: (n,) float32, mono, at the front end's rate.

        Returns:
            (frames, frame_values) float32; may be empty.
        """
        front = self._front_end
        self.samples += len(samples)
        waiting = np.concatenate([self._waiting, samples]) if len(self._waiting) else samples
        count = max((len(waiting) - front.window) // front.hop + 1, 0)
        # A copy: a slice would keep the whole block alive.
        self._waiting = waiting[count * front.hop :].copy()
        return self._compute(waiting, count)

    def finish(self) -> np.ndarray:
        """Return the frames that are left, padded as the whole waveform's are.

        Returns:
            (frames, frame_values) float32; empty if there were no samples.
        """
        if not self.samples:
            return self._compute(self._waiting, 0)
        count = self._front_end.frames(self.samples) - self.frames
        rest, self._waiting = self._waiting, self._waiting[:0]
        needed = (count - 1) * self._front_end.hop + self._front_end.window
        return self._compute(np.pad(rest, (0, max(needed - len(rest), 0))), count)

    def _compute(self, waiting: np.ndarray, count: int) -> np.ndarray:
        front = self._front_end
        if not count:
            return np.zeros((0, front.frame_values), dtype=np.float32)
        self.frames += count
        # The maker pads its input as a whole waveform: cut that padding off.
        return self._maker([waiting[: (count - 1) * front.hop + front.window]])[:count]


@dataclass(frozen=True, eq=False)
class PatchBlock:
    """Some consecutive patches of a recording.

    Attributes:
        patches: (n, *patch_shape) float32, n from 1 to a full batch.
        starts: (n,) float64, seconds from the start of the recording.
        ends: (n,) float64, seconds; a patch that is padded ends with the recording.
    """

    patches: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    def part(self, first: int, end: int) -> "PatchBlock":
        """Patches `first` to `end`; a copy, which does not keep the others alive."""
        rows = slice(first, end)
        return PatchBlock(self.patches[rows].copy(), self.starts[rows], self.ends[rows])

    def silent(self, front_end: FrontEnd) -> np.ndarray:
        """(n,) whether a patch holds digital silence alone: not one sample other than 0."""
        nothing = _silence(front_end)
        axes = tuple(range(1, self.patches.ndim))
        # Samples are not computed, so nothing is rounded.
        rounding = 0.0 if front_end.holds == SAMPLES else _ROUNDING
        return np.asarray(np.abs(self.patches - nothing).max(axis=axes) <= rounding)


@functools.cache
def _silence(front_end: FrontEnd) -> np.ndarray:
    """A patch of digital silence."""
    nothing: np.ndarray = patches_of(np.zeros(front_end.min_samples, np.float32), front_end)[0]
    return nothing


class PatchStream:
    """Cuts samples that arrive piece by piece into patches.

    Args:
        front_end: the backbone's settings.
        hop: steps of the front end from one patch to the next, at most a patch.
    """

    def __init__(self, front_end: FrontEnd, hop: int) -> None:
        # With this hop the front end pads the end to whole hops, so the last
        # samples are always part of a patch.
        self._front_end = front_end.with_steps(hop)
        self._stream = FrameStream(self._front_end)
        self._frames = np.zeros((0, front_end.frame_values), dtype=np.float32)
        self._patches = 0

    @property
    def seconds(self) -> float:
        """Length of the sound taken so far."""
        return self._stream.samples / self._front_end.sample_rate

    def push(self, samples: np.ndarray) -> Iterator[PatchBlock]:
        """Take samples; yield the patches that they complete.

        Args:
            samples: (n,) float32, mono, at the front end's rate.
        """
        yield from self._cut(self._stream.push(samples))

    def finish(self) -> Iterator[PatchBlock]:
        """Yield the patches that are left; the last is padded."""
        yield from self._cut(self._stream.finish())

    def _cut(self, frames: np.ndarray) -> Iterator[PatchBlock]:
        front = self._front_end
        self._frames = np.concatenate([self._frames, frames]) if len(self._frames) else frames
        at, most = 0, batch_size(front)
        left = len(self._frames) - front.patch_frames
        while count := min((left - at) // front.patch_hop + 1, most):
            if count < 0:
                break
            first = at + front.patch_hop * np.arange(count)
            yield self._block(cut_patches(self._frames, first, front))
            at += count * front.patch_hop
        self._frames = self._frames[at:].copy()

    def _block(self, patches: np.ndarray) -> PatchBlock:
        front = self._front_end
        second = front.hop / front.sample_rate
        starts = (self._patches + np.arange(len(patches))) * front.patch_hop * second
        self._patches += len(patches)
        ends = np.minimum(starts + front.patch_seconds, self.seconds)
        return PatchBlock(patches, starts, ends)


@dataclass(frozen=True)
class Ended:
    """An item's iterator is over.

    Attributes:
        error: what ended it early; None if it reached its end.
    """

    error: Exception | None = None


def run_ahead(
    make: Callable[[_T], Iterator[_R]],
    items: Sequence[_T],
    workers: int,
    *,
    expected: type[Exception],
) -> Iterator[tuple[int, _R | Ended]]:
    """Iterate over what `make` gives for each item, several items at once.

    Args:
        make: called from several threads at once, each with an item.
        items: what to work on; begun in order.
        workers: threads.
        expected: errors of this kind end their own item only.

    Yields:
        An item's number with its next result, or with `Ended`; the results of
        one item come in order.

    Raises:
        Exception: any other error of an item. The threads end then, as they do
            when the caller stops iterating.
    """
    results: queue.Queue[tuple[int, _R | Ended]] = queue.Queue(_DEPTH * workers)
    stop = threading.Event()
    lock, numbers = threading.Lock(), iter(range(len(items)))

    def hand_on(result: tuple[int, _R | Ended]) -> None:
        while not stop.is_set():
            try:
                results.put(result, timeout=_LOOK)
            except queue.Full:
                continue
            return

    def work() -> None:
        while not stop.is_set():
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            ended = Ended()
            try:
                for result in make(items[number]):
                    hand_on((number, result))
                    if stop.is_set():
                        return
            except Exception as error:
                ended = Ended(error)
            hand_on((number, ended))

    threads = [
        threading.Thread(target=work, name=f"unfreeze-ahead-{i}", daemon=True)
        for i in range(min(workers, len(items)))
    ]
    for thread in threads:
        thread.start()
    try:
        left = len(items)
        while left:
            number, result = results.get()
            if isinstance(result, Ended):
                left -= 1
                if result.error is not None and not isinstance(result.error, expected):
                    raise result.error
            yield number, result
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@dataclass(frozen=True)
class Begun:
    """A recording has been opened.

    Attributes:
        sample_rate: of the file, hertz.
        seconds: its length by its header, which may be wrong.
    """

    sample_rate: int
    seconds: float


@dataclass(frozen=True)
class Read:
    """A recording has been read to its end.

    Attributes:
        warnings: what is wrong with it, a clause each.
    """

    warnings: tuple[str, ...]


#: What `scan_files` yields of a recording, in this order; some blocks, and `Ended` at the end.
Item = Begun | ScoreBlock | Read | Ended


class Scan(Protocol):
    """Scores recordings somewhere else, as `scan_files` does here."""

    def __call__(
        self, paths: Sequence[Path], hop: int, groups: Sequence[range] | None = None
    ) -> Iterator[tuple[int, Item]]:
        """Score the patches of many recordings; arguments and results are those of `scan_files`."""


def scan_file(
    model: Any, front_end: FrontEnd, path: Path, hop: int, decoders: Decoders | None = None
) -> Iterator[ScoreBlock]:
    """Score the patches of one recording, in constant memory.

    Args:
        model: patches to probabilities.
        front_end: the backbone's settings.
        path: the recording.
        hop: steps of the front end from one patch to the next.
        decoders: to read with; None starts some for this call.

    Yields:
        Blocks of up to a full batch of patches, in order.

    Raises:
        DataError: the file cannot be read; raised when reading reaches the damage.
    """
    for _, found in scan_files(model, front_end, [path], hop, decoders=decoders):
        if isinstance(found, ScoreBlock):
            yield found
        elif isinstance(found, Ended) and found.error is not None:
            raise found.error


def neighbours(paths: Sequence[Path]) -> list[range]:
    """Group recordings whose last patches share batches.

    A network's result for a patch may depend, in the last digit, on its place in a batch and
    on the batch's size. So which patches share a batch must not be a matter of chance. A group
    depends on its own recordings only: without some of the other groups it stays the same.

    Args:
        paths: the recordings, in order.

    Returns:
        The numbers of each group's recordings, in order.
    """
    groups, first, size = [], 0, 0
    for number, path in enumerate(paths):
        size += file_size(path)
        if size >= _NEIGHBOURS_BYTES or number + 1 - first == _NEIGHBOURS:
            groups.append(range(first, number + 1))
            first, size = number + 1, 0
    return [*groups, range(first, len(paths))] if first < len(paths) else groups


def with_neighbours(paths: Sequence[Path], wanted: Collection[Path]) -> list[Path]:
    """Return those of `paths` that must be scanned for `wanted` to have the same scores again."""
    return [
        paths[number]
        for group in neighbours(paths)
        if any(paths[number] in wanted for number in group)
        for number in group
    ]


def scan_files(
    model: Any,
    front_end: FrontEnd,
    paths: Sequence[Path],
    hop: int,
    *,
    workers: int | None = None,
    decoders: Decoders | None = None,
    groups: Sequence[range] | None = None,
    scan: Scan | None = None,
) -> Iterator[tuple[int, Item]]:
    """Score the patches of many recordings, several at once.

    Args:
        model: patches to probabilities.
        front_end: the backbone's settings.
        paths: the recordings.
        hop: steps of the front end from one patch to the next.
        workers: files that are decoded at once; None takes one per core.
        decoders: to read with; None starts some for this call.
        groups: the numbers of recordings whose last patches share batches; None for those
            of `neighbours`.
        scan: what scores them instead, with a model of its own; None scores them here.

    Yields:
        The number of a recording with `Begun`, then with each of its blocks and `Read`,
        then with `Ended` (only that for a file that cannot be opened). Blocks of one
        recording come in order; those of several recordings may mix. A recording's last
        block comes with those of its `neighbours`.
    """
    if scan is not None:
        yield from scan(paths, hop, groups)
        return
    together = neighbours(paths) if groups is None else groups
    group_of = {number: group for group in together for number in group}
    last: dict[int, list[PatchBlock]] = {}
    ended: dict[int, Ended] = {}
    full = batch_size(front_end)
    with using(decoders) as reading:

        def read(path: Path) -> Iterator[Begun | PatchBlock | Read]:
            return _in_full_blocks(read_patches(path, front_end, hop, reading), full)

        stream = run_ahead(read, paths, workers or available_cores(), expected=DataError)
        for number, item in stream:
            if isinstance(item, Ended):
                ended[number] = item
            elif not isinstance(item, PatchBlock):
                yield number, item
            elif len(item.starts) == full:
                yield from _score(model, [(number, item)], front_end)
            else:
                last[number] = [item]
            group = group_of[number]
            if isinstance(item, Ended) and all(member in ended for member in group):
                blocks = [(member, block) for member in group for block in last.pop(member, ())]
                yield from _score(model, blocks, front_end)
                for member in group:
                    yield member, ended.pop(member)


def _in_full_blocks(
    items: Iterator[Begun | PatchBlock | Read], full: int
) -> Iterator[Begun | PatchBlock | Read]:
    """Join blocks to `full` patches each; the last has what is left, also before an error."""
    waiting: list[PatchBlock] = []
    try:
        for item in items:
            if not isinstance(item, PatchBlock):
                yield item
                continue
            waiting.append(item)
            while sum(len(block.starts) for block in waiting) >= full:
                joined = _joined(waiting)
                yield joined.part(0, full)
                waiting = [joined.part(full, len(joined.starts))]
    except DataError:
        yield from _rest(waiting)
        raise
    yield from _rest(waiting)


def _rest(waiting: list[PatchBlock]) -> Iterator[PatchBlock]:
    joined = _joined(waiting) if waiting else None
    if joined is not None and len(joined.starts):
        yield joined


def _joined(blocks: list[PatchBlock]) -> PatchBlock:
    if len(blocks) == 1:
        return blocks[0]
    return PatchBlock(
        np.concatenate([block.patches for block in blocks]),
        np.concatenate([block.starts for block in blocks]),
        np.concatenate([block.ends for block in blocks]),
    )


def read_patches(
    path: Path, front_end: FrontEnd, hop: int, decoders: Decoders
) -> Iterator[Begun | PatchBlock | Read]:
    """Read the patches of a recording, block by block.

    Args:
        path: the recording.
        front_end: the backbone's settings.
        hop: steps of the front end from one patch to the next.
        decoders: to read with.

    Yields:
        `Begun`, then blocks of patches, in order, and `Read`.

    Raises:
        SoundError: (a DataError) the file cannot be decoded.
    """
    stream = PatchStream(front_end, hop)
    hears = front_end.high_hz / front_end.slow_down
    resampler = Resampler(front_end.sample_rate, front_end.channel, hears)
    with decoders.waveform(path, resampler, block=_BLOCK, judge=True) as sound:
        yield Begun(sound.sample_rate, sound.promised / sound.sample_rate)
        for samples in sound.blocks:
            yield from stream.push(samples)
        yield Read(as_warnings(sound.findings, front_end.slow_down))
    yield from stream.finish()


def _score(
    model: Any, blocks: list[tuple[int, PatchBlock]], front_end: FrontEnd
) -> Iterator[tuple[int, ScoreBlock]]:
    if not blocks:
        return
    scores = all_scores(model, np.concatenate([block.patches for _, block in blocks]))
    at = 0
    for number, block in blocks:
        mine = scores[at : at + len(block.starts)]
        at += len(block.starts)
        yield number, ScoreBlock(block.starts, mine, block.ends, block.silent(front_end))
