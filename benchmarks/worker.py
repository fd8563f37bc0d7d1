"""One side of a comparison, in its own process. Standard library only.

    python -m benchmarks.worker MODULE JSON [CORES]

Prints a JSON line when `MODULE.prepare(args)` is done: {"ready": true, "versions":
{...}} or {"failed": "the cause"}. Then, for each line "go" that it reads, it calls
what `prepare` returned and prints a JSON line with "seconds", "peak_mb" and
whatever else the call returned. It ends when its input does.

Libraries print what they like: their standard output becomes standard error.
"""

import importlib
import json
import os
import resource
import sys
import time
from importlib import metadata
from typing import Any

# Whose versions are told, where a side has loaded them.
_LIBRARIES = {
    "keras": "keras",
    "tensorflow": "tensorflow",
    "torch": "torch",
    "lightning": "lightning",
    "finetuning_scheduler": "finetuning-scheduler",
    "peft": "peft",
    "numpy": "numpy",
    "scipy": "scipy",
    "soxr": "soxr",
    "soundfile": "soundfile",
    "librosa": "librosa",
    "torchaudio": "torchaudio",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "tf2onnx": "tf2onnx",
}


def peak_mb() -> float:
    """The most memory this process had at once, in MB.

    A new process starts with the mark of the one that made it, so the parent
    must stay small.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e6 / 1024)


def versions() -> dict[str, str]:
    """Versions of the libraries that are loaded."""
    found = {}
    for module, package in _LIBRARIES.items():
        if module in sys.modules:
            try:
                found[package] = metadata.version(package)
            except metadata.PackageNotFoundError:
                continue
    return found


def pin(cores: int) -> None:
    """Keep this process to so many cores, where the system can do that."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def main() -> None:
    """Prepare, then answer each "go"."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell(message: dict[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    if len(sys.argv) > 3:
        pin(int(sys.argv[3]))
    try:
        call = importlib.import_module(sys.argv[1]).prepare(json.loads(sys.argv[2]))
    except Exception as error:
        tell({"failed": f"{type(error).__name__}: {error}"})
        raise
    tell({"ready": True, "versions": versions()})
    for line in sys.stdin:
        if line.strip() != "go":
            continue
        began = time.perf_counter()
        try:
            found = call()
        except Exception as error:
            tell({"failed": f"{type(error).__name__}: {error}"})
            raise
        took = time.perf_counter() - began
        result = found if isinstance(found, dict) else {} if found is None else {"seconds": found}
        tell({"seconds": took, **result, "peak_mb": peak_mb(), "versions": versions()})


if __name__ == "__main__":
    main()
