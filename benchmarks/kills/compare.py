"""Whether two folders of results are the same to the bit, clocks aside."""

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# Keys and columns that tell the time of day, how long something took, or a place in memory.
CLOCKS = ("seconds", "wall_seconds", "cache_seconds", "date_saved", "shared_object_id")
# Lines in the order in which they were finished, which threads decide.
UNORDERED = ("unfreeze-events.jsonl",)


def describe(folder: Path, places: Sequence[str]) -> dict[str, str]:
    """Digests of all that lies in some places.

    Args:
        folder: where.
        places: files and folders below it. Lock files are passed over; a model is
            described array by array, as its archive tells when it was written.

    Returns:
        A digest by the name of each part.
    """
    found: dict[str, str] = {}
    for place in places:
        whole = folder / place
        for path in sorted([whole] if whole.is_file() else whole.rglob("*")):
            if path.is_file() and not path.name.endswith(".lock"):
                name = str(path.relative_to(folder))
                found |= {f"{name}{part}": _digest(value) for part, value in _parts(path)}
    return found


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """What is not the same, in words."""
    told = [f"{name} is missing" for name in expected.keys() - found.keys()]
    told += [f"{name} is left over" for name in found.keys() - expected.keys()]
    both = expected.keys() & found.keys()
    return sorted(told + [f"{name} differs" for name in both if expected[name] != found[name]])


def _parts(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                content = archive.read(name)
                if name.endswith(".h5"):
                    yield from ((f":{name}:{part}", data) for part, data in _arrays(content))
                else:
                    yield f":{name}", _plain(json.loads(content))
    elif path.name in UNORDERED:
        yield "", b"".join(sorted(path.read_bytes().splitlines(True)))
    elif path.suffix == ".json":
        yield "", _plain(json.loads(path.read_bytes()))
    elif path.name == "history.csv":
        with path.open(encoding="utf-8", newline="") as file:
            yield "", _plain(list(csv.DictReader(file)))
    else:
        yield "", path.read_bytes()


def _arrays(content: bytes) -> Iterator[tuple[str, bytes]]:
    import h5py

    with h5py.File(io.BytesIO(content), "r") as file:
        found: list[tuple[str, bytes]] = []

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                value = item[()]
                found.append((name, f"{value.dtype}{value.shape}".encode() + value.tobytes()))

        file.visititems(visit)
        yield from found


def _plain(value: Any) -> bytes:
    return json.dumps(_timeless(value)).encode()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(part) for key, part in value.items() if key not in CLOCKS}
    return [_timeless(part) for part in value] if isinstance(value, list) else value


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
