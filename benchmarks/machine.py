"""What the numbers were measured on."""

import os
import platform
import time
from pathlib import Path

# Instructions that decide how fast convolutions and matrix products can be.
_FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16")


def machine() -> dict[str, object]:
    """Processor, cores, memory, system; what the system does not tell is left out."""
    model, flags = _processor()
    found: dict[str, object] = {
        "processor": model or platform.processor() or platform.machine(),
        "cores": _cores(),
        "instructions": [flag for flag in _FLAGS if flag in flags],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        found["memory_gb"] = round(size / 1e9, 1)
    return found


def busy(seconds: float = 1.0) -> float | None:
    """The part of all cores that is in use right now, 0 to 1; None where that is not told.

    Looked at before and after a comparison, it tells of other work on the machine.
    """
    before = _times()
    if before is None:
        return None
    time.sleep(seconds)
    after = _times() or before
    spent = [b - a for a, b in zip(before, after, strict=True)]
    # Idle, and waiting for a disk.
    return round(1 - (spent[3] + spent[4]) / max(sum(spent), 1), 2)


def _times() -> list[int] | None:
    file = Path("/proc/stat")
    if not file.is_file():
        return None
    return [int(word) for word in file.read_text().splitlines()[0].split()[1:9]]


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> tuple[str, set[str]]:
    """Name and instruction flags, where Linux tells them."""
    file = Path("/proc/cpuinfo")
    if not file.is_file():
        return "", set()
    name, flags = "", set()
    for line in file.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        elif key.strip() in ("flags", "Features"):
            flags = set(value.split())
            if name:
                break
    return name, flags
