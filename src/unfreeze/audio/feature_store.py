"""The feature store: log-mel frames of all clips, computed once, kept on disk.

Layout of the folder, format version 3 (there must be a new version whenever the frames of
a sound change, even in their last bit, because training amplifies that):
  meta.json   format, version, fingerprint, front end, counts, CRC-32 of both; written last
  clips.npy   (clips + 1,) int64, the first frame of each clip, then the total
  frames.f32  (frames, values) little-endian float32, clip after clip; `frame_values` of the
              front end, its bands or a whole patch; until it is whole it has another name
              (`unfreeze.audio.written_units`)

Invariants: a folder with a valid meta.json is whole; it is checked against its checksums
when it is opened, and rebuilt if it differs. Patches are windows over the frames, so their
overlap is stored once. The fingerprint covers the front end and the clips' contents in
their order, not labels, groups or splits: a changed label needs no new store. The manifest
gives all lengths, so threads write each clip at its own place and memory stays flat.
"""

import errno
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from unfreeze.audio.cluster import Cluster
from unfreeze.audio.cluster_features import write_on
from unfreeze.audio.decode import resampled_length
from unfreeze.audio.decode_processes import Decoders
from unfreeze.audio.frame_processes import are_worth, cut_units, write_units
from unfreeze.audio.frame_writer import FrameWriter
from unfreeze.audio.logmel import patch_starts
from unfreeze.audio.manifest import Clip, Manifest
from unfreeze.audio.parallel import Progress, available_cores, run_bunches
from unfreeze.audio.patches import FLOAT, FrameFile, PatchView
from unfreeze.audio.written_units import (
    remove_unfinished,
    reopen_unfinished,
    unfinished_bytes,
    written_units,
)
from unfreeze.backbones.frontend import FrontEnd, front_end_from
from unfreeze.cache_room import LOCK, make_room
from unfreeze.core.array_files import checksum
from unfreeze.errors import RunError, show
from unfreeze.files import atomic_path, make_folder, remove, remove_partials, write_json

# What json and numpy raise for damaged files.
_FOREIGN = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, EOFError),
    *(RecursionError, MemoryError, zipfile.BadZipFile),
)

_FORMAT, _VERSION = "unfreeze feature store", 3
_META, _CLIPS, _FRAMES = "meta.json", "clips.npy", "frames.f32"


class PatchStore:
    """A finished feature store.

    Attributes:
        folder: where it is stored.
        front_end: the settings it was computed with.
        fingerprint: SHA-256 over the front end and the contents, in order.
        clips: number of clips.
        spans: (clips, 2) int64, the first row of each clip's frames, and the end.
    """

    def __init__(
        self,
        folder: Path,
        front_end: FrontEnd,
        fingerprint: str,
        offsets: np.ndarray,
        spans: np.ndarray | None = None,
    ) -> None:
        self.folder, self.front_end, self.fingerprint = folder, front_end, fingerprint
        self.offsets = offsets
        self.spans = np.stack([offsets[:-1], offsets[1:]], axis=1) if spans is None else spans
        self.clips = len(self.spans)
        self._frames = FrameFile(folder / _FRAMES, front_end.frame_values)

    def patches(self, clip_indices: Sequence[int] | np.ndarray) -> PatchView:
        """Return the patches of some clips, in the order of the numbers.

        Args:
            clip_indices: (n,) int, numbers of clips in the manifest.

        Raises:
            IndexError: a number is negative or too large.
        """
        chosen = np.asarray(clip_indices, dtype=np.int64).reshape(-1)
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= self.clips):
            raise IndexError(f"Clip numbers go from 0 to {self.clips - 1}.")
        front = self.front_end
        lengths = self.spans[chosen, 1] - self.spans[chosen, 0]
        # Clips have few different lengths: cut each kind once.
        kinds, kind = np.unique(lengths, return_inverse=True)
        cuts = [patch_starts(int(length), front) for length in kinds]
        counts = np.array([len(cut) for cut in cuts], dtype=np.int64)[kind]
        clip = np.repeat(chosen, counts)
        starts = np.repeat(self.spans[chosen, 0], counts)
        if len(chosen):
            starts += np.concatenate([cuts[k] for k in kind])
        shape = front.patch_shape
        return PatchView(self._frames, starts, clip, front.patch_frames, self.fingerprint, shape)


