"""The key of a cache: a digest of all that its rows depend on.

Data, the frozen steps with their weights, settings and wiring, the user's own
code in them, the seeds of augmentation, the number type. What cannot be told
for certain gets a key that is never found again, which costs time and is never
wrong.
"""

import hashlib
import inspect
import json
import uuid
from typing import Any

import keras
import numpy as np

from unfreeze.core.graph import Step
from unfreeze.core.internals import flatten_layers, seed_generators, tree
from unfreeze.core.split import Cut

FORMAT = 3
# What any layer has, and what is no setting of a user's class.
_LAYER_FIELDS = frozenset(vars(keras.layers.Layer()))
# How an object prints that does not tell what it holds.
_ADDRESS = " at 0x"


def cache_key(
    content: str, cut: Cut, *, half: bool, views: int, fused: bool, bfloat16: bool = False
) -> str:
    """Digest what the cached rows depend on.

    Args:
        content: `unfreeze.core.digest.Fingerprint.content` of the data.
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
        functions = [v for v in vars(layer).values() if inspect.isfunction(v) and not _is_known(v)]
        parts += [_code(function) for function in functions]
    return "\n".join(parts)


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
    """Without names: Keras numbers them by how many models there were before."""
    if isinstance(config, dict) and "Policy" in str(config.get("class_name")):
        return config  # a dtype policy, which is known by its name
    if isinstance(config, dict):
        return {str(key): _unnamed(value) for key, value in config.items() if key != "name"}
    return [_unnamed(part) for part in config] if isinstance(config, list | tuple) else config


def _code(thing: Any) -> str:
    try:
        text = inspect.getsource(thing)
    except (OSError, TypeError):
        return uuid.uuid4().hex
    closure = getattr(thing, "__closure__", None) or ()
    kept = [cell.cell_contents for cell in closure]
    if not all(isinstance(value, bool | int | float | str | None) for value in kept):
        return uuid.uuid4().hex
    values = repr((kept, getattr(thing, "__defaults__", None)))
    return uuid.uuid4().hex if _ADDRESS in values else text + values


def _is_known(thing: Any) -> bool:
    """Whether code is Keras' or the backend's own, which the version stands for."""
    module = str(getattr(thing, "__module__", ""))
    roots = ("keras", "tensorflow", "torch", "jax", "builtins", "numpy", "abc")
    return module.split(".")[0] in roots or module == "unfreeze.core.graph"


def _add_array(digest: Any, array: np.ndarray) -> None:
    digest.update(f"{array.dtype}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).tobytes())
