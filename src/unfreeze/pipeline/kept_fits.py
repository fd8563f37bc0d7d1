"""What is fitted to recordings before any training, kept for later runs on the same recordings.

The projection of a read-out, the depth profile, and what a gate reads of sounds in noise depend
on the recordings, the published network and the seed, and not on how the head is trained, so
that the next run finds them. Computed background depends on the seed and the front end alone.

Layout: `<cache>/fits/<key>/fit.npz`, arrays alone. Invariants: whatever a fit was made from is
in its key (`unfreeze.core.fingerprints.cache_key`: data, network, versions, backend), so that
what is found is, on one machine to the bit, what would be computed; a file that cannot be read,
or not be written, costs time and nothing else.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import metadata
from typing import Any

import keras
import numpy as np

from unfreeze.backbones.pretrained_weights import cache_folder
from unfreeze.cache_room import make_room
from unfreeze.core.boundary import Cut, inference_cut
from unfreeze.core.fingerprints import cache_key
from unfreeze.core.graph import flatten
from unfreeze.core.read_out import SAMPLES, adapt, projection_of
from unfreeze.files import atomic_path, make_folder
from unfreeze.version import __version__

# About thirty projections of YAMNet; and of one fit.
_LIMIT, _LARGEST = 500 * 10**6, 100 * 10**6
_FILE = "fit.npz"
# To be raised where the code of a fit changes its result.
_FORMAT = 2
# Whose code a fit depends on; the last two run networks from files.
_PACKAGES = ("numpy", "scipy", "scikit-learn", "soxr", "keras", "onnxruntime", "ai-edge-litert")

Arrays = dict[str, np.ndarray]


def adapt_once(model: keras.Model, view: Any, seed: int) -> None:
    """`unfreeze.adapt`, or what it found in an earlier run.

    Args:
        model: with a projection.
        view: training patches.
        seed: of the draw.

    Raises:
        DataError: as `unfreeze.adapt`.
    """
    layer = projection_of(model)
    assert layer is not None
    cut = inference_cut(flatten(model), {id(layer.kernel)})

    def fit() -> Arrays:
        adapt(model, view, seed=seed)
        weights = (layer.kernel, layer.bias)
        kernel, bias = (np.asarray(keras.ops.convert_to_numpy(weight)) for weight in weights)
        return {"kernel": kernel, "bias": bias}

    found = once(fit_key("projection", [view], cut, [seed, layer.components, SAMPLES]), fit)
    layer.kernel.assign(found["kernel"])
    layer.bias.assign(found["bias"])


def fit_key(kind: str, views: Sequence[Any], cut: Cut, settings: Sequence[Any]) -> str | None:
    """What a fit depends on, as one word; None where the data have no fingerprint.

    Args:
        kind: of fit.
        views: patches that it reads.
        cut: the network up to where it is read.
        settings: further plain values, and arrays.
    """
    prints = [getattr(view, "fingerprint", None) for view in views]
    if not all(isinstance(one, str) for one in prints):
        return None
    plain = [
        hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest() + str(value.shape)
        if isinstance(value, np.ndarray)
        else value
        for value in settings
    ]
    content = plain_key([kind, prints, plain])
    return cache_key(content, cut, half=False, views=1, fused=True)


def plain_key(settings: Sequence[Any]) -> str:
    """What depends on plain values alone, as one word."""
    known = [_FORMAT, __version__, keras.backend.backend(), *map(_version, _PACKAGES)]
    text = json.dumps([known, *settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def once(key: str | None, fit: Callable[[], Arrays]) -> Arrays:
    """The arrays of a fit, from an earlier run where there was one.

    Args:
        key: from `fit_key` or `plain_key`; None computes them.
        fit: computes them.
    """
    if key is None:
        return fit()
    home = cache_folder() / "fits" / key
    # A damaged file may raise anything.
    with suppress(Exception):
        with np.load(home / _FILE, allow_pickle=False) as file:
            # Reading a member checks it against its checksum.
            found = {name: file[name] for name in file.files}
        with suppress(OSError):  # a cache that may only be read
            os.utime(home)
        return found
    made = fit()
    if sum(array.nbytes for array in made.values()) > _LARGEST:
        return made
    with suppress(OSError):
        make_folder(home)
        members: dict[str, Any] = dict(made)
        with atomic_path(home / _FILE) as path, path.open("wb") as file:
            np.savez(file, **members)
        make_room((one.parent for one in home.parent.glob(f"*/{_FILE}")), _LIMIT, keep=home)
    return made
