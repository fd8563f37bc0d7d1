"""Writes a cache: the frozen prefix over all data, batch by batch, into files.

Everything goes to a hidden folder that gets its name when it is whole. What
would not be exact is refused with a reason (`NotCacheable`) and leaves nothing.
"""

import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from unfreeze.core.cache_key import FORMAT
from unfreeze.core.data import Batch, Rows, Stream
from unfreeze.core.digest import Fingerprint, StreamDigest
from unfreeze.core.internals import tree
from unfreeze.core.runner import StepModel, masks_of
from unfreeze.core.split import Cut
from unfreeze.files import make_folder, partial_folder, sync_folder, write_json

Progress = Callable[[int, int], None]
MakePrefix = Callable[[Cut, tuple[int, ...]], StepModel]


class NotCacheable(Exception):
    """Why a prefix cannot be kept exactly: a reason to train uncached, not an error."""


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
    """Write the cache `home`; the arguments are those of `unfreeze.core.cache.build`.

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
        # Were it the data that cannot be read, training would say so next.
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
        """All views of all samples; then the description."""
        total = self.data.n * views if isinstance(self.data, Rows) else 0
        done = 0
        counts: list[int] = []
        sizes: list[int] = []
        orders: set[str] = set()
        try:
            for _ in range(views):
                seen = StreamDigest()
                sizes = []
                for batch in self.data.batches(batch_size):
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
        rows = [self._storable(np.asarray(out)[:n]) for out in outputs]
        if any(len(row) != n for row in rows):
            raise NotCacheable("the prefix gives tensors without one row a sample")
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
