"""What a stage trains on: whether its frozen prefix is cached, and the model and data made ready.

`make_ready` turns a stage's `cache` setting into a decision, with the reason in words for
the log, and returns the Keras model and data that will train. Before the run starts,
`check_caches` refuses a cache that cannot be made. All stages of a run share a `Job`.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras

from unfreeze.cache_room import CacheRoom
from unfreeze.core.boundary import Cut, cut_for, find_cut, share_of_work, why_uncached
from unfreeze.core.callbacks import StageCallback
from unfreeze.core.data import Rows, ShuffledRows, Stream, for_fit, kind_of
from unfreeze.core.data_parallel import divided, whole_batches
from unfreeze.core.fingerprints import Fingerprint, fingerprint
from unfreeze.core.graph import Graph
from unfreeze.core.layers import Selection
from unfreeze.core.mixup import MixedRows
from unfreeze.core.prefix_cache import Cached, NotCacheable, build
from unfreeze.core.run_callbacks import RunCallbacks
from unfreeze.core.schedule import HALVED, INSISTING, Stage
from unfreeze.core.step_model import StepModel, joined_model, prefix_model, suffix_model
from unfreeze.errors import ScheduleError, StageError, Stopped

OnCache = Callable[[str, int, int], None]
# The prefix runs forward only, so it can take more at once than training does.
_LEAST_PREFIX_BATCH = 64

log = logging.getLogger("unfreeze")


@dataclass(frozen=True, eq=False)
class Ready:
    """What a stage trains with.

    Attributes:
        model: to be compiled and fitted.
        train: for `fit`, with `shuffle=False`.
        validation: for `fit`, or None.
        cut: where the model was divided.
        note: what happened with the cache, in words.
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
    digests: dict[str, Fingerprint]

    def digest(self, what: str) -> Fingerprint:
        """Digest of `train` or `validation`."""
        if what not in self.digests:
            data = self.train if what == "train" else self.validation
            self.digests[what] = Fingerprint("") if data is None else fingerprint(data)
        found = self.digests[what]
        if what == "train" and isinstance(self.train, MixedRows):
            return replace(found, content=f"{found.content}, mixup {self.train.alpha}")
        return found

    def of_stage(self, stage: Stage) -> "Source":
        """What a stage trains on: samples are mixed where they are augmented, see `cut_for`."""
        augments = stage.augment and not (stage.solve and stage.views == 1)
        if augments or not isinstance(self.train, MixedRows):
            return self
        return replace(self, train=self.train.plain())


@dataclass(frozen=True, eq=False)
class Whole:
    """The model of a run, and how its parts are run.

    Attributes:
        model: the whole model.
        graph: the same, flattened.
        fuse: run convolutions and frozen BatchNorm as one.
    """

    model: keras.Model
    graph: Graph
    fuse: bool = True


@dataclass(frozen=True)
class Batches:
    """How a stage goes through its data.

    Attributes:
        size: samples per step; a stream has its own.
        seed: of the order of samples.
        devices: among which each is divided.
    """

    size: int
    seed: int
    devices: int = 1


def make_ready(
    whole: Whole,
    selection: Selection,
    source: Source,
    room: CacheRoom,
    batches: Batches,
    on_cache: OnCache | None = None,
) -> Ready:
    """Cut the model for a stage, fill the cache where that pays off, and set up the data.

    Args:
        whole: the model, its flags set for the stage.
        selection: what the stage trains.
        source: the run's data.
        room: where caches are stored.
        batches: size and order.
        on_cache: progress, called as `on_cache("train", done, total)`.

    Raises:
        StageError: the stage requires a cache (`INSISTING`, `views`) and none is
            possible; the message says why.
    """
    stage = selection.stage
    source = source.of_stage(stage)
    cut = cut_for(whole.graph, selection, _views(whole.graph, selection, source.train))
    refusal = why_not(cut, stage, source, room)
    if refusal is None:
        try:
            train, held = _fill(whole, cut, selection, source, room, batches, on_cache)
            return _on_cache(whole, cut, selection, source, batches, train, held)
        except NotCacheable as reason:
            refusal = str(reason)
    if insists(stage, cut):
        raise StageError(f"stage {stage.name!r} asks for a cache, but: {refusal}")
    cut = find_cut(whole.graph, selection.live)
    held_out = source.validation
    return Ready(
        model=joined_model(cut, whole.model, _updating(selection), whole.fuse),
        train=divided(for_fit(source.train, batches.size, batches.seed), batches.devices),
        validation=None if held_out is None else for_fit(held_out, _held(held_out, batches), None),
        cut=cut,
        note=f"not cached: {refusal}",
    )


