"""Does units of work on a Ray cluster (`pip install "unfreeze[ray]"`), one worker per core.

A unit is some recordings; what is made of it depends on the unit alone. A worker is an actor
that holds what is slow to make, such as a network, and does one unit after another. The results
come back to the process that asked, which alone writes: so recordings must be readable by every
machine under the same path, and nothing else need be shared.

Invariants: a worker or a machine that dies costs the units it was doing, which others do again;
a unit that takes several workers with it is reported, and the others continue. Nothing here
imports Ray unless units are done.
"""

import importlib
import logging
import math
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unfreeze.backend import first_line, has_module
from unfreeze.errors import RunError, UnfreezeError
from unfreeze.version import __version__

_log = logging.getLogger(__name__)

#: How work is spread: over the cores of this machine, or over a Ray cluster.
LOCAL, RAY = "local", "ray"
ENGINES = (LOCAL, RAY)

# Workers that may die over one unit: the unit is probably why.
_TRIES = 3
# Workers that may fail to start, one after the other.
_STARTS = 4
# Seconds between two looks at how many cores the cluster has.
_LOOK = 5.0
# Seconds without any worker after which the user is told.
_PATIENCE = 60.0
# Settings of this process that its workers must have, too.
_PASSED_ON = ("KERAS_BACKEND", "UNFREEZE_CUSTOM_OBJECTS", "UNFREEZE_ACCEPT_LICENCE")
# A worker has one core: more threads would wait for each other. It has no GPU: each would take
# all of its memory.
_ONE_CORE = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    **dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1"),
    "CUDA_VISIBLE_DEVICES": "-1",
}


@dataclass(frozen=True)
class Cluster:
    """Which Ray cluster to use.

    Give it as `cluster` to `embed`, `SoundClassifier.detect_files` and others: recordings are
    then read and scored there, with the same results.

    Attributes:
        address: as for `ray.init`: "auto" for the cluster that this machine is part of,
            `ray://HOST:10001` for another; None starts one on this machine alone.

    Examples:
        >>> unfreeze.Cluster("auto").address
        'auto'
    """

    address: str | None = None


@dataclass(frozen=True)
class Lost:
    """A unit that could not be done.

    Attributes:
        cause: why; a clause.
    """

    cause: str


def chosen_cluster(engine: str, address: str | None) -> Cluster | None:
    """The cluster that the options name; None for this machine's own cores.

    Args:
        engine: one of `ENGINES`.
        address: of a Ray cluster.

    Raises:
        UnfreezeError: the two do not fit, or Ray is not installed.
    """
    if engine not in ENGINES:
        raise UnfreezeError(f"There is no engine {engine!r}: give one of {', '.join(ENGINES)}")
    if engine == LOCAL:
        if address is not None:
            raise UnfreezeError("--address is of a Ray cluster: add --engine ray, or leave it out")
        return None
    if not has_module("ray"):
        raise UnfreezeError(
            "--engine ray needs Ray, which is not installed. Install it with: "
            "pip install 'unfreeze[ray]'"
        )
    return Cluster(address)


class Worker:
    """Does units in a process of the cluster.

    Args:
        make: "module:function" of what makes the work of its settings.
        settings: plain values and arrays.
        environment: variables to set first.
    """

    def __init__(self, make: str, settings: Any, environment: Mapping[str, str]) -> None:
        os.environ.update(environment)
        self._error: Exception | None = None
        try:
            module, _, name = make.partition(":")
            self._work: Callable[[Any], Any] = getattr(importlib.import_module(module), name)(
                settings
            )
        except Exception as error:
            self._error = error

    def about(self) -> tuple[str, str, str | None]:
        """The version of this package here, the machine's name, and what is wrong, if anything."""
        return __version__, socket.gethostname(), _text(self._error)

    def do(self, unit: Any) -> tuple[Any, str | None]:
        """Do a unit: the result, and the error that ended it, if any."""
        try:
            return self._work(unit), None
        except Exception as error:
            return None, _text(error)


def _text(error: Exception | None) -> str | None:
    if error is None or isinstance(error, UnfreezeError):
        return None if error is None else str(error)
    return f"{type(error).__name__}: {error}"


def run_units(
    cluster: Cluster, make: str, settings: Any, units: Sequence[Any]
) -> Iterator[tuple[int, Any]]:
    """Do units on a cluster, as many at once as it has cores.

    Args:
        cluster: where.
        make: "module:function", called once by each worker with `settings`; it returns what is
            called with each unit.
        settings: plain values, arrays and bytes; sent to each machine once.
        units: plain values and arrays.

    Yields:
        The number of each unit with its result, or `Lost`, as they are finished. Results of
        more units than there are workers do not pile up.

    Raises:
        UnfreezeError: the cluster cannot be reached, or its machines cannot do the work.
    """
    if not units:
        return
    ray = _connected(cluster)
    pool = _Pool(ray, make, settings)
    try:
        yield from pool.results(units)
    finally:
        pool.close()


