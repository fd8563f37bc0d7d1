"""One command in an empty folder: undisturbed and watched, or killed and started again."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kills.commands import Command, Material, command_line
from benchmarks.kills.compare import describe, differences
from unfreeze.backbones.pretrained_weights import resolve_weights
from unfreeze.backbones.yamnet_spec import YAMNET_WEIGHTS

ROOT = Path(__file__).resolve().parents[2]
# Results are the same to the bit for the same number of threads; one that is set is kept.
THREADS = int(os.environ.get("TF_NUM_INTRAOP_THREADS", "2"))
_LOOK = 0.003
# A command that hangs is a failure, too.
_PATIENCE = 20.0


@dataclass(frozen=True)
class Watched:
    """An undisturbed run.

    Attributes:
        seconds: of all of it.
        phases: seconds that each phase lasted, in the order of their beginning.
    """

    seconds: float
    phases: dict[str, float]


class Start:
    """A started command in a folder of its own; what it prints is kept beside its results."""

    def __init__(self, command: Command, material: Material, place: Path, again: bool) -> None:
        self.place, self.phase = place, command.phase
        self._log = (place / "printed.txt").open("ab")
        self._process = subprocess.Popen(
            command_line(command, material, again),
            cwd=place,
            env=environment(place),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.began = time.perf_counter()

    def watch(self, until: float, look: Callable[[str], None] = lambda phase: None) -> bool:
        """Look at its state until some seconds after the start. Returns whether it still runs."""
        while (left := self.began + until - time.perf_counter()) > 0:
            if self._process.poll() is not None:
                return False
            look(self.phase(self.place))
            time.sleep(min(_LOOK, left))
        return self._process.poll() is None

    def kill(self) -> str:
        """Kill it and all that it started, without a warning. Returns what it was doing."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self.end(None)
        return self.phase(self.place)

    def end(self, timeout: float | None) -> int:
        """Wait for its end."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            code = self._process.wait()
        self._log.close()
        return code

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.began


def environment(place: Path) -> dict[str, str]:
    """A cache of its own, the same threads always, no colours."""
    threads = dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), str(THREADS))
    threads |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(THREADS))
    own = {
        "UNFREEZE_CACHE": str(place / "cache"),
        "UNFREEZE_YAMNET_WEIGHTS": str(resolve_weights(YAMNET_WEIGHTS)),
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src"))),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "MPLBACKEND": "Agg",
        "NO_COLOR": "1",
    }
    return {**os.environ, **threads, **own}


def undisturbed(command: Command, material: Material, place: Path) -> Watched:
    """Run a command to its end and note when which phase began."""
    _empty(place)
    begins: dict[str, float] = {}
    lasted: dict[str, float] = {}
    now = ["", 0.0]
    started = Start(command, material, place, again=False)

    def look(phase: str) -> None:
        at = started.elapsed()
        begins.setdefault(phase, at)
        if now[0]:
            lasted[now[0]] = lasted.get(now[0], 0.0) + at - now[1]
        now[:] = [phase, at]

    started.watch(3600, look)
    if (code := started.end(10)) != 0:
        raise SystemExit(f"the undisturbed command ended with {code}: see {place}/printed.txt")
    seconds = started.elapsed()
    return Watched(seconds, {phase: round(lasted.get(phase, 0.0), 3) for phase in begins})


def killed(
    command: Command,
    material: Material,
    place: Path,
    expected: dict[str, str],
    normal: Watched,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Kill a command at a random moment, perhaps again when it goes on, and let it end.

    Half of the moments are anywhere in the command's time. The other half are anywhere
    in one of its phases, each as likely, for some last for a hundredth of a second.

    Returns:
        `kills`: seconds and phase of each, `differences` (empty when the result is the
        same), `seconds` of the whole.
    """
    began, kills, missed = time.perf_counter(), [], 0
    again = rng.uniform() < 1 / 3
    while not kills:
        _empty(place)
        started = Start(command, material, place, again=False)
        if _wait_for_moment(started, command, normal, rng):
            at = started.elapsed()
            kills.append({"at": round(at, 3), "phase": started.kill()})
        else:
            started.end(None)
            missed += 1
            if missed > 5:
                raise SystemExit(f"the command ended before it could be killed: see {place}")
    code = None
    if again:
        started = Start(command, material, place, again=True)
        if started.watch(rng.uniform(0.1, 1.0) * normal.seconds):
            at = started.elapsed()
            kills.append({"at": round(at, 3), "phase": started.kill(), "again": True})
        else:
            code = started.end(None)
    if code is None:
        code = Start(command, material, place, again=True).end(_PATIENCE * normal.seconds + 60)
    found = differences(expected, describe(place, command.results))
    if code:
        found.insert(0, f"it ended with code {code}")
        shutil.copy(place / "printed.txt", place.with_name("printed-last-failure.txt"))
    return {
        "kills": kills,
        "differences": found,
        "seconds": round(time.perf_counter() - began, 1),
    }


def _wait_for_moment(
    started: Start, command: Command, normal: Watched, rng: np.random.Generator
) -> bool:
    """Wait until the moment to kill. Returns False when the command ended before."""
    aims = [phase for phase in normal.phases if command.aims(phase)]
    everywhere = len(aims) == len(normal.phases) and rng.uniform() < 0.5
    part = rng.uniform()
    if everywhere:
        return started.watch(part * normal.seconds)
    aim = aims[rng.integers(len(aims))]
    # Once there, it lasts about as long as in the undisturbed run. One that was too short to
    # be seen is over when a later one is there.
    order = list(normal.phases)
    while (now := started.phase(started.place)) not in order or order.index(now) < order.index(aim):
        if not started.watch(started.elapsed() + 2 * _LOOK):
            return False
    return started.watch(started.elapsed() + part * normal.phases[aim])


def _empty(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