def sound_span(
    start: float, end: float, first: int, last: int, front_end: FrontEnd
) -> tuple[int, int]:
    """The frames that a sound in a recording is heard in.

    A sound that is shorter than a patch is in the middle of one; what surrounds it in the
    recording fills the rest. (Where frames are whole patches, in the one whose middle is
    nearest.)

    Args:
        start: seconds from the beginning of the recording.
        end: seconds, likewise.
        first: the first row of the recording's frames.
        last: the end of its frames, at least a patch behind `first`.
        front_end: the settings.

    Returns:
        The first row and the end, at least a patch apart.
    """
    front, room = front_end, last - first
    rate, length = front.sample_rate / front.step, front.patch_samples // front.step
    begin, stop = round(start * rate), round(end * rate)
    if stop - begin < length:
        begin = (begin + stop - length) // 2
        stop = begin + length
    # From steps to frames.
    size, apart = front.patch_frames, front.hop // front.step
    row, end_row = round(begin / apart), round((stop - length) / apart) + size
    row = max(min(row, room - size), 0)
    return first + row, first + min(max(end_row, row + size), room)


def _recordings(manifest: Manifest) -> tuple[list[Clip], np.ndarray]:
    """The recordings whose frames are stored, and the number of each clip's.

    Sounds of one recording share its frames; whole clips have frames of their own.
    """
    units, of_file, number_of = list[Clip](), dict[Path, int](), list[int]()
    for clip in manifest.clips:
        if clip.start is None:
            number_of.append(len(units))
            units.append(clip)
            continue
        if clip.path not in of_file:
            of_file[clip.path] = len(units)
            content = clip.content.partition("@")[0]
            units.append(replace(clip, seconds=clip.recording_seconds, content=content))
        number_of.append(of_file[clip.path])
    return units, np.array(number_of, np.int64)


def _spans(manifest: Manifest, offsets: np.ndarray, front_end: FrontEnd) -> np.ndarray:
    """(clips, 2) int64: the frames of each clip."""
    _, number_of = _recordings(manifest)
    spans = np.stack([offsets[number_of], offsets[number_of + 1]], axis=1)
    for row, clip in enumerate(manifest.clips):
        if clip.start is not None and clip.end is not None:
            first, last = spans[row].tolist()
            spans[row] = sound_span(clip.start, clip.end, first, last, front_end)
    return spans


def build_store(
    manifest: Manifest,
    front_end: FrontEnd,
    folder: str | os.PathLike[str],
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    cluster: Cluster | None = None,
) -> PatchStore:
    """Compute the log-mel frames of all clips, or open them if they are there.

    Two processes may do this at once: the second waits, then opens. A killed
    build leaves nothing that looks whole; the next one goes on from there.

    Args:
        manifest: the clips.
        front_end: the settings of the backbone.
        folder: of the store; made when missing. A store of other clips or
            settings in it is replaced.
        workers: cores to use; None takes all.
        progress: called as progress(done, total) with counts of clips.
        cluster: where to compute them; None computes them on this machine.

    Returns:
        The store, open for reading.

    Raises:
        DataError: a file has changed or is gone since the manifest was read, or now
            crashes the decoder.
        RunError: the disk is too small or full, or cannot be written.
    """
    place = Path(folder)
    fingerprint = store_fingerprint(manifest, front_end)
    # Without the lock first: a store may lie in a folder that can only be read.
    store = _open_right(place, fingerprint)
    if store is None:
        try:
            make_folder(place)
            with filelock.FileLock(place / LOCK):
                store = _open_right(place, fingerprint)
                if store is None:
                    _build(manifest, front_end, place, fingerprint, workers, progress, cluster)
                    store = _opened(place, fingerprint)
                    return _with_clips(store, manifest)
        except OSError as error:
            raise RunError(_unwritable(place, error)) from error
    if progress is not None:
        progress(store.clips, store.clips)
    return _with_clips(store, manifest)


def _with_clips(store: PatchStore, manifest: Manifest) -> PatchStore:
    """The store with the clips of a manifest, which may be sounds in its recordings."""
    if all(clip.start is None for clip in manifest.clips):
        return store
    front, offsets = store.front_end, store.offsets
    spans = _spans(manifest, offsets, front)
    return PatchStore(store.folder, front, store.fingerprint, offsets, spans)


def prune_stores(home: Path, limit: int, keep: Path) -> None:
    """Remove the stores used longest ago until the folder is within `limit` bytes.

    Args:
        home: holds a folder for each store.
        limit: bytes.
        keep: a store that stays.

    A store that another process is building stays too.
    """
    make_room((place for place in home.glob("*") if place.is_dir()), limit, keep)


def _open_right(place: Path, fingerprint: str) -> PatchStore | None:
    store = open_store(place)
    return store if store is not None and store.fingerprint == fingerprint else None


def _opened(place: Path, fingerprint: str) -> PatchStore:
    store = _open_right(place, fingerprint)
    if store is None:
        raise RunError(f"{show(place)} was changed while the feature store was written.")
    return store