def check_caches(
    graph: Graph, selections: list[Selection], source: Source, room: CacheRoom
) -> None:
    """Refuse stages that require a cache which is already known to be impossible.

    Raises:
        ScheduleError: names the stage and the reason.
    """
    for selection in selections:
        stage = selection.stage
        own = source.of_stage(stage)
        cut = cut_for(graph, selection, _views(graph, selection, own.train))
        refusal = why_not(cut, stage, own, room) if stage.epochs else None
        if refusal is not None and insists(stage, cut):
            raise ScheduleError(f"stage {stage.name!r} asks for a cache, but: {refusal}")


def insists(stage: Stage, cut: Cut) -> bool:
    """Whether a stage must not run without a cache (where there is anything to cache)."""
    return stage.solve or ((stage.cache in INSISTING or stage.views > 1) and cut.saves_work)


def why_not(cut: Cut, stage: Stage, source: Source, room: CacheRoom) -> str | None:
    """Why a stage is not cached, as far as that is known before the prefix runs."""
    if isinstance(source.train, MixedRows):
        if stage.views == 1:
            return "mixup draws other pairs in each epoch (views=k can cache it)"
        if cut.passed:
            return "an input goes past the frozen layers, and mixup changes it"
    # A solver needs what its head reads as an array, even where that costs no work.
    needed = cut.saves_work or (stage.solve and not cut.live_augmentation)
    if not cut.frontier or not needed:
        if cut.live_augmentation:
            names = ", ".join(cut.live_augmentation[:3])
            return f"{names} draws at random before the frozen layers (views=k can cache it)"
        return "no frozen layer with weights comes before what trains"
    if isinstance(source.train, Stream) and source.train.steps is not None:
        kind = kind_of(source.train.source)
        return f"the {kind} has no end (steps_per_epoch={source.train.steps})"
    unasked = why_uncached(stage, share_of_work(cut.graph, cut.prefix))
    if unasked is not None:
        return unasked
    size = cut.bytes_per_sample(2 if stage.cache in HALVED else 4)
    if size is not None and isinstance(source.train, Rows):
        count = source.train.n * stage.views
        count += source.validation.n if isinstance(source.validation, Rows) else 0
        allowed = room.allowed()
        if size * count > allowed:
            return f"it would take {size * count / 1e9:.1f} GB, {allowed / 1e9:.1f} GB are allowed"
    return None


def _views(graph: Graph, selection: Selection, train: Rows | Stream) -> int:
    """Variants of each sample: one where nothing draws at random, whatever the stage says."""
    views = selection.stage.views
    if views == 1 or isinstance(train, Stream):
        return views
    if isinstance(train, MixedRows) or cut_for(graph, selection, views).augmentation:
        return views
    return 1


def _fill(
    whole: Whole,
    cut: Cut,
    selection: Selection,
    source: Source,
    room: CacheRoom,
    batches: Batches,
    on_cache: OnCache | None,
) -> tuple[Cached, Cached | None]:
    """The caches of training and validation data."""
    coarse = selection.stage.cache == "bfloat16"
    made: dict[Any, StepModel] = {}

    def make_prefix(part: Cut, masks: tuple[int, ...]) -> StepModel:
        # One model for both data sets: to compile it takes a second or more.
        key = (part.augmentation, masks)
        if key not in made:
            made[key] = prefix_model(part, whole.model, masks, whole.fuse, coarse)
        return made[key]

    def fill(what: str, data: Rows | Stream, cut: Cut, views: int) -> Cached:
        def progress(done: int, total: int) -> None:
            if on_cache is not None:
                on_cache(what, done, total)

        return build(
            cut,
            make_prefix,
            data,
            source.digest(what),
            room,
            half=selection.stage.cache in HALVED,
            bfloat16=coarse,
            views=views,
            fused=whole.fuse,
            batch_size=max(batches.size, _LEAST_PREFIX_BATCH),
            progress=progress,
        )

    train = fill("train", source.train, cut, _views(whole.graph, selection, source.train))
    if source.validation is None:
        return train, None
    # Augmentation is off for validation data, as it is in Keras.
    return train, fill("validation", source.validation, replace(cut, augmentation=frozenset()), 1)


