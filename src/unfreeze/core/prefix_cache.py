"""Outputs of the frozen prefix on disk: computed once, read in every epoch.

Layout: `<folder>/<key>/` holds `part_<i>.bin` (raw rows, C order) and `meta.json`
(format version, dtype, shape and CRC-32 of each part, samples, views, masks and,
for streams, batch sizes). `unfreeze.core.fingerprints` makes the key.

Invariants: a folder under its final name is whole (it is written under a hidden name
and renamed); a changed sample, weight or setting gives another key; memory stays flat.
A cache of an earlier run is checked against its checksums when it is opened, and
rebuilt if it is damaged. Two processes may build the same cache at once: the second
uses the first one's. A cache that would not be exact is refused (`NotCacheable`).
"""

import json
import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from unfreeze.cache_room import CacheRoom, make_room, remove_cache
from unfreeze.core.array_files import checksum, open_rows
from unfreeze.core.boundary import Cut
from unfreeze.core.data import Batch, Rows, Stream
from unfreeze.core.fingerprints import FORMAT, Fingerprint, StreamDigest, cache_key
from unfreeze.core.keras_internals import tree
from unfreeze.core.mixup import labels_of_views
from unfreeze.core.step_model import StepModel, masks_of
from unfreeze.errors import RunError
from unfreeze.files import make_folder, partial_folder, sync_folder, write_json

Progress = Callable[[int, int], None]
MakePrefix = Callable[[Cut, tuple[int, ...]], StepModel]


class NotCacheable(Exception):
    """Raised when a prefix cannot be cached exactly: a reason to train uncached, no failure."""


@dataclass(frozen=True, eq=False)
class Cached:
    """An open cache, ready for training.

    Attributes:
        rows: frontier tensors, passed inputs and masks as `Rows`.
        folder: where it is stored.
        reused: whether it was there already.
        mended: whether the cache that was there was damaged and has been replaced.
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
    """Run the prefix over all data once, or use what an earlier run has cached.

    Args:
        cut: where the model is divided. Model inputs that the suffix reads
            directly are taken from the user's arrays, and kept only for streams.
        make_prefix: gives the model to run (`step_model.prefix_model`) for a cut and the
            masks to emit; not called where the cache is found.
        data: what to run over.
        known: `unfreeze.core.fingerprints.fingerprint(data)`.
        room: where to write, and how much.
        half: float16 instead of the tensors' own type.
        bfloat16: whether `make_prefix` gives a model that computes in bfloat16.
        views: passes over the data, for augmentation and mixup.
        fused: whether the prefix runs convolutions and BatchNorm as one.
        batch_size: samples the prefix takes at once.
        progress: called with the samples done and their total (0 when not known).

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
            remove_cache(home)
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
    make_room((meta.parent for meta in folder.glob("*/meta.json")), limit)


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
        raise ValueError(f"{home} has an unknown format")
    n, views, masks = meta["samples"], meta["views"], tuple(meta["masks"])
    with suppress(OSError):  # a cache that may only be read
        home.touch()  # `prune` goes by the time of the last use
    maps: list[Any] = []
    for i, part in enumerate(meta["parts"]):
        file = home / f"part_{i}.bin"
        if reused and checksum(file) != part["crc32"]:
            raise ValueError(f"{file} does not match its checksum")
        maps.append(open_rows(file, part["dtype"], (n * views, *part["shape"])))
    made, rest = maps[: len(cut.frontier)], maps[len(cut.frontier) :]
    mask_maps, rest = rest[: len(masks)], rest[len(masks) :]
    sizes = None
    if isinstance(data, Rows):
        through = [data.x[cut.graph.inputs.index(index)] for index in cut.passed]
        rows = Rows((*made, *through, *mask_maps), *labels_of_views(data, views), n)
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