def _connected(cluster: Cluster) -> Any:
    # Neither questions nor reports about the user's machine.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # What a future version does: a worker without GPUs is left as it is.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        return ray
    # Not None: that is whatever cluster was started last on this machine.
    more: dict[str, Any] = {"address": cluster.address}
    if cluster.address is None:
        more = {"address": "local", "include_dashboard": False}
    try:
        # The end of this process ends the connection, and a cluster of its own.
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **more)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        where = "on this machine" if cluster.address is None else f"at {cluster.address}"
        raise RunError(
            f"The Ray cluster {where} cannot be used ({first_line(error)}): start "
            "one with `ray start --head`, or give its --address"
        ) from error
    return ray


class _Pool:
    """The workers of a call."""

    def __init__(self, ray: Any, make: str, settings: Any) -> None:
        self._ray = ray
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        self._actor = ray.remote(Worker).options(num_cpus=1, max_restarts=0)
        self._args = make, ray.put(settings), {**_ONE_CORE, **environment}
        # By what they are waited for: those that begin, and those at work on a unit.
        self._beginning: dict[Any, Any] = {}
        self._working: dict[Any, tuple[Any, int]] = {}
        self._idle: list[Any] = []
        self._failed, self._looked, self._began = 0, -_LOOK, time.monotonic()

    def results(self, units: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """As `run_units`."""
        left, tries = deque(range(len(units))), Counter[int]()
        while left or self._working:
            self._grow(len(left))
            while left and self._idle:
                actor, number = self._idle.pop(), left.popleft()
                self._working[actor.do.remote(units[number])] = actor, number
            refs = [*self._working, *(self._beginning if left else ())]
            ready, _ = self._ray.wait(refs, num_returns=1, timeout=_LOOK)
            self._say_if_it_waits()
            for ref in ready:
                if ref in self._beginning:
                    self._begun(ref)
                    continue
                actor, number = self._working.pop(ref)
                try:
                    result, error = self._ray.get(ref)
                except self._ray.exceptions.RayError as death:
                    self._looked = -_LOOK
                    tries[number] += 1
                    if tries[number] < _TRIES:
                        left.appendleft(number)
                    else:
                        yield number, Lost(f"{_TRIES} workers died over it ({first_line(death)})")
                    continue
                self._idle.append(actor)
                yield number, result if error is None else Lost(error)

    def close(self) -> None:
        """End all workers."""
        working = [actor for actor, _ in self._working.values()]
        for actor in (*self._idle, *working, *self._beginning.values()):
            self._ray.kill(actor)

    def _say_if_it_waits(self) -> None:
        if time.monotonic() - self._began > _PATIENCE and not (self._idle or self._working):
            self._began = math.inf
            _log.warning(
                "note: no worker of the Ray cluster has begun in %d s, perhaps because its cores "
                "are in use: still waiting",
                _PATIENCE,
            )

    def _grow(self, units: int) -> None:
        """Start workers for units that wait, up to one per core; the cluster may have changed."""
        if time.monotonic() - self._looked < _LOOK:
            return
        self._looked = time.monotonic()
        cores = int(self._ray.cluster_resources().get("CPU", 0))
        there = len(self._idle) + len(self._working) + len(self._beginning)
        waiting = units - len(self._idle) - len(self._beginning)
        for _ in range(min(max(cores, 1) - there, waiting)):
            actor = self._actor.remote(*self._args)
            self._beginning[actor.about.remote()] = actor

    def _begun(self, ref: Any) -> None:
        actor = self._beginning.pop(ref)
        try:
            version, machine, error = self._ray.get(ref)
        except self._ray.exceptions.RayError as death:
            self._failed, self._looked = self._failed + 1, -_LOOK
            if self._failed >= _STARTS and not (self._idle or self._working):
                raise RunError(
                    f"No worker starts on the Ray cluster: {first_line(death)}. Is this version of "
                    "unfreeze installed on each of its machines?"
                ) from None
            return
        if version != __version__:
            raise RunError(
                f"The machine {machine} of the Ray cluster has unfreeze {version}, this one "
                f"{__version__}: install the same version on all of them"
            )
        if error is not None:
            raise RunError(f"The machine {machine} of the Ray cluster cannot do the work: {error}")
        self._failed, self._began = 0, math.inf
        self._idle.append(actor)
