"""One stage made ready: cut, cache, and the Keras model and data that will train.

This is where a stage's `cache` setting becomes a decision, with a reason in
words for the log.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras

from unfreeze.core.cache import Cached, NotCacheable, build, mixes_samples
from unfreeze.core.data import Rows, ShuffledRows, Stream, fingerprint
from unfreeze.core.graph import Graph
from unfreeze.core.runner import StepModel, joined_model, masks_of, prefix_model, suffix_model
from unfreeze.core.select import Selection
from unfreeze.core.split import Cut, find_cut
from unfreeze.errors import StageError

OnCache = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Ready:
    """What a stage trains with.

    Attributes:
        model: to be compiled and fitted.
        train: for `fit`.
        validation: for `fit`, or None.
        cut: where the model was divided.
        note: what became of the cache, in words.
    """

    model: StepModel
    train: Any
    validation: Any
    cut: Cut
    note: str


@dataclass(frozen=True, eq=False)
class Source:
    """The data of a run, with digests worked out once, when a cache first needs them."""

    train: Rows | Stream
    validation: Rows | Stream | None
    digests: dict[str, str]

    def digest(self, what: str) -> str:
        """Digest of `train` or `validation`."""
        if what not in self.digests:
            data = self.train if what == "train" else self.validation
            self.digests[what] = "" if data is None else fingerprint(data)
        return self.digests[what]


def make_ready(
    model: keras.Model,
    graph: Graph,
    selection: Selection,
    source: Source,
    *,
    batch_size: int,
    seed: int,
    folder: Path,
    limit: int | None,
    fuse: bool = True,
    on_cache: OnCache | None = None,
) -> Ready:
    """Cut the model for a stage, fill the cache where that pays, and set up the data.

    Args:
        model: the whole model, its flags set for the stage.
        graph: the model, flattened.
        selection: what the stage trains.
        source: the run's data.
        batch_size: samples a step.
        seed: of the order of samples.
        folder: holds caches.
        limit: bytes that one cache may take; None is half of the free disk.
        fuse: run convolutions and frozen BatchNorm as one.
        on_cache: progress, called as `on_cache("train", done, total)`.

    Raises:
        StageError: the stage insists on a cache ("always", "float16", `views`)
            and none can be had; says why.
    """
    stage = selection.stage
    cut = find_cut(graph, selection.live, views=stage.views)
    updating = frozenset(id(v) for v in selection.updating)
    refusal = _why_not(cut, selection, source, folder, limit)
    insists = stage.cache in ("always", "float16") or stage.views > 1
    if refusal is None:
        limit = limit if limit is not None else _half_of_free(folder)
        try:
            return _cached(
                model, cut, selection, source, updating, batch_size, seed, folder, limit, fuse,
                on_cache,
            )  # fmt: skip
        except NotCacheable as reason:
            refusal = str(reason)
    if insists and cut.saves_work:
        raise StageError(f"stage {stage.name!r} asks for a cache, but: {refusal}")
    if stage.views > 1:
        cut = find_cut(graph, selection.live)
    joined = joined_model(cut, model, updating, fuse)
    train = _feed(source.train, batch_size, seed)
    validation = None if source.validation is None else _feed(source.validation, batch_size, None)
    return Ready(joined, train, validation, cut, f"not cached: {refusal}")


def _why_not(
    cut: Cut, selection: Selection, source: Source, folder: Path, limit: int | None
) -> str | None:
    """Why a stage is not cached, as far as that is known before the prefix runs."""
    stage = selection.stage
    if not cut.frontier or not cut.saves_work:
        if cut.live_augmentation:
            names = ", ".join(cut.live_augmentation[:3])
            return f"{names} draws at random before the frozen layers (views=k can cache it)"
        return "no frozen layer with weights comes before what trains"
    if stage.cache == "never":
        return "the stage says cache='never'"
    if stage.cache != "auto" or stage.views > 1:
        return None
    if stage.epochs < 2:
        return "one epoch would use it only once"
    size = cut.bytes_per_sample()
    if size is not None and isinstance(source.train, Rows):
        count = source.train.n
        count += source.validation.n if isinstance(source.validation, Rows) else 0
        allowed = limit if limit is not None else _half_of_free(folder)
        if size * count > allowed:
            return f"it would take {size * count / 1e9:.1f} GB, {allowed / 1e9:.1f} GB are allowed"
    return None


def _cached(
    model: keras.Model,
    cut: Cut,
    selection: Selection,
    source: Source,
    updating: frozenset[int],
    batch_size: int,
    seed: int,
    folder: Path,
    limit: int,
    fuse: bool,
    on_cache: OnCache | None,
) -> Ready:
    stage = selection.stage
    first = next(iter(source.train.batches(2)))
    probe = prefix_model(cut, model, fused=fuse)
    if mixes_samples(probe, [part[:2] for part in first[0]]):
        raise NotCacheable("the frozen layers mix the samples of a batch")
    masks = masks_of(probe, [part[:2] for part in first[0]])
    prefix = prefix_model(cut, model, masks, fused=fuse)

    def fill(what: str, data: Rows | Stream, views: int) -> Cached:
        def progress(done: int, total: int) -> None:
            if on_cache is not None:
                on_cache(what, done, total)

        return build(
            cut, prefix, data, source.digest(what), folder,
            half=stage.cache == "float16", views=views, batch_size=max(batch_size, 64),
            limit=limit, progress=progress,
        )  # fmt: skip

    train = fill("train", source.train, stage.views)
    held = None
    if source.validation is not None:
        plain = _without_augmentation(cut) if stage.views > 1 else cut
        if stage.views > 1:
            prefix = prefix_model(plain, model, masks, fused=fuse)
        held = fill("validation", source.validation, 1)
    suffix = suffix_model(cut, model, updating, tuple(cut.frontier[i] for i in masks), fuse)
    size = train.nbytes + (held.nbytes if held else 0)
    word = "reused" if train.reused and (held is None or held.reused) else "cached"
    return Ready(
        model=suffix,
        train=ShuffledRows(train.rows, batch_size, seed, views=train.views),
        validation=None if held is None else ShuffledRows(held.rows, batch_size, None),
        cut=cut,
        note=f"{word}: {len(cut.prefix)} frozen steps run once ({size / 1e6:,.1f} MB)",
    )


def _without_augmentation(cut: Cut) -> Cut:
    """The same cut with augmentation off, for validation data."""
    return replace(cut, augmentation=frozenset())


def _feed(data: Rows | Stream, batch_size: int, seed: int | None) -> Any:
    return ShuffledRows(data, batch_size, seed) if isinstance(data, Rows) else data.native()


def _half_of_free(folder: Path) -> int:
    there = next(p for p in (folder, *folder.parents) if p.exists())
    return shutil.disk_usage(there).free // 2
