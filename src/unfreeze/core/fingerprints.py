"""Digests of training data and of frozen prefixes, to see whether they have changed.

A cache may only be read again when nothing that it was made from has changed. Its
key covers the data, the frozen steps with their weights, settings, wiring and the
user's own code in them, the seeds of augmentation and the number type. Invariant:
what cannot be digested for certain gets a key that is never found again, which costs
time but never gives a wrong result.
"""

import hashlib
import inspect
import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import keras
import numpy as np

from unfreeze.core.boundary import Cut
from unfreeze.core.data import Batch, Rows, Stream
from unfreeze.core.graph import Step
from unfreeze.core.keras_internals import flatten_layers, seed_generators, tree

FORMAT = 3
# What any layer has, and what is no setting of a user's class.
_LAYER_FIELDS = frozenset(vars(keras.layers.Layer()))
# Part of the text of an object that does not show what it holds.
_ADDRESS = " at 0x"


@dataclass(frozen=True)
class Fingerprint:
    """The identity of a data set.

    Attributes:
        content: digest of all samples. For streams it does not depend on their
            order, so that a stream that shuffles has the same one in each pass.
        order: digest of a stream's samples in the order and the batches of one
            pass; empty for rows.
    """

    content: str
    order: str = ""


def fingerprint(data: Rows | Stream, batch_size: int = 1024) -> Fingerprint:
    """Digest all samples, in one pass.

    An array-like that has a `fingerprint` of its own is trusted, and its rows are
    not read.
    """
    if isinstance(data, Stream):
        seen = StreamDigest()
        for batch in data.batches():
            seen.add(batch)
        return seen.fingerprint()
    digest = hashlib.blake2b(digest_size=16)
    for part in (*data.x, *_arrays(data.y), *_arrays(data.weight)):
        _add_rows(digest, part, batch_size)
    return Fingerprint(digest.hexdigest())


class StreamDigest:
    """Digest of a stream, made batch by batch."""

    def __init__(self) -> None:
        self._sum, self._count = 0, 0
        self._order = hashlib.blake2b(digest_size=16)

    def add(self, batch: Batch) -> None:
        """Add a batch."""
        x, y, weight = batch
        parts = [np.ascontiguousarray(p) for p in (*x, *_arrays(y), *_arrays(weight))]
        kinds = "".join(f"{p.dtype}{p.shape[1:]}" for p in parts).encode()
        for row in range(len(parts[0])):
            digest = hashlib.blake2b(kinds, digest_size=16)
            for part in parts:
                digest.update(_bytes_of(part[row]))
            # A sum does not depend on the order, and counts samples that are the same.
            self._sum = (self._sum + int.from_bytes(digest.digest(), "big")) % (1 << 128)
            self._order.update(digest.digest())
        self._count += len(parts[0])
        self._order.update(f"batch of {len(parts[0])}".encode())

    def fingerprint(self) -> Fingerprint:
        """The digest of all batches so far."""
        return Fingerprint(f"{self._sum:032x}-{self._count}", self._order.hexdigest())


def describe(data: Rows | Stream | None) -> str:
    """Describe data, to see whether a run is the same run.

    Rows are digested. A stream may differ from pass to pass (augmentation), so
    only its kind and the shape of its samples count.
    """
    if data is None:
        return ""
    if isinstance(data, Rows):
        return fingerprint(data).content
    x, y, weight = data.first()
    kinds = [f"{p.dtype}{p.shape[1:]}" for p in (*x, *_arrays(y), *_arrays(weight))]
    return f"{type(data.source).__name__} of {', '.join(kinds)}"


def _add_rows(digest: Any, part: Any, batch_size: int) -> None:
    digest.update(f"{part.dtype}{tuple(part.shape)}".encode())
    known = getattr(part, "fingerprint", None)
    if isinstance(known, str):
        digest.update(known.encode())
        return
    for start in range(0, len(part), batch_size):
        rows = np.arange(start, min(start + batch_size, len(part)))
        digest.update(_bytes_of(np.ascontiguousarray(part[rows])))


def _bytes_of(values: Any) -> bytes:
    """What an array holds; of text the letters, not where in memory they are."""
    if isinstance(values, np.ndarray | np.generic) and values.dtype.kind != "O":
        return values.tobytes()
    return repr(values.tolist() if isinstance(values, np.ndarray) else values).encode()


def _arrays(structure: Any) -> Iterable[Any]:
    return () if structure is None else tree.flatten(structure)


