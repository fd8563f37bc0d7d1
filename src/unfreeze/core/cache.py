"""Outputs of the frozen prefix on disk, computed once, read in every epoch.

Layout: `<folder>/<key>/` holds `part_<i>.bin` (raw rows, C order) and `meta.json`
(format version, dtype and shape of each part, samples, views). The key is a
digest of the data, the prefix with its weights, and the settings.
Invariants: a folder under its final name is whole; a changed sample, weight or
setting gives another key; memory stays flat, as rows are written by batches and
read through memory maps. Two processes that build the same cache do so side by
side, and the second finds the first one's result in place.
"""

import hashlib
import inspect
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from unfreeze.core.data import Batch, Rows, Stream, StreamDigest
from unfreeze.core.graph import Step
from unfreeze.core.internals import tree
from unfreeze.core.runner import StepModel
from unfreeze.core.split import Cut
from unfreeze.files import write_json

FORMAT = 1
Progress = Callable[[int, int], None]


class NotCacheable(Exception):  # noqa: N818 - a reason to train uncached, not an error
    """The prefix's outputs cannot be kept exactly; the message says why."""


@dataclass(frozen=True, eq=False)
class Cached:
    """What a cache gives to training.

    Attributes:
        rows: frontier tensors, passed inputs and masks as `Rows`.
        folder: where it stands.
        reused: whether it was there already.
        nbytes: size of what is read from it.
        views: variants of each sample.
    """

    rows: Rows
    folder: Path
    reused: bool
    nbytes: int
    views: int


def cache_key(data_digest: str, cut: Cut, masks: Sequence[int], dtype: str, views: int) -> str:
    """Digest of everything that the cached rows depend on."""
    digest = hashlib.blake2b(digest_size=16)
    setting = [FORMAT, data_digest, dtype, views, keras.__version__, keras.backend.backend()]
    setting += [list(cut.frontier), list(cut.passed), list(masks)]
    digest.update(json.dumps(setting).encode())
    for step in cut.prefix:
        digest.update(_step_text(step).encode())
        for weight in step.operation.weights if step.is_layer else ():
            digest.update(keras.ops.convert_to_numpy(weight).tobytes())
    return digest.hexdigest()


