"""All measurements behind the numbers that this package gives of itself.

    python -m benchmarks --setup          virtual environments for the others' libraries
    python -m benchmarks --quick          all, in short form, in 5 minutes on 2 cores
    python -m benchmarks --data DIR       all, in full
    python -m benchmarks --only forward,features --data DIR

DIR holds the folders `animal-sounds` and `spoken-digits`; without it, what needs
them is skipped. A run replaces only its own part of `benchmarks/results.json`.
This process stays small: each side's peak memory starts at its parent's.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import environments, report
from benchmarks.comparisons import ALL
from benchmarks.harness import run
from benchmarks.plan import Options
from unfreeze.files import write_json, write_text

_HERE = Path(__file__).resolve().parent
_FORMAT = 1


def main() -> None:
    """Run what was asked for, then write results, page and chart."""
    chosen = _arguments()
    if chosen.setup:
        environments.set_up()
        return
    names = chosen.only.split(",") if chosen.only else list(ALL)
    unknown = sorted(set(names) - set(ALL))
    if unknown:
        sys.exit(f"no comparison is named {', '.join(unknown)}; known: {', '.join(ALL)}")
    data = chosen.data.resolve() if chosen.data else None
    with tempfile.TemporaryDirectory(prefix="unfreeze-benchmarks-") as work:
        options = Options(
            work=Path(work),
            cache=_HERE / ".cache",
            quick=chosen.quick,
            data=data,
            rounds=chosen.rounds,
            epochs=chosen.epochs,
            patches=chosen.patches,
        )
        for name in names:
            _run_one(name, options, chosen.out)
    results = _read(chosen.out)
    full = Options(work=Path(), cache=Path(), data=Path())
    declared = [declare(full) for declare in ALL.values()]
    write_text(chosen.out.with_suffix(".md"), report.page(results, declared))
    report.chart(results, chosen.out.with_suffix(".png"))
    print(f"wrote {chosen.out.with_suffix('.md').name}")


def _run_one(name: str, options: Options, out: Path) -> None:
    comparison = ALL[name](options)
    if comparison.skipped:
        print(f"{name}: skipped, {comparison.skipped}", flush=True)
        return
    began = time.perf_counter()
    part = run(comparison, options.rounds)
    if options.quick:
        part["settings"]["quick"] = True
    print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    for ratio in part["ratios"]:
        print(f"  {ratio['text']}: {report.spread(ratio)} [{_verdict(ratio)}]")
    for side, cause in part["failed"].items():
        print(f"  {side} failed: {cause}")
    sys.stdout.flush()
    results = _read(out)
    results["comparisons"][name] = part
    results["comparisons"] = {
        n: results["comparisons"][n] for n in ALL if n in results["comparisons"]
    }
    write_json(out, results)


def _verdict(ratio: dict[str, Any]) -> str:
    if ratio["target"] is None:
        return ratio.get("missing", "no target")
    return f"target {ratio['target']:g}, {report.verdict_of(ratio)}"


def _read(path: Path) -> dict[str, Any]:
    if path.is_file():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if found.get("format") == _FORMAT:
            return found
    return {"format": _FORMAT, "comparisons": {}}


def _arguments() -> argparse.Namespace:
    options = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--quick", action="store_true", help="the short form")
    options.add_argument("--only", help="names, with commas: " + ", ".join(ALL))
    options.add_argument("--data", type=Path, help="folder with the two data sets")
    options.add_argument("--rounds", type=int, help="instead of each comparison's own number")
    options.add_argument("--epochs", type=int, help="cap for head_stage and time_to_best")
    options.add_argument("--patches", type=int, help="training patches of head_stage")
    options.add_argument("--setup", action="store_true", help="make the virtual environments")
    options.add_argument("--out", type=Path, default=_HERE / "results.json")
    return options.parse_args()


if __name__ == "__main__":
    main()
