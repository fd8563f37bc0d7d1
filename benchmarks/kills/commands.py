"""What is killed: each command, how it is started again, and what the disk says of its state.

A new command is one entry of `COMMANDS`: the words that start it, those that are
added to start it again, the files that it leaves, and where it tells of its phases.
"""

import json
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from unfreeze.core.schedule import ReduceRate, Schedule, Stage
from unfreeze.core.schedule_file import write_schedule

UNFREEZE = ("-c", "from unfreeze.cli import main; main()")
OFTEN = ("-m", "benchmarks.sides.every_epoch")
OVER = "after the scores"
# Of each twelve kills; a chosen part of the commands keeps its order.
ORDER = (
    "train", "predict", "features", "cache", "every-epoch", "compare",
    "train", "predict", "features", "train", "every-epoch", "tune",
)  # fmt: skip

# Small stages, so that checkpoints fall due in them, with all that must come back:
# rates that were reduced, slots of two optimizers, rates by layer, dropout,
# statistics of BatchNorm, best epochs; the last stage changes every weight.
TRAINED = Schedule(
    (
        Stage("head", "head", epochs=25, learning_rate=0.01, reduce=ReduceRate(patience=1)),
        Stage(
            "norms",
            ["head", "block14_*_bn"],
            epochs=4,
            learning_rate=1e-3,
            optimizer="AdamW",
            batch_norm="train",
            layer_decay=0.8,
            reduce=ReduceRate(patience=1),
        ),
        Stage("all", "all", epochs=2, learning_rate=1e-4, reduce=ReduceRate(patience=1)),
    ),
    name="kills",
)
CACHED = Schedule((Stage("top", "top:50%", epochs=2, learning_rate=1e-4),), name="cache")


@dataclass(frozen=True)
class Material:
    """What the commands work on, made once.

    Attributes:
        folder: of all of it.
        few: sounds to train on, a folder a class.
        many: sounds for the feature store.
        field: recordings to search.
        run: a finished run, for `predict`.
        here: where each command runs; of its results some tell where they are.
    """

    folder: Path

    @property
    def few(self) -> Path:
        return self.folder / "few"

    @property
    def many(self) -> Path:
        return self.folder / "many"

    @property
    def field(self) -> Path:
        return self.folder / "field"

    @property
    def run(self) -> Path:
        return self.folder / "train" / "run"

    @property
    def here(self) -> Path:
        return self.folder / "here"

    def schedule(self, schedule: Schedule) -> str:
        """Write a schedule where the commands find it."""
        path = self.folder / f"{schedule.name}.yaml"
        if not path.exists():
            write_schedule(schedule, path)
        return str(path)


def phase_of_training(place: Path) -> str:
    """Tell from the disk what `unfreeze train --out run` is doing in a folder."""
    run = place / "run"
    if (run / "metrics.json").exists():
        return OVER
    if not (run / "config.yaml").exists():
        return phase_of_features(place) or "start and reading"
    half = writing(run) or writing(run / "stages")
    if half:
        return half
    record = _json(run / "stages" / "fit.json")
    if record is None:
        return "before the first stage"
    names, number = list(record["run"]["schedule"]), len(record["stages"])
    if number == len(names):
        return "scoring and writing"
    if any((place / "cache" / "prefixes").glob(".partial-*")):
        return f"cache of stage {names[number]}"
    kept = _checkpoint(run / "stages" / "epoch.safetensors") == number
    return f"stage {names[number]}, {'after' if kept else 'before'} its first checkpoint"


def phase_of_features(place: Path) -> str:
    """Tell from the disk whether a feature store is being built."""
    stores = [p for p in (place / "cache" / "features").glob("*") if p.is_dir()]
    if not stores:
        return ""
    half = writing(stores[0])
    return half or ("features ready" if (stores[0] / "meta.json").exists() else "features begin")


def phase_of_search(place: Path) -> str:
    """Tell from the disk how far `unfreeze predict --out found` is."""
    journal = place / "found" / "unfreeze-events.jsonl"
    if not journal.exists():
        return "start"
    done = max(journal.read_bytes().count(b"\n") - 1, 0)
    return writing(place / "found") or ("search" if done else "before the first recording")


