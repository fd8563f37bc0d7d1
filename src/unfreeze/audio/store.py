"""The feature store: log-mel frames of all clips, computed once, kept on disk.

Layout of the folder, format version 2 (another one whenever the frames of the same
sound change, be it in their last bit: training amplifies that):
  meta.json   format, version, fingerprint, front end, counts, CRC-32 of both; written last
  clips.npy   (clips + 1,) int64, the first frame of each clip, and the end
  frames.f32  (frames, bands) little-endian float32, clip after clip

Invariants: a folder with a valid meta.json is whole; what it holds is compared with
its checksums when it is opened, and made anew where it differs. Patches are windows over
the frames, so their overlap is stored once. The fingerprint covers the front
end and the clips' contents in their order, not labels, groups or splits: a
changed label needs no new store. All lengths are known from the manifest, so
threads write each clip at its own place and memory stays flat.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from unfreeze.audio.decode import resampled_length
from unfreeze.audio.decoders import Decoders
from unfreeze.audio.frames import patch_starts
from unfreeze.audio.manifest import Clip, Manifest
from unfreeze.audio.names import show
from unfreeze.audio.parallel import Progress, run_bunches
from unfreeze.audio.patches import FLOAT, FrameFile, PatchView
from unfreeze.audio.writer import FrameWriter
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.core.row_file import checksum
from unfreeze.errors import RunError
from unfreeze.files import atomic_path, make_folder, remove, remove_partials, write_json

_FORMAT, _VERSION = "unfreeze feature store", 2
_META, _CLIPS, _FRAMES = "meta.json", "clips.npy", "frames.f32"

# What comes of files that are damaged, by json and numpy.
_FOREIGN = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, EOFError),
    *(RecursionError, MemoryError, zipfile.BadZipFile),
)


class PatchStore:
    """A finished feature store.

    Attributes:
        folder: where it lies.
        front_end: the settings it was computed with.
        fingerprint: SHA-256 over the front end and the contents, in order.
        clips: number of clips.
    """

    def __init__(
        self, folder: Path, front_end: FrontEnd, fingerprint: str, offsets: np.ndarray
    ) -> None:
        self.folder, self.front_end, self.fingerprint = folder, front_end, fingerprint
        self.clips = len(offsets) - 1
        self._offsets = offsets
        self._frames = FrameFile(folder / _FRAMES, front_end.bands)

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
        lengths = self._offsets[chosen + 1] - self._offsets[chosen]
        # Clips have few different lengths: cut each kind once.
        kinds, kind = np.unique(lengths, return_inverse=True)
        cuts = [patch_starts(int(length), front) for length in kinds]
        counts = np.array([len(cut) for cut in cuts], dtype=np.int64)[kind]
        clip = np.repeat(chosen, counts)
        starts = np.repeat(self._offsets[chosen], counts)
        if len(chosen):
            starts += np.concatenate([cuts[k] for k in kind])
        return PatchView(self._frames, starts, clip, front.patch_frames, self.fingerprint)


def build_store(
    manifest: Manifest,
    front_end: FrontEnd,
    folder: str | os.PathLike[str],
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> PatchStore:
    """Compute the log-mel frames of all clips, or open them if they are there.

    Two processes may do this at once: the second waits, then opens. A killed
    build leaves nothing that looks whole.

    Args:
        manifest: the clips.
        front_end: the settings of the backbone.
        folder: of the store; made when missing. A store of other clips or
            settings in it is replaced.
        workers: threads; None takes one a core.
        progress: called as progress(done, total) with counts of clips.

    Returns:
        The store, open for reading.

    Raises:
        DataError: a file changed or vanished since the manifest was read, or makes
            the decoder crash now.
        RunError: the disk is too small, or full, or cannot be written.
    """
    place = Path(folder)
    fingerprint = store_fingerprint(manifest, front_end)
    # Without the lock first: a store may lie in a folder that can only be read.
    store = _open_right(place, fingerprint)
    if store is None:
        try:
            make_folder(place)
            with filelock.FileLock(place / ".lock"):
                store = _open_right(place, fingerprint)
                if store is None:
                    _build(manifest, front_end, place, fingerprint, workers, progress)
                    return _opened(place, fingerprint)
        except OSError as error:
            raise RunError(_unwritable(place, error)) from error
    if progress is not None:
        progress(store.clips, store.clips)
    return store


def prune_stores(home: Path, limit: int, keep: Path) -> None:
    """Remove the stores used longest ago until the folder is within `limit` bytes.

    Args:
        home: holds a folder for each store.
        limit: bytes.
        keep: a store that stays.

    One that another process builds just now stays too.
    """
    found: list[tuple[float, int, Path]] = []
    for place in home.iterdir() if home.is_dir() else ():
        with contextlib.suppress(OSError):  # another process may remove it just now
            if place.is_dir():
                size = sum(f.stat().st_size for f in place.iterdir() if f.is_file())
                found.append((place.stat().st_mtime, size, place))
    total = sum(size for _, size, _ in found)
    for _, size, place in sorted(found):
        if total <= limit:
            return
        if place == keep:
            continue
        with (
            contextlib.suppress(OSError, filelock.Timeout),
            filelock.FileLock(place / ".lock", blocking=False),
        ):
            shutil.rmtree(place)
            total -= size


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
        front_end = FrontEnd(**meta["front_end"])
        offsets = np.load(place / _CLIPS, allow_pickle=False)
        size = (place / _FRAMES).stat().st_size
        whole = (
            offsets.dtype == np.int64
            and offsets.shape == (meta["clips"] + 1,)
            and offsets[0] == 0
            and bool((np.diff(offsets) >= front_end.patch_frames).all())
            and size == offsets[-1] * front_end.bands * FLOAT.itemsize
            and meta["crc32"] == [checksum(place / name) for name in (_CLIPS, _FRAMES)]
        )
        if not whole:
            return None
        return PatchStore(place, front_end, str(meta["fingerprint"]), offsets)
    except _FOREIGN:
        # Missing, cut short or foreign: it will be built again.
        return None


def store_fingerprint(manifest: Manifest, front_end: FrontEnd) -> str:
    """Return what the store of these clips with these settings is known by."""
    settings: dict[str, Any] = {
        "format": _FORMAT,
        "version": _VERSION,
        "front_end": dataclasses.asdict(front_end),
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode("ascii"))
    for clip in manifest.clips:
        digest.update(b"\n" + clip.content.encode("ascii"))
    return digest.hexdigest()


def _build(
    manifest: Manifest,
    front_end: FrontEnd,
    folder: Path,
    fingerprint: str,
    workers: int | None,
    progress: Progress | None,
) -> None:
    counts = [front_end.frames(_samples(clip, front_end)) for clip in manifest.clips]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    size = int(offsets[-1]) * front_end.bands * FLOAT.itemsize
    # First and for good, or after a power cut it might stand beside other frames.
    remove(folder / _META)
    remove(folder / _FRAMES)
    remove_partials(folder, (_FRAMES, _CLIPS, _META))
    free = shutil.disk_usage(folder).free
    if size > free:
        raise RunError(
            f"The feature store needs {size / 1e9:.2f} GB and the disk of {show(folder)} has "
            f"{free / 1e9:.2f} GB free. Make room, or choose another folder."
        )
    with (
        atomic_path(folder / _FRAMES) as partial,
        partial.open("r+b") as file,
        Decoders() as decoders,
    ):
        file.truncate(size)
        write = FrameWriter(file, front_end, manifest.clips, offsets, decoders)
        run_bunches(write, range(len(counts)), workers=workers, progress=progress)
    with atomic_path(folder / _CLIPS) as partial:
        np.save(partial, offsets, allow_pickle=False)
    meta = {
        "format": _FORMAT,
        "version": _VERSION,
        "fingerprint": fingerprint,
        "front_end": dataclasses.asdict(front_end),
        "clips": len(counts),
        "frames": int(offsets[-1]),
        "dtype": FLOAT.str,
        "crc32": [checksum(folder / name) for name in (_CLIPS, _FRAMES)],
    }
    write_json(folder / _META, meta)


def _unwritable(place: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"The disk of {show(place)} is full. Make room and run again; nothing half written "
            f"was kept."
        )
    return (
        f"The feature store {show(place)} cannot be written ({error.strerror or error}). Set "
        f"UNFREEZE_CACHE to a folder that can be written."
    )


def _samples(clip: Clip, front_end: FrontEnd) -> int:
    read = round(clip.seconds * clip.sample_rate)
    return resampled_length(read, clip.sample_rate, front_end.sample_rate)
