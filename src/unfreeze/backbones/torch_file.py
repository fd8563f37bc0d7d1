"""Reads the tensors of a PyTorch checkpoint with numpy alone; nothing in the file is executed.

Since PyTorch 1.6 a checkpoint is a zip archive: `data.pkl` says which tensors there are, and
the numbers of each lie in an entry of their own (torch/serialization.py). `data.pkl` is a
pickle, which can name any function to call. Here its operations are only listed, by
`pickletools`, and followed as far as a dictionary of tensors needs them: strings, numbers,
tuples, dictionaries and the few names in `_KNOWN`, which stand for a tensor's parts. Anything
else is an error, so such a file can do no more than hold numbers.
"""

import math
import pickletools
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unfreeze.errors import WeightsError, show

_ORDERED, _TENSOR, _PARAMETER = (
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
)
#: Kinds of numbers, by the name of their storage.
_STORAGES = {
    "torch FloatStorage": "<f4",
    "torch HalfStorage": "<f2",
    "torch DoubleStorage": "<f8",
    "torch LongStorage": "<i8",
    "torch IntStorage": "<i4",
}
_KNOWN = (_ORDERED, _TENSOR, _PARAMETER, *_STORAGES)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
# The description of a few hundred tensors has some 50 KB.
_LONGEST = 8 * 2**20
# What `zipfile` and our reading raise on bytes that are damaged or made up.
_DAMAGED = (
    *(ValueError, LookupError, TypeError, AttributeError, EOFError, OverflowError, MemoryError),
    *(RuntimeError, zlib.error, OSError),
)


@dataclass(frozen=True)
class _Name:
    """A name of something that pickle would import; it only stands for it."""

    name: str


class _Mark:
    """Where a group of values begins on the stack."""


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a checkpoint that holds a state dict.

    Args:
        path: a file by `torch.save(model.state_dict(), path)`.

    Returns:
        Arrays by name, in the file's order, of the file's kinds of numbers.

    Raises:
        WeightsError: it is no such file, or holds anything else than a dictionary of tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive, path)
    except zipfile.BadZipFile:
        raise WeightsError(
            f"{show(path)} is no whole PyTorch checkpoint, or one from before PyTorch 1.6: copy or "
            "download it again, or load it in PyTorch and save its state_dict()"
        ) from None
    except WeightsError:
        raise
    except PermissionError as error:
        raise WeightsError(f"{show(path)} cannot be read: {error.strerror}") from None
    except _DAMAGED as error:
        raise WeightsError(
            f"{show(path)} cannot be read as a PyTorch state dict ({show(str(error)[:200])}): it "
            "is damaged, or holds something else; get it again from where it was published"
        ) from error


def _read(archive: zipfile.ZipFile, path: Path) -> dict[str, np.ndarray]:
    described = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
    if len(described) != 1:
        raise WeightsError(f"{show(path)} is a zip archive, but no PyTorch checkpoint")
    folder = described[0].removesuffix("data.pkl")
    known: dict[tuple[str, str], np.ndarray] = {}

    def entry(name: str) -> bytes:
        # Stored as they are, so the file is as large as what is read of it.
        if archive.getinfo(folder + name).compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"entry {name} is compressed")
        return archive.read(folder + name)

    if f"{folder}byteorder" in archive.namelist():
        order = entry("byteorder")[:20].decode("ascii", "replace")
        if order != "little":
            raise WeightsError(f"{show(path)} has its bytes in the order {order!r}, not little")
    if archive.getinfo(described[0]).file_size > _LONGEST:
        raise WeightsError(f"{show(path)} describes more than a state dict")

    def stored(key: str, dtype: str, count: int) -> np.ndarray:
        if (key, dtype) not in known:
            known[key, dtype] = np.frombuffer(entry(f"data/{key}"), dtype)
        if len(known[key, dtype]) != count:
            raise ValueError(f"entry {key} has {known[key, dtype].nbytes} bytes")
        return known[key, dtype]

    found = _follow(entry("data.pkl"), stored)
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(value, np.ndarray) for name, value in found.items()
    ):
        raise WeightsError(
            f"{show(path)} holds something else than a state dict (a whole model, or a training "
            "checkpoint): load it in PyTorch and save its state_dict()"
        )
    return found


def _follow(data: bytes, stored: Callable[[str, str, int], np.ndarray]) -> Any:
    """The value that a pickle describes, of dictionaries, tuples, numbers and tensors."""
    stack: list[Any] = []
    memo: dict[Any, Any] = {}

    def since_mark() -> list[Any]:
        at = max(i for i, value in enumerate(stack) if isinstance(value, _Mark))
        group = stack[at + 1 :]
        del stack[at:]
        return group

    for code, argument, _ in pickletools.genops(data):
        match code.name:
            case "PROTO" | "FRAME":
                pass
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "MARK":
                stack.append(_Mark())
            case "GLOBAL":
                if argument not in _KNOWN:
                    raise ValueError(f"it names {argument}, which no state dict needs")
                stack.append(_Name(argument))
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append(_CONSTANTS[code.name])
            case "EMPTY_TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                at = len(stack) - _TUPLES[code.name]
                stack[at:] = [tuple(stack[at:])]
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "BINPERSID":
                stack.append(_storage(stack.pop(), stored))
            case "REDUCE":
                given = stack.pop()
                stack.append(_made(stack.pop(), given))
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                stack[-1][key] = value
            case "SETITEMS":
                pairs = since_mark()
                stack[-1].update(zip(pairs[::2], pairs[1::2], strict=True))
            case "BUILD":
                # The versions of a state dict's modules, which no tensor needs.
                stack.pop()
            case "STOP":
                return stack.pop()
            case other:
                raise ValueError(f"its operation {other} is not of a state dict")
    raise EOFError("it ends early")


def _storage(given: tuple[Any, ...], stored: Callable[[str, str, int], np.ndarray]) -> np.ndarray:
    """The numbers that a tensor, or several, is a view of."""
    kind, name, key, _, count = given
    if kind != "storage" or not isinstance(name, _Name) or name.name not in _STORAGES:
        raise ValueError(f"it has a storage of another kind: {name}")
    return stored(str(key), _STORAGES[name.name], int(count))


def _made(what: Any, given: tuple[Any, ...]) -> Any:
    """What a call in the pickle stands for."""
    match what:
        case _Name(name) if name == _ORDERED and not given:
            return {}
        case _Name(name) if name == _PARAMETER:
            return given[0]
        case _Name(name) if name == _TENSOR:
            return _tensor(*given[:4])
    raise ValueError(f"it calls {what}")


def _tensor(
    numbers: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> np.ndarray:
    """The part of a storage that a tensor is; not a copy, so it takes no memory."""
    if not isinstance(numbers, np.ndarray) or len(shape) != len(strides):
        raise ValueError("a tensor has no numbers")
    if offset < 0 or min((*shape, *strides), default=0) < 0:
        raise ValueError("a tensor has a negative size")
    if 0 in shape:
        return np.zeros(shape, numbers.dtype)
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if last >= len(numbers):
        raise ValueError("a tensor leaves its storage")
    if math.prod(shape) > len(numbers):
        raise ValueError("a tensor has more numbers than its storage")
    steps = [step * numbers.itemsize for step in strides]
    return np.ndarray(shape, numbers.dtype, numbers, offset * numbers.itemsize, steps)