def write(
    home: Path,
    cut: Cut,
    make_prefix: MakePrefix,
    data: Rows | Stream,
    known: Fingerprint,
    *,
    half: bool,
    views: int,
    limit: int,
    batch_size: int,
    progress: Progress | None,
) -> None:
    """Write the cache `home`; the arguments are those of `build`.

    Raises:
        NotCacheable: the result would not be exact, or not fit.
    """
    sample = [part[:2] for part in data.first()[0]]
    # Augmentation would draw another variant in each of the calls that are compared.
    probe = make_prefix(replace(cut, augmentation=frozenset()), ())
    if mixes_samples(probe, sample):
        raise NotCacheable("the frozen layers mix the samples of a batch")
    if probe.losses:
        raise NotCacheable("a frozen layer adds a loss of its own (activity regularizer, add_loss)")
    prefix = make_prefix(cut, masks_of(probe, sample))
    try:
        make_folder(home.parent)
    except OSError as error:
        raise unwritable(error) from None
    try:
        with partial_folder(home.parent) as partial:
            writer = _Writer(prefix, cut, data, partial, half, limit)
            writer.run(known, views, batch_size, progress)
            if home.exists() and not (home / "meta.json").is_file():
                shutil.rmtree(home)  # damaged from outside: never whole again
            try:
                partial.rename(home)
                sync_folder(home.parent)
            except OSError:
                # Another process was faster: what it made is the same.
                if not (home / "meta.json").is_file():
                    raise
    except OSError as error:
        # If it is the data that cannot be read, training reports that next.
        raise unwritable(error) from None


def unwritable(error: OSError) -> NotCacheable:
    """The reason to train uncached that a failed write is."""
    return NotCacheable(f"it cannot be written ({error.strerror or error})")


def mixes_samples(prefix: StepModel, batch: Sequence[np.ndarray]) -> bool:
    """Whether a sample's output depends on its neighbours in the batch (cannot be cached)."""
    if len(batch[0]) < 2:
        return False
    # Batches of other sizes are summed in another order, which rounding shows.
    tolerance = 5e-2 if prefix.program.bfloat16 else 1e-2
    alone = prefix([part[:1] for part in batch], training=False)
    together = prefix(list(batch), training=False)
    for both, one in zip(together, alone, strict=True):
        if both is None or one is None:
            continue
        a = keras.ops.convert_to_numpy(both)[:1].astype("float64")
        b = keras.ops.convert_to_numpy(one).astype("float64")
        if a.shape != b.shape:
            return True
        scale = float(np.abs(b).max(initial=0.0)) or 1.0
        if float(np.abs(a - b).max(initial=0.0)) > tolerance * scale:
            return True
    return False