def phase_of_runs(place: Path) -> str:
    """Tell from the disk how far `unfreeze compare` or `unfreeze tune` is."""
    out = place / "out"
    if not (out / "config.yaml").exists():
        return phase_of_features(place) or "start and reading"
    half = writing(out) or writing(out / "runs")
    if half:
        return half
    done = len(list((out / "runs").glob("*.json")))
    state = next((out / "current").glob("*"), None)
    if state is None:
        return f"after {done} runs"
    record = _json(state / "fit.json")
    stage = 0 if record is None else len(record["stages"])
    return f"run {done + 1}, stage {stage + 1}"


def writing(folder: Path) -> str:
    """The file that is half-written in a folder, in words; empty for none."""
    found = next(folder.glob(".partial-*"), None)
    return f"writing {found.name.split('-', 2)[2]}" if found else ""


def _json(path: Path) -> dict | None:
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        return None


def _checkpoint(path: Path) -> int | None:
    """The number of the stage that a checkpoint belongs to."""
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            return int(
                json.loads(json.loads(file.read(size))["__metadata__"]["unfreeze"])["number"]
            )
    except (OSError, ValueError, KeyError, struct.error):
        return None


@dataclass(frozen=True)
class Command:
    """A command that is killed.

    Attributes:
        words: after the interpreter, to start it in an empty folder.
        again: what is added to start it again.
        results: folders and files below its folder that must end the same.
        phase: tells its state from its folder.
        aims: which phases are aimed at; others are hit by chance.
        same_as: the command whose undisturbed results it must have.
    """

    words: Callable[[Material], list[str]]
    results: tuple[str, ...]
    phase: Callable[[Path], str]
    again: tuple[str, ...] = ()
    aims: Callable[[str], bool] = lambda phase: True
    same_as: str = ""


def _train(start: tuple[str, ...], schedule: Schedule) -> Callable[[Material], list[str]]:
    def words(material: Material) -> list[str]:
        plan = material.schedule(schedule)
        return [*start, "train", str(material.few), "--out", "run", "--schedule", plan]

    return words


def _runs(*more: str) -> Callable[[Material], list[str]]:
    def words(material: Material) -> list[str]:
        name, *rest = more
        return [*UNFREEZE, name, str(material.few), "--out", "out", *rest]

    return words


_TRAINING = {
    "results": ("run", "cache"),
    "again": ("--resume",),
    "phase": phase_of_training,
}
COMMANDS = {
    "train": Command(_train(UNFREEZE, TRAINED), **_TRAINING),
    # The same with a checkpoint after each epoch, however much of the time that takes.
    "every-epoch": Command(_train(OFTEN, TRAINED), **_TRAINING, same_as="train"),
    "cache": Command(
        _train(UNFREEZE, CACHED), **_TRAINING, aims=lambda phase: phase.startswith("cache of")
    ),
    # Their tables and pictures tell seconds; what is compared is all that these are made of.
    "compare": Command(
        _runs("compare", "--strategies", "head_only,two_stage+epochs=2", "--seeds", "1",
              "--epochs", "8"),
        results=("out/config.yaml", "out/runs"),
        phase=phase_of_runs,
    ),
    "tune": Command(
        _runs("tune", "--trials", "3", "--splits", "1", "--epochs", "2"),
        results=("out/config.yaml", "out/runs", "out/tuning.json", "out/best.yaml"),
        phase=phase_of_runs,
    ),
    "features": Command(
        lambda m: ["-m", "benchmarks.sides.build_features", str(m.many), "cache/features/all"],
        results=("cache",),
        phase=lambda place: phase_of_features(place) or "start and reading",
    ),
    "predict": Command(
        lambda m: [
            *UNFREEZE, "predict", str(m.run), str(m.field),
            "--recursive", "--format", "csv", "--out", "found",
        ],
        results=("found",),
        phase=phase_of_search,
    ),
}  # fmt: skip


def command_line(command: Command, material: Material, again: bool) -> list[str]:
    """The command, to start or to go on."""
    return [sys.executable, *command.words(material), *(command.again if again else ())]
