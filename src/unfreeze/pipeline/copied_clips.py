"""Copies of a recording under other names: in another format, at another level, cut differently.

Clips that the network hears as alike are compared sample by sample: the normalized
cross-correlation of two copies is nearly 1 at some shift, that of two recordings of the same
thing is not. (MP3s of recordings had 0.965 or more, copies at half the level without their
start 0.997; of different spoken digits that are alike, the highest was 0.91.) Copies in two
parts of a split make its test worthless, so only those in different groups are looked for.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from unfreeze.audio.decode import Resampler
from unfreeze.audio.decode_processes import Decoders
from unfreeze.audio.manifest import Clip
from unfreeze.audio.sound_file import SoundError
from unfreeze.backbones.frontend import FrontEnd

#: Normalized cross-correlation from which two clips are copies.
COPY = 0.95
# Of each clip, so many of the clips most like it are compared with it, if their cosine is
# at least this.
_CANDIDATES, _ALIKE = 2, 0.4
# Seconds of each clip that are compared, and the part of the shorter one that must overlap,
# in length and in energy.
_SECONDS, _OVERLAP = 10.0, 0.5
# Waveforms that are kept; rows of similarities at once.
_KEPT, _ROWS = 256, 512


def find_copies(
    clips: Sequence[Clip],
    features: np.ndarray,
    groups: np.ndarray,
    front_end: FrontEnd,
    progress: Callable[[int, int], None] | None = None,
) -> list[tuple[int, ...]]:
    """Find copies among clips that are whole recordings.

    Args:
        clips: to compare.
        features: (clips, numbers) a description of each.
        groups: (clips,) the number of each clip's group.
        front_end: gives the rate and the channel.
        progress: called as progress(done, total) with counts of pairs.

    Returns:
        Sets of positions of copies, the largest first; clips that cannot be read are in none.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    whole = np.flatnonzero([clip.start is None for clip in clips])
    if len(whole) < 2:
        return []
    pairs = whole[alike(features[whole], groups[whole])]
    kept: dict[int, np.ndarray] = {}
    found = []
    with Decoders() as decoders:
        for done, (one, other) in enumerate(pairs.tolist(), start=1):
            for number in (one, other):
                if number not in kept:
                    kept[number] = _read(clips[number], front_end, decoders)
            if correlation(kept[one], kept[other]) >= COPY:
                found.append((one, other))
            while len(kept) > _KEPT:
                del kept[next(iter(kept))]
            if progress is not None:
                progress(done, len(pairs))
    rows, columns = np.array(found, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(clips), len(clips)))
    _, of = connected_components(graph, directed=False)
    sets = [tuple(np.flatnonzero(of == one).tolist()) for one in np.unique(of[rows])]
    return sorted(sets, key=lambda one: (-len(one), one))


def alike(features: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Pairs of clips of different groups that may be copies.

    Args:
        features: (clips, numbers).
        groups: (clips,) the number of each clip's group.

    Returns:
        (pairs, 2) positions, each pair once, in the order of the first.
    """
    pairs = set[tuple[int, int]]()
    for row, own in cosines(features, groups):
        nearest = np.argsort(-own, kind="stable")[:_CANDIDATES].tolist()
        pairs |= {(min(row, n), max(row, n)) for n in nearest if own[n] >= _ALIKE}
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)


def cosines(features: np.ndarray, groups: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Compare each clip with all others.

    Args:
        features: (clips, numbers).
        groups: (clips,) the number of each clip's group.

    Yields:
        The position of each clip, and (clips,) its cosine to every clip; minus infinity for
        those of its own group.
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    for at in range(0, len(unit), _ROWS):
        for row, own in enumerate(unit[at : at + _ROWS] @ unit.T, start=at):
            own[groups == groups[row]] = -np.inf
            yield row, own


def _read(clip: Clip, front_end: FrontEnd, decoders: Decoders) -> np.ndarray:
    """The first seconds of a clip, as the network hears them; empty if it cannot be read."""
    most = round(_SECONDS / front_end.slow_down * front_end.sample_rate)
    resampler = Resampler(front_end.sample_rate, front_end.channel)
    blocks, samples = list[np.ndarray](), 0
    try:
        with decoders.waveform(clip.path, resampler) as sound:
            for block in sound.blocks:
                blocks.append(block)
                samples += len(block)
                if samples >= most:
                    break
    except SoundError:
        return np.zeros(0, np.float32)
    return np.concatenate(blocks)[:most]


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """The largest normalized cross-correlation of two waveforms, whatever their shift and sign.

    Args:
        first: (samples,).
        second: (samples,) at the same rate.

    Returns:
        0 to 1, over shifts at which at least half of the shorter one overlaps, and half of
        its energy.
    """
    from scipy.fft import irfft, next_fast_len, rfft

    long, short = sorted((first, second), key=len, reverse=True)
    energy = float(np.square(short, dtype=np.float64).sum())
    if not energy or not np.any(long):
        return 0.0
    size = next_fast_len(len(long) + len(short), real=True)
    products = irfft(rfft(long, size) * np.conj(rfft(short, size)), size)
    shifts = np.arange(1 - len(short), len(long))
    begin, end = np.maximum(shifts, 0), np.minimum(shifts + len(short), len(long))
    of_long, of_short = (
        np.concatenate([[0.0], np.cumsum(np.square(one, dtype=np.float64))])
        for one in (long, short)
    )
    mine = of_short[end - shifts] - of_short[begin - shifts]
    theirs = of_long[end] - of_long[begin]
    enough = (end - begin >= _OVERLAP * len(short)) & (mine >= _OVERLAP * energy)
    # Where the long one is silent, rounding would count.
    enough &= theirs >= 1e-6 * of_long[-1]
    both = np.sqrt(mine[enough] * theirs[enough])
    found = np.abs(products[shifts[enough]]) / both
    return float(min(found.max(initial=0.0), 1.0))