def build(
    cut: Cut,
    prefix: StepModel,
    data: Rows | Stream,
    digest: str,
    folder: Path,
    *,
    half: bool = False,
    views: int = 1,
    batch_size: int = 128,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Cached:
    """Run the prefix over all data once, or find that this was done before.

    Args:
        cut: where the model is divided. Model inputs that the suffix reads
            directly are taken from the user's arrays, and kept only for streams.
        prefix: from `unfreeze.core.runner.prefix_model`, with its masks known.
        data: what to run over.
        digest: `unfreeze.core.data.fingerprint(data)`.
        folder: holds all caches.
        half: float16 instead of the tensors' own type.
        views: passes over the data, for augmentation.
        batch_size: samples the prefix takes at once.
        limit: bytes; above it nothing is written.
        progress: called with samples done and in all (0 when not known).

    Raises:
        NotCacheable: the result would not be exact, or not fit.
    """
    masks = prefix.program.emit_masks
    key = cache_key(digest, cut, masks, "float16" if half else "own", views)
    home = folder / key
    first = next(iter(data.batches(batch_size)))
    if not (home / "meta.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))
        try:
            writer = _Writer(prefix, cut.passed, data, partial, half, limit)
            writer.run(digest, views, batch_size, progress)
            try:
                partial.rename(home)
            except OSError:
                if not (home / "meta.json").is_file():
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        reused = False
    else:
        reused = True
    return _open(home, data, cut.passed, prefix, first, reused)


def prune(folder: Path, limit: int, keep: set[Path]) -> None:
    """Remove the caches used longest ago until the folder is within `limit` bytes."""
    homes = [home for home in folder.iterdir() if (home / "meta.json").is_file()]
    sizes = {home: sum(f.stat().st_size for f in home.iterdir()) for home in homes}
    total = sum(sizes.values())
    for home in sorted(homes, key=lambda home: home.stat().st_mtime):
        if total <= limit:
            return
        if home not in keep:
            shutil.rmtree(home, ignore_errors=True)
            total -= sizes[home]


def mixes_samples(prefix: StepModel, batch: list[np.ndarray]) -> bool:
    """Whether a sample's output depends on its neighbours in the batch (cannot be cached)."""
    if len(batch[0]) < 2:
        return False
    together = prefix([part[:2] for part in batch], training=False)
    alone = prefix([part[:1] for part in batch], training=False)
    for both, one in zip(together, alone, strict=True):
        if both is None or one is None:
            continue
        a = keras.ops.convert_to_numpy(both)[:1].astype("float64")
        b = keras.ops.convert_to_numpy(one).astype("float64")
        if a.shape != b.shape:
            return True
        scale = float(np.abs(b).max()) or 1.0
        if float(np.abs(a - b).max()) > 1e-2 * scale:
            return True
    return False


class _Writer:
    """Writes one cache, batch by batch, into a folder that is not final yet."""

    def __init__(
        self,
        prefix: StepModel,
        passed: tuple[int, ...],
        data: Rows | Stream,
        folder: Path,
        half: bool,
        limit: int | None,
    ) -> None:
        self.prefix, self.passed, self.data, self.folder = prefix, passed, data, folder
        self.half, self.limit = half, limit
        self.written = 0
        self.parts: list[dict[str, Any]] = []
        self.files: list[Any] = []

    def run(self, digest: str, views: int, batch_size: int, progress: Progress | None) -> None:
        """All views of all samples; then the description."""
        known = self.data.n if isinstance(self.data, Rows) else 0
        counts: list[int] = []
        done = 0
        try:
            for _ in range(views):
                seen, count = StreamDigest(), 0
                for batch in self.data.batches(batch_size):
                    self._write(self._rows_of(batch, batch_size))
                    count += len(batch[0][0])
                    if isinstance(self.data, Stream):
                        seen.add(batch)
                    if progress is not None:
                        progress(done + count, known * views)
                done += count
                counts.append(count)
                self._check(seen, digest, counts, views)
        finally:
            for file in self.files:
                file.close()
        meta = {"format": FORMAT, "samples": counts[0], "views": views, "parts": self.parts}
        write_json(self.folder / "meta.json", meta)

    def _check(self, seen: StreamDigest, digest: str, counts: list[int], views: int) -> None:
        if len(set(counts)) > 1:
            raise NotCacheable(f"the data gave {counts[-2]} samples in one pass, then {counts[-1]}")
        if isinstance(self.data, Stream) and views == 1 and seen.hexdigest() != digest:
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
            inputs = self.prefix.program.graph.inputs
            rows += [x[inputs.index(index)] for index in self.passed]
            rows += [np.asarray(p) for p in (*_flat(y), *_flat(weight))]
        return rows

    def _storable(self, array: np.ndarray) -> np.ndarray:
        if array.dtype.kind not in "fiub":
            array = array.astype(np.float32)  # bfloat16: numpy has no name for it on disk
        if self.half and array.dtype.kind == "f" and array.dtype.itemsize > 2:
            small = array.astype(np.float16)
            if not np.isfinite(small).all() and np.isfinite(array).all():
                raise NotCacheable("values beyond 65,504 do not fit float16: use cache='auto'")
            return small
        return array

    def _write(self, rows: list[np.ndarray]) -> None:
        for i, row in enumerate(rows):
            if len(self.parts) <= i:
                self.parts.append({"dtype": row.dtype.str, "shape": list(row.shape[1:])})
                self.files.append((self.folder / f"part_{i}.bin").open("wb"))
            if list(row.shape[1:]) != self.parts[i]["shape"]:
                raise NotCacheable(
                    f"a tensor at the boundary changes its shape from batch to batch "
                    f"({self.parts[i]['shape']}, then {list(row.shape[1:])})"
                )
            self.written += row.nbytes
        if self.limit is not None and self.written > self.limit:
            raise NotCacheable(f"it would take more than the {self.limit / 1e9:.1f} GB allowed")
        for file, row in zip(self.files, rows, strict=True):
            file.write(np.ascontiguousarray(row).data)


def _open(
    home: Path,
    data: Rows | Stream,
    passed: tuple[int, ...],
    prefix: StepModel,
    first: Batch,
    reused: bool,
) -> Cached:
    meta = json.loads((home / "meta.json").read_text(encoding="utf-8"))
    n, views = meta["samples"], meta["views"]
    home.touch()  # `prune` goes by the time of the last use
    maps: list[Any] = []
    for i, part in enumerate(meta["parts"]):
        shape = (n * views, *part["shape"])
        maps.append(np.memmap(home / f"part_{i}.bin", dtype=part["dtype"], mode="r", shape=shape))
    count = len(prefix.program.outputs)
    made, masks = maps[:count], maps[count : count + len(prefix.program.emit_masks)]
    rest = maps[count + len(masks) :]
    if isinstance(data, Rows):
        inputs = prefix.program.graph.inputs
        through = [data.x[inputs.index(index)] for index in passed]
        rows = Rows((*made, *through, *masks), data.y, data.weight, n)
    else:
        through, rest = rest[: len(passed)], rest[len(passed) :]
        labels = len(_flat(first[1]))
        y = None if first[1] is None else tree.pack_sequence_as(first[1], rest[:labels])
        weight = None if first[2] is None else tree.pack_sequence_as(first[2], rest[labels:])
        rows = Rows((*made, *through, *masks), y, weight, n)
    nbytes = sum(part.nbytes for part in maps)
    return Cached(rows, home, reused, nbytes, views)


def _flat(structure: Any) -> list[Any]:
    return [] if structure is None else list(tree.flatten(structure))


def _step_text(step: Step) -> str:
    """What a step does, as text: class, settings, constants, and code that is not Keras' own."""
    operation = step.operation
    kind = operation if inspect.isfunction(operation) else type(operation)
    config: Any = None
    if hasattr(operation, "get_config"):
        try:
            config = operation.get_config()
        except Exception:
            config = repr(operation)  # holds an address: never found again, never wrong
    text = json.dumps(config, default=repr, sort_keys=True)
    code = ""
    if not str(kind.__module__).startswith("keras."):
        try:
            code = inspect.getsource(kind)
        except (OSError, TypeError):
            code = repr(operation)
    constants = repr((step.args, sorted(step.kwargs.items())))
    return "\n".join((kind.__module__, kind.__qualname__, text, constants, code))
