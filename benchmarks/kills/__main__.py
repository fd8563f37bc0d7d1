"""Commands killed at random moments and started again: do they end as if they had not been?

    python -m benchmarks.kills --kills 5       the short form, of a few minutes
    python -m benchmarks.kills                 50 kills, an hour on 2 cores

Each command runs once undisturbed. Then, for each kill, it is started in an empty
folder with empty caches, killed by SIGKILL at a random moment, a third of the times
killed once more as it goes on, and started again with --resume until it ends. What
it leaves is compared with what the undisturbed one left, to the bit: weights, history,
scores, pictures, caches, results of a search. The exit code is 1 if anything differs.

Kills are drawn by the seed, and those that stand in the log already are not done again.
"""

import argparse
import json
import os
import sys
from collections import Counter
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks.kills.commands import COMMANDS, ORDER, Material
from benchmarks.kills.compare import describe
from benchmarks.kills.material import make_material, same_code
from benchmarks.kills.trial import THREADS, Watched, killed, undisturbed
from benchmarks.machine import machine

_HERE = Path(__file__).resolve().parent.parent
_FORMAT = 1


def main() -> None:
    """Do what is not in the log yet; then the summary of all."""
    chosen = _arguments()
    names = chosen.commands.split(",")
    unknown = sorted(set(names) - set(COMMANDS))
    if unknown:
        sys.exit(f"no command is named {', '.join(unknown)}; known: {', '.join(COMMANDS)}")
    plan = list(islice(cycle([n for n in ORDER if n in names]), chosen.kills))
    head = {
        "kills_log": _FORMAT,
        "seed": chosen.seed,
        "clips": chosen.clips,
        "code": same_code(),
        "threads": THREADS,
        "versions": {name: version(name) for name in ("keras", "tensorflow", "numpy")},
        "machine": machine(),
    }
    done = _begin(chosen.out, head)
    material = make_material(chosen.work, chosen.clips)
    references: dict[str, Watched] = {}
    for number, name in enumerate(plan):
        if number in done:
            continue
        line = {"number": number, "command": name}
        line |= _one(name, material, references, np.random.default_rng([chosen.seed, number]))
        done[number] = line
        with chosen.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(_told(line), flush=True)
    lines = [done[number] for number in sorted(done) if number < chosen.kills]
    print(_summary(lines))
    sys.exit(any(line["differences"] for line in lines))


def _one(
    name: str, material: Material, references: dict[str, Watched], rng: np.random.Generator
) -> dict:
    command = COMMANDS[name]
    if name == "predict" and not material.run.is_dir():
        _reference("train", material, references)
    _reference(name, material, references)
    expected = describe(material.folder / (command.same_as or name), command.results)
    return killed(command, material, material.here, expected, references[name], rng)


def _reference(name: str, material: Material, references: dict[str, Watched]) -> None:
    """Run a command undisturbed, if that was not done before."""
    if name in references:
        return
    place = material.folder / name
    note = place.with_suffix(".json")
    if not note.is_file():
        print(f"{name}: undisturbed", end="", flush=True)
        found = undisturbed(COMMANDS[name], material, material.here)
        material.here.rename(place)
        note.write_text(json.dumps({"seconds": found.seconds, "phases": found.phases}))
        print(f", {found.seconds:.0f} s", flush=True)
    references[name] = Watched(**json.loads(note.read_text()))


def _begin(log: Path, head: dict) -> dict[int, dict]:
    """The kills that stand in the log; a new log gets its first line."""
    if not log.is_file():
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(json.dumps(head) + "\n", encoding="utf-8")
        return {}
    before, *lines = map(json.loads, log.read_text(encoding="utf-8").splitlines())
    for name in ("kills_log", "seed", "clips", "code", "threads", "versions"):
        if before.get(name) != head[name]:
            sys.exit(f"{log} was begun with another {name}: give another --out, or remove it")
    return {line["number"]: line for line in lines}


def _told(line: dict) -> str:
    moments = ", again at ".join(f"{k['at']:.1f} s ({k['phase']})" for k in line["kills"])
    found = line["differences"]
    verdict = "equal" if not found else f"DIFFERENT: {'; '.join(found[:5])}"
    return f"{line['number']:3} {line['command']:12} killed at {moments}: {verdict}"


def _summary(lines: list[dict]) -> str:
    """How many kills in which phase of which command, and how many results were equal."""
    rows = []
    for name in dict.fromkeys(line["command"] for line in lines):
        own = [line for line in lines if line["command"] == name]
        phases = Counter(kill["phase"] for line in own for kill in line["kills"])
        equal = sum(not line["differences"] for line in own)
        rows.append(f"{name}: {len(own)} times, {sum(phases.values())} kills, {equal} equal")
        rows += [f"    {count:3} {phase}" for phase, count in phases.most_common()]
    equal = sum(not line["differences"] for line in lines)
    return "\n".join([*rows, f"{equal} equal results of {len(lines)}"])


def _arguments() -> argparse.Namespace:
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.kills",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--kills", type=int, default=50)
    options.add_argument("--commands", default=",".join(COMMANDS), help="names, with commas")
    options.add_argument("--seed", type=int, default=0, help="of the moments")
    options.add_argument("--clips", type=int, default=6, help="of each of 20 classes to train on")
    options.add_argument("--out", type=Path, default=_HERE / ".cache" / "kills.jsonl")
    options.add_argument("--work", type=Path, default=_HERE / ".cache" / "kills")
    chosen = options.parse_args()
    chosen.out, chosen.work = chosen.out.absolute(), chosen.work.absolute()
    return chosen


if __name__ == "__main__":
    main()
