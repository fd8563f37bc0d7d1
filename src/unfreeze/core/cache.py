"""Outputs of the frozen prefix on disk, computed once, read in every epoch.

Layout: `<folder>/<key>/` holds `part_<i>.bin` (raw rows, C order) and `meta.json`
(format version, dtype, shape and CRC-32 of each part, samples, views, masks and,
for streams, batch sizes). `unfreeze.core.cache_key` makes the key.
Invariants: a folder under its final name is whole; a changed sample, weight or
setting gives another key; memory stays flat, as rows are written by batches and
large parts are read row by row. What an earlier run wrote is compared with its
checksums when it is opened, and made anew where it is damaged. Two processes that
build the same cache do so side by side, and the second finds the first one's
result in place.
"""

import json
import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unfreeze.core.cache_key import FORMAT, cache_key
from unfreeze.core.cache_write import MakePrefix, NotCacheable, Progress, unwritable, write
from unfreeze.core.data import Rows, Stream
from unfreeze.core.digest import Fingerprint
from unfreeze.core.internals import tree
from unfreeze.core.row_file import checksum, open_rows
from unfreeze.core.split import Cut
from unfreeze.errors import RunError
from unfreeze.files import remove_dead_folders

__all__ = ["CacheRoom", "Cached", "NotCacheable", "Progress", "build", "prune"]

# A folder that a killed process left behind; one at work writes all the time.
_STALE_SECONDS = 24 * 3600


@dataclass(frozen=True)
class CacheRoom:
    """Where caches stand and how large one may be.

    Attributes:
        folder: holds all of them.
        limit: bytes; None is half of what the disk has free.
    """

    folder: Path
    limit: int | None = None

    def allowed(self) -> int:
        """Bytes that a new cache may take."""
        if self.limit is not None:
            return self.limit
        there = next(p for p in (self.folder, *self.folder.absolute().parents) if p.exists())
        return shutil.disk_usage(there).free // 2

    def sweep(self) -> None:
        """Remove what killed processes left half-written."""
        with suppress(OSError):
            remove_dead_folders(self.folder)
        # What `prune` did not come to remove, and what earlier versions left.
        for partial in self.folder.glob(".partial-*"):
            # Another process may remove it too.
            with suppress(OSError):
                newest = max(f.stat().st_mtime for f in (partial, *partial.iterdir()))
                if time.time() - newest > _STALE_SECONDS:
                    shutil.rmtree(partial, ignore_errors=True)


@dataclass(frozen=True, eq=False)
class Cached:
    """What a cache gives to training.

    Attributes:
        rows: frontier tensors, passed inputs and masks as `Rows`.
        folder: where it stands.
        reused: whether it was there already.
        mended: whether what was there was damaged, and this was made in its place.
        nbytes: size of what is read from it.
        views: variants of each sample.
        masks: which of the frontier tensors have a mask.
        sizes: of a stream's batches, where it gives the same ones in each pass.
    """

    rows: Rows
    folder: Path
    reused: bool
    mended: bool
    nbytes: int
    views: int
    masks: tuple[int, ...]
    sizes: list[int] | None


