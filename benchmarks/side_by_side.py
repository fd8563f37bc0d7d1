"""One small task in four tools: plain Keras, `unfreeze`, Lightning with finetuning-scheduler, PEFT.

    python -m benchmarks --setup
    python -m benchmarks.side_by_side [--seeds 3] [--out benchmarks/side_by_side.json]

Counts the lines of each program in `benchmarks.same_task`, runs each in a process of its own for
each seed, on one core, and writes accuracies and seconds. All four run on the same PyTorch, in the
environment `side_by_side`, or with this interpreter where that is not set up. A program that
cannot run is reported with the cause. The weights that all start from are pretrained in the
first run and kept in `benchmarks/.cache`.
"""

import argparse
import ast
import hashlib
import io
import os
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks import harness
from benchmarks.environments import EnvironmentMissing, python_of
from benchmarks.plan import Comparison, Side
from benchmarks.processes import FreshProcess
from unfreeze.files import write_json

_HERE = Path(__file__).resolve().parent
_ENVIRONMENT = "side_by_side"
PROGRAMS = {
    "plain Keras": "plain_keras",
    "unfreeze": "with_unfreeze",
    "Lightning with finetuning-scheduler": "with_lightning",
    "PEFT": "with_peft",
}

# Layout, not code.
_BLANK = {
    tokenize.ENCODING,
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


@dataclass(frozen=True)
class Lines:
    """Lines of a program.

    Attributes:
        code: without imports, docstrings, comments and blank lines.
        imports: lines of import statements.
    """

    code: int
    imports: int


def count_lines(text: str) -> Lines:
    """Count the lines of a Python program."""
    used: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _BLANK:
            used |= _span(token.start[0], token.end[0])
    imports: set[int] = set()
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports |= _span(node.lineno, node.end_lineno)
        is_block = isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        )
        if is_block and ast.get_docstring(node, clean=False) is not None:
            docstrings |= _span(node.body[0].lineno, node.body[0].end_lineno)
    return Lines(code=len(used - imports - docstrings), imports=len(imports & used))


def _span(first: int, last: int | None) -> set[int]:
    return set(range(first, (last or first) + 1))


class SeededProcess:
    """A program that is a new process in each round, with the round's number as the seed."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._seed = 0
        self.versions: dict[str, str] = {}

    def round(self) -> dict[str, Any]:
        """Run the program with the next seed."""
        process = FreshProcess(replace(self._side, args={**self._side.args, "seed": self._seed}))
        self._seed += 1
        result = process.round()
        self.versions |= process.versions
        return result

    def close(self) -> None:
        """Nothing runs between rounds."""


def weights_file() -> Path:
    """Where the pretrained weights are kept: another file when what makes them changes."""
    made_by = [_HERE / "same_task" / f"{name}.py" for name in ("pictures", "vit_torch", "pretrain")]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in made_by)).hexdigest()
    return _HERE / ".cache" / f"side_by_side-{digest[:12]}.npz"


def declare(seeds: int) -> Comparison:
    """The comparison: four sides, a round for each seed, the pretraining before them."""
    environment = _environment()
    weights = str(weights_file())

    def side(name: str, program: str) -> Side:
        args = {"program": program, "weights": weights}
        return Side(name, "benchmarks.same_task.side", args, environment, cores=1)

    return Comparison(
        name="side_by_side",
        title="One small task in four tools",
        sides=tuple(side(*item) for item in PROGRAMS.items()),
        ratios=(),
        rounds=seeds,
        keys=("accuracy", "seconds", "inside_seconds", "peak_mb"),
        # On one core, too, so that a processor gives the same weights each time.
        before=(
            Side(
                "pretraining",
                "benchmarks.same_task.pretrain",
                {"path": weights},
                environment,
                cores=1,
            ),
        ),
        notes=(
            "seconds: the whole process; inside_seconds: from the pretrained weights to the "
            "classes of the test pictures, without imports and without drawing the pictures",
        ),
    )


def _environment() -> str:
    try:
        python_of(_ENVIRONMENT)
    except EnvironmentMissing:
        return "main"
    return _ENVIRONMENT


def begin(side: Side) -> SeededProcess | FreshProcess:
    """Start a program, or the pretraining."""
    return SeededProcess(side) if "program" in side.args else FreshProcess(side)


def table(results: dict[str, Any]) -> str:
    """The results as a Markdown table: means over the seeds, ranges in brackets."""
    rows = [
        "| program | lines | imports | test accuracy | training and test, s | whole process, s |",
        "|---|---|---|---|---|---|",
    ]
    for name in PROGRAMS:
        lines, found = results["lines"][name], results["sides"].get(name, {})
        cells = [name, str(lines["code"]), str(lines["imports"])]
        if "accuracy" in found:
            cells += [
                _cell(found["accuracy"]["by_round"], ".3f"),
                _cell(found["inside_seconds"]["by_round"], ".1f"),
                _cell(found["seconds"]["by_round"], ".1f"),
            ]
        else:
            cells += ["not run", "", ""]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _cell(values: Sequence[float], form: str) -> str:
    return f"{mean(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def main() -> None:
    """Count, run, write and print."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.side_by_side",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--seeds", type=int, default=3, help="runs of each program")
    options.add_argument("--out", type=Path, default=_HERE / "side_by_side.json")
    chosen = options.parse_args()
    if chosen.seeds < 1:
        options.error("--seeds must be at least 1")
    # The engine below is the same for all four.
    os.environ["KERAS_BACKEND"] = "torch"
    results = harness.run(declare(chosen.seeds), begin=begin)
    results["lines"] = {
        name: vars(count_lines((_HERE / "same_task" / f"{program}.py").read_text("utf-8")))
        for name, program in PROGRAMS.items()
    }
    write_json(chosen.out, results)
    print(table(results))
    for name, cause in results["failed"].items():
        print(f"{name} was not run to the end: {cause}")
    if any(cause.startswith("ModuleNotFoundError") for cause in results["failed"].values()):
        print("python -m benchmarks --setup installs what is missing")
    print(f"wrote {chosen.out.name}")


if __name__ == "__main__":
    main()