def cache_key(
    content: str, cut: Cut, *, half: bool, views: int, fused: bool, bfloat16: bool = False
) -> str:
    """Digest what the cached rows depend on.

    Args:
        content: `Fingerprint.content` of the data.
        cut: where the model is divided.
        half: whether rows are kept as float16.
        views: variants of each sample.
        fused: whether convolutions and BatchNorm run as one, which rounds
            differently.
        bfloat16: whether the prefix computes in bfloat16.
    """
    digest = hashlib.blake2b(digest_size=16)
    settings = [FORMAT, content, half, views, fused, keras.__version__, keras.backend.backend()]
    settings += [list(cut.frontier), list(cut.passed), bfloat16]
    digest.update(json.dumps(settings).encode())
    for step in cut.prefix:
        digest.update(_step_text(step).encode())
        for weight in step.operation.weights if step.is_layer else ():
            _add_array(digest, keras.ops.convert_to_numpy(weight))
        for constant in tree.flatten((step.args, step.kwargs)):
            if hasattr(constant, "shape"):
                _add_array(digest, keras.ops.convert_to_numpy(constant))
        if id(step) in cut.augmentation:
            for generator in seed_generators(step.operation):
                _add_array(digest, keras.ops.convert_to_numpy(generator.state))
    return digest.hexdigest()


def _step_text(step: Step) -> str:
    """What a step does, as text: class, settings, wiring, and code that is not Keras' own."""
    operation = step.operation
    wiring = repr((step.args, sorted(step.kwargs.items()), step.outputs))
    if inspect.isfunction(operation):
        return "\n".join((_code(operation), wiring))
    parts = [wiring]
    for layer in flatten_layers(operation) if step.is_layer else [operation]:
        parts.append(f"{type(layer).__module__}.{type(layer).__qualname__}")
        parts.append(_settings(layer))
        parts += [_code(kind) for kind in type(layer).__mro__ if not _is_known(kind)]
        # A Lambda's function, a custom activation: Keras writes down their names only.
        for name, value in vars(layer).items():
            if inspect.isfunction(value) and not (_is_known(value) or _is_own(layer, name, value)):
                parts.append(_code(value))
    return "\n".join(parts)


def _is_own(layer: Any, name: str, function: Any) -> bool:
    """Whether a layer's function is a method of its class, which Keras wraps (`build`)."""
    inner = inspect.unwrap(function)
    return getattr(inner, "__func__", inner) is getattr(type(layer), name, None)


def _settings(layer: Any) -> str:
    if not hasattr(layer, "get_config"):
        return ""
    try:
        config = json.dumps(_unnamed(layer.get_config()), default=repr, sort_keys=True)
    except Exception:
        return uuid.uuid4().hex
    if _ADDRESS in config:
        return uuid.uuid4().hex
    if _is_known(type(layer)):
        return config
    # A class of the user's own may have settings that its get_config leaves out.
    plain = {
        key: value
        for key, value in vars(layer).items()
        if key not in _LAYER_FIELDS and isinstance(value, bool | int | float | str)
    }
    return config + json.dumps(plain, sort_keys=True)


def _unnamed(config: Any) -> Any:
    """A configuration without names, which Keras numbers by how many models came before."""
    if isinstance(config, dict) and "Policy" in str(config.get("class_name")):
        return config  # a dtype policy, which is known by its name
    if isinstance(config, dict):
        return {str(key): _unnamed(value) for key, value in config.items() if key != "name"}
    return [_unnamed(part) for part in config] if isinstance(config, list | tuple) else config


def _code(thing: Any) -> str:
    try:
        text = _source(thing)
    except (OSError, TypeError):
        return uuid.uuid4().hex
    closure = getattr(thing, "__closure__", None) or ()
    kept = [cell.cell_contents for cell in closure]
    if not all(isinstance(value, bool | int | float | str | None) for value in kept):
        return uuid.uuid4().hex
    values = repr((kept, getattr(thing, "__defaults__", None)))
    return uuid.uuid4().hex if _ADDRESS in values else text + values


def _source(thing: Any) -> str:
    return (
        _class_source(thing, _written(thing))
        if isinstance(thing, type)
        else inspect.getsource(thing)
    )


@lru_cache(maxsize=256)
def _class_source(kind: type[Any], written: int) -> str:
    # Python parses the whole file for each class.
    return inspect.getsource(kind)


def _written(kind: type[Any]) -> int:
    """When the file of a class was written: a class may be reloaded from it in place."""
    file = Path(inspect.getsourcefile(kind) or "")
    return file.stat().st_mtime_ns if file.is_file() else 0


def _is_known(thing: Any) -> bool:
    """Whether code is Keras' or the backend's own, which its version identifies."""
    module = str(getattr(thing, "__module__", ""))
    roots = ("keras", "tensorflow", "torch", "jax", "builtins", "numpy", "abc")
    return module.split(".")[0] in roots or module == "unfreeze.core.graph"


def _add_array(digest: Any, array: np.ndarray) -> None:
    digest.update(f"{array.dtype}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).tobytes())
