"""Lets a program of this folder be a side of the harness. Args: program, weights, seed."""

import importlib
from pathlib import Path
from typing import Any

from benchmarks.same_task import pictures


def prepare(args: dict[str, Any]) -> Any:
    """Imports and data; then one round, which trains and tests."""
    program = importlib.import_module(f"benchmarks.same_task.{args['program']}")
    target = pictures.target(args["seed"])

    def run() -> dict[str, float]:
        found = program.tune(Path(args["weights"]), target, args["seed"])
        return {"accuracy": float((found == target.test.y).mean())}

    return run