def _on_cache(
    whole: Whole,
    cut: Cut,
    selection: Selection,
    source: Source,
    batches: Batches,
    train: Cached,
    held: Cached | None,
) -> Ready:
    """The model and data that train on filled caches."""
    masked = tuple(cut.frontier[i] for i in train.masks)
    fixed = isinstance(source.train, Stream) and not source.train.indexed
    size = train.nbytes + (held.nbytes if held else 0)
    word = "reused" if train.reused and (held is None or held.reused) else "cached"
    if train.mended or (held is not None and held.mended):
        word = "cached again, because the earlier cache was damaged"
    feed = ShuffledRows(
        train.rows,
        batches.size,
        batches.seed,
        views=train.views,
        sizes=train.sizes,
        keep_order=fixed and train.sizes is not None,
    )
    validation = None
    if held is not None:
        validation = ShuffledRows(held.rows, _held(held.rows, batches), None, sizes=held.sizes)
    return Ready(
        model=suffix_model(cut, whole.model, _updating(selection), masked, whole.fuse),
        train=divided(feed, batches.devices),
        validation=validation,
        cut=cut,
        note=f"{word}: {len(cut.prefix)} frozen steps run once ({size / 1e6:,.1f} MB)",
    )


def _held(data: Rows | Stream, batches: Batches) -> int:
    """Samples a batch of validation data."""
    if isinstance(data, Stream):
        return batches.size
    return whole_batches(data.n, batches.size, batches.devices)


def _updating(selection: Selection) -> frozenset[int]:
    return frozenset(id(v) for v in selection.updating)


@dataclass(frozen=True, eq=False)
class Job:
    """What all stages of a run share.

    Attributes:
        whole: the model.
        source: the data.
        room: where caches are stored.
        compile_with: for `compile`, besides the optimizer.
        callbacks: the user's, for every stage.
        batch_size: for stages and datasets that do not set their own.
        seed: of the run.
        class_weight: as for Keras' `fit`.
        monitor: of the schedule.
        score: scores all predictions for the validation data, or None.
        run_dir: keeps finished stages and the state of the one that trains, or None.
        run_callbacks: the same callbacks, to be passed on as those of one run.
        devices: among which each batch is divided.
        tells_errors: whether standard errors decide which stage is kept.
    """

    whole: Whole
    source: Source
    room: CacheRoom
    compile_with: dict[str, Any]
    callbacks: tuple[keras.callbacks.Callback, ...]
    batch_size: int
    seed: int
    class_weight: dict[int, float] | None
    monitor: str
    score: Callable[[Any], Mapping[str, float]] | None
    run_dir: Path | None
    run_callbacks: RunCallbacks
    devices: int = 1
    tells_errors: bool = False

    @property
    def model(self) -> keras.Model:
        """The whole model."""
        return self.whole.model

    @property
    def listeners(self) -> list[StageCallback]:
        """Callbacks that are called for stages."""
        return [c for c in self.callbacks if isinstance(c, StageCallback)]

    def wants_to_stop(self) -> bool:
        """Whether a listener wants the run to end."""
        return any(listener.wants_to_stop() for listener in self.listeners)

    def stop_if_asked(self) -> None:
        """Call it where all finished work is saved.

        Raises:
            Stopped: a listener wants the run to end.
        """
        if self.wants_to_stop():
            raise Stopped

    def note(self, text: str) -> None:
        """Send a line to the log and the listeners."""
        self._tell(logging.INFO, text)

    def warn(self, text: str) -> None:
        """The same, for what the user should look at."""
        self._tell(logging.WARNING, text)

    def _tell(self, level: int, text: str) -> None:
        log.log(level, text)
        for listener in self.listeners:
            if level < logging.WARNING or listener.hears_warnings:
                listener.on_note(text)