def build(
    cut: Cut,
    make_prefix: MakePrefix,
    data: Rows | Stream,
    known: Fingerprint,
    room: CacheRoom,
    *,
    half: bool = False,
    bfloat16: bool = False,
    views: int = 1,
    fused: bool = True,
    batch_size: int = 128,
    progress: Progress | None = None,
) -> Cached:
    """Run the prefix over all data once, or find that this was done before.

    Args:
        cut: where the model is divided. Model inputs that the suffix reads
            directly are taken from the user's arrays, and kept only for streams.
        make_prefix: gives the model to run (`runner.prefix_model`) for a cut and the
            masks to emit; not called where the cache is found.
        data: what to run over.
        known: `unfreeze.core.digest.fingerprint(data)`.
        room: where to write, and how much.
        half: float16 instead of the tensors' own type.
        bfloat16: whether `make_prefix` gives a model that computes in bfloat16.
        views: passes over the data, for augmentation.
        fused: whether the prefix runs convolutions and BatchNorm as one.
        batch_size: samples the prefix takes at once.
        progress: called with samples done and in all (0 when not known).

    Raises:
        NotCacheable: the result would not be exact, or not fit.
    """
    key = cache_key(known.content, cut, half=half, bfloat16=bfloat16, views=views, fused=fused)
    home = room.folder / key
    there = (home / "meta.json").is_file()
    if there:
        try:
            return _open(home, cut, data, known, reused=True)
        except (OSError, RunError, ValueError, KeyError, TypeError):
            _remove(home)
    room.sweep()
    write(
        home,
        cut,
        make_prefix,
        data,
        known,
        half=half,
        views=views,
        limit=room.allowed(),
        batch_size=batch_size,
        progress=progress,
    )
    try:
        return _open(home, cut, data, known, mended=there)
    except OSError as error:
        # Removed at once by another process, or a person.
        raise unwritable(error) from None


def prune(folder: Path, limit: int) -> None:
    """Remove the caches used longest ago until the folder is within `limit` bytes."""
    if not folder.is_dir():
        return
    found: list[tuple[float, int, Path]] = []
    for home in folder.iterdir():
        # Another process may remove it just now.
        with suppress(OSError):
            if (home / "meta.json").is_file():
                size = sum(f.stat().st_size for f in home.iterdir())
                found.append((home.stat().st_mtime, size, home))
    total = sum(size for _, size, _ in found)
    for _, size, home in sorted(found):
        if total <= limit:
            return
        _remove(home)
        total -= size


def _remove(home: Path) -> None:
    # Renamed first: another process must not find a half-removed folder. One that
    # reads from it goes on reading (but on Windows, where it cannot be renamed).
    gone = home.with_name(f".partial-{secrets.token_hex(4)}-{home.name}")
    with suppress(OSError):
        home.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def _open(
    home: Path,
    cut: Cut,
    data: Rows | Stream,
    known: Fingerprint,
    *,
    reused: bool = False,
    mended: bool = False,
) -> Cached:
    meta = json.loads((home / "meta.json").read_text(encoding="utf-8"))
    if meta["format"] != FORMAT:
        raise ValueError(f"{home} has another format")
    n, views, masks = meta["samples"], meta["views"], tuple(meta["masks"])
    with suppress(OSError):  # a cache that may only be read
        home.touch()  # `prune` goes by the time of the last use
    maps: list[Any] = []
    for i, part in enumerate(meta["parts"]):
        file = home / f"part_{i}.bin"
        if reused and checksum(file) != part["crc32"]:
            raise ValueError(f"{file} has another checksum")
        maps.append(open_rows(file, part["dtype"], (n * views, *part["shape"])))
    made, rest = maps[: len(cut.frontier)], maps[len(cut.frontier) :]
    mask_maps, rest = rest[: len(masks)], rest[len(masks) :]
    sizes = None
    if isinstance(data, Rows):
        through = [data.x[cut.graph.inputs.index(index)] for index in cut.passed]
        rows = Rows((*made, *through, *mask_maps), data.y, data.weight, n)
    else:
        through, rest = rest[: len(cut.passed)], rest[len(cut.passed) :]
        _, y, weight = data.first()
        labels = 0 if y is None else len(tree.flatten(y))
        y = None if y is None else tree.pack_sequence_as(y, rest[:labels])
        weight = None if weight is None else tree.pack_sequence_as(weight, rest[labels:])
        rows = Rows((*made, *through, *mask_maps), y, weight, n)
        sizes = meta["sizes"] if meta["order"] == known.order else None
    nbytes = sum(part.nbytes for part in maps)
    return Cached(rows, home, reused, mended, nbytes, views, masks, sizes)