def open_store(folder: str | os.PathLike[str]) -> PatchStore | None:
    """Open a feature store.

    Args:
        folder: of the store.

    Returns:
        The store; None when the folder holds none that is whole, unchanged and
        of this format version.
    """
    place = Path(folder)
    try:
        meta = json.loads((place / _META).read_text(encoding="utf-8"))
        if (meta["format"], meta["version"]) != (_FORMAT, _VERSION):
            return None
        front_end = front_end_from(meta["front_end"])
        offsets = np.load(place / _CLIPS, allow_pickle=False)
        size = (place / _FRAMES).stat().st_size
        whole = (
            offsets.dtype == np.int64
            and offsets.shape == (meta["clips"] + 1,)
            and offsets[0] == 0
            and bool((np.diff(offsets) >= front_end.patch_frames).all())
            and size == offsets[-1] * front_end.frame_values * FLOAT.itemsize
            and meta["crc32"] == [checksum(place / name) for name in (_CLIPS, _FRAMES)]
        )
        if not whole:
            return None
        return PatchStore(place, front_end, str(meta["fingerprint"]), offsets)
    except _FOREIGN:
        # Missing, cut short or of another kind: it will be built again.
        return None


def store_fingerprint(manifest: Manifest, front_end: FrontEnd) -> str:
    """Return the fingerprint of the store of these clips with these settings."""
    settings: dict[str, Any] = {
        "format": _FORMAT,
        "version": _VERSION,
        "front_end": front_end.identity,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode("ascii"))
    for clip in _recordings(manifest)[0]:
        digest.update(b"\n" + clip.content.encode("ascii"))
    return digest.hexdigest()


def _build(
    manifest: Manifest,
    front_end: FrontEnd,
    folder: Path,
    fingerprint: str,
    workers: int | None,
    progress: Progress | None,
    cluster: Cluster | None,
) -> None:
    recordings = _recordings(manifest)[0]
    counts = [front_end.frames(_samples(clip, front_end)) for clip in recordings]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    size = int(offsets[-1]) * front_end.frame_values * FLOAT.itemsize
    # Removed first and durably, or after a power cut it might lie beside other frames.
    remove(folder / _META)
    reopen_unfinished(folder / _FRAMES)
    remove(folder / _FRAMES)
    remove_partials(folder, (_FRAMES, _CLIPS, _META))
    free = shutil.disk_usage(folder).free + unfinished_bytes(folder / _FRAMES)
    if size > free:
        raise RunError(
            f"The feature store needs {size / 1e9:.2f} GB and the disk of {show(folder)} has "
            f"{free / 1e9:.2f} GB free. Make room, or choose another folder."
        )
    clips, rows = [(clip.path, clip.content) for clip in recordings], offsets.tolist()
    units, row_bytes = cut_units(rows, front_end), front_end.frame_values * FLOAT.itemsize
    with (
        written_units(folder / _FRAMES, fingerprint, rows, row_bytes, units) as built,
        Decoders() as decoders,
    ):
        write = FrameWriter(built.file, front_end, clips, rows, decoders)
        cores = workers or available_cores()
        before = len(clips) - sum(map(len, built.todo))

        def tell(done: int, total: int) -> None:
            if progress is not None:
                progress(before + done, len(clips))

        if before:
            tell(0, 0)
        if cluster is not None:
            write_on(cluster, built, front_end, clips, rows, tell)
        elif len(units) == len(built.todo) == 1:
            # Too little to be kept when it is interrupted.
            run_bunches(write, range(len(clips)), workers=cores, progress=tell)
        else:
            by_processes = are_worth(built.todo, front_end, cores)
            write_units(built, clips, rows, write, by_processes, workers=cores, progress=tell)
        built.file.flush()
        with atomic_path(folder / _CLIPS) as partial:
            np.save(partial, offsets, allow_pickle=False)
        checksums = [checksum(folder / _CLIPS), checksum(built.path)]
    meta = {
        "format": _FORMAT,
        "version": _VERSION,
        "fingerprint": fingerprint,
        "front_end": front_end.as_plain(),
        "clips": len(counts),
        "frames": int(offsets[-1]),
        "dtype": FLOAT.str,
        "crc32": checksums,
    }
    write_json(folder / _META, meta)
    remove_unfinished(folder / _FRAMES)


def _unwritable(place: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"The disk of {show(place)} is full. Make room and run again; no half-written file "
            f"was kept."
        )
    return (
        f"The feature store {show(place)} cannot be written ({error.strerror or error}). Set "
        f"UNFREEZE_CACHE to a folder that can be written."
    )


def _samples(clip: Clip, front_end: FrontEnd) -> int:
    read = round(clip.seconds * clip.sample_rate)
    return resampled_length(read, clip.sample_rate, front_end.sample_rate)