class _Writer:
    """Writes one cache, batch by batch, into a folder that is not final yet."""

    def __init__(
        self,
        prefix: StepModel,
        cut: Cut,
        data: Rows | Stream,
        folder: Path,
        half: bool,
        limit: int,
    ) -> None:
        self.prefix, self.cut, self.data, self.folder = prefix, cut, data, folder
        self.half, self.limit = half, limit
        self.written = 0
        self.parts: list[dict[str, Any]] = []
        self.files: list[Any] = []

    def run(
        self, known: Fingerprint, views: int, batch_size: int, progress: Progress | None
    ) -> None:
        """Write all views of all samples, then the description."""
        total = self.data.n * views if isinstance(self.data, Rows) else 0
        done = 0
        counts: list[int] = []
        sizes: list[int] = []
        orders: set[str] = set()
        try:
            for view in range(views):
                seen = StreamDigest()
                sizes = []
                rows = self.data.variant(view) if isinstance(self.data, Rows) else self.data
                for batch in rows.batches(batch_size):
                    self._write(self._rows_of(batch, batch_size))
                    sizes.append(len(batch[0][0]))
                    done += sizes[-1]
                    if isinstance(self.data, Stream):
                        seen.add(batch)
                    if progress is not None:
                        progress(done, total)
                counts.append(sum(sizes))
                found = seen.fingerprint()
                orders.add(found.order)
                self._check(found, known, counts, views)
            for file in self.files:
                # Before the description, which says that they are whole.
                file.flush()
                os.fsync(file.fileno())
        finally:
            for file in self.files:
                file.close()
        stream = isinstance(self.data, Stream)
        same = orders == {known.order}
        meta: dict[str, Any] = {"format": FORMAT, "samples": counts[0], "views": views}
        meta["masks"] = list(self.prefix.program.emit_masks)
        if stream:
            # The user's own batches are kept together unless each pass makes new ones.
            meta |= {"order": known.order if same else "", "sizes": sizes}
        write_json(self.folder / "meta.json", {**meta, "parts": self.parts})

    def _check(self, found: Fingerprint, known: Fingerprint, counts: list[int], views: int) -> None:
        if len(set(counts)) > 1:
            raise NotCacheable(f"the data gave {counts[-2]} samples in one pass, then {counts[-1]}")
        if isinstance(self.data, Stream) and views == 1 and found.content != known.content:
            raise NotCacheable(
                "the data change from pass to pass (augmentation?): give the stage views=k to "
                "cache k variants of each sample"
            )

    def _rows_of(self, batch: Batch, batch_size: int) -> list[np.ndarray]:
        x, y, weight = batch
        n = len(x[0])
        fed = x
        if n < batch_size and isinstance(self.data, Rows) and self.parts:
            # One shape for the compiled function: the last batch is filled up.
            fed = [np.concatenate([p, np.repeat(p[-1:], batch_size - n, axis=0)]) for p in x]
        outputs = self.prefix.predict_on_batch(fed[0] if len(fed) == 1 else fed)
        outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
        if any(hasattr(out, "row_splits") for out in outputs):
            raise NotCacheable("the frozen layers give rows of unequal size (a ragged tensor)")
        rows = [self._storable(np.asarray(out)[:n]) for out in outputs]
        if any(len(row) != n for row in rows):
            raise NotCacheable("the prefix gives tensors without one row per sample")
        if isinstance(self.data, Stream):
            inputs = self.cut.graph.inputs
            rows += [x[inputs.index(index)] for index in self.cut.passed]
            for structure in (y, weight):
                if structure is not None:
                    rows += [np.asarray(part) for part in tree.flatten(structure)]
        return rows

    def _storable(self, array: np.ndarray) -> np.ndarray:
        if array.dtype.kind not in "fiub":
            array = array.astype(np.float32)  # bfloat16: numpy has no name for it on disk
        if self.half and array.dtype.kind == "f" and array.dtype.itemsize > 2:
            with np.errstate(over="ignore"):
                small = array.astype(np.float16)
            if not np.isfinite(small).all() and np.isfinite(array).all():
                raise NotCacheable("values beyond 65,504 do not fit float16: use cache='auto'")
            return small
        return array

    def _write(self, rows: list[np.ndarray]) -> None:
        for i, row in enumerate(rows):
            if len(self.parts) <= i:
                part: dict[str, Any] = {
                    "dtype": row.dtype.str,
                    "shape": list(row.shape[1:]),
                    "crc32": 0,
                }
                self.parts.append(part)
                self.files.append((self.folder / f"part_{i}.bin").open("wb"))
            if row.dtype.kind == "O":
                raise NotCacheable("text goes past the frozen layers, and caches hold numbers")
            if list(row.shape[1:]) != self.parts[i]["shape"]:
                raise NotCacheable(
                    f"a tensor at the boundary changes its shape from batch to batch "
                    f"({self.parts[i]['shape']}, then {list(row.shape[1:])})"
                )
            self.written += row.nbytes
        if self.written > self.limit:
            raise NotCacheable(f"it would take more than the {self.limit / 1e9:.1f} GB allowed")
        for file, part, row in zip(self.files, self.parts, rows, strict=True):
            # As bytes: memoryview knows no bfloat16.
            content = np.ascontiguousarray(row).reshape(-1).view(np.uint8).data
            part["crc32"] = zlib.crc32(content, part["crc32"])
            file.write(content)
