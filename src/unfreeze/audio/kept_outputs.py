"""What a frozen network gives for computed sounds, kept on disk.

Computed background is the same in each run with the same seed, and a large network takes
minutes for it. So its outputs are kept in the folder of the feature stores, one folder for each
set of sounds, `background-<digest of the network and the sounds>`, and removed with the stores.
A file that is damaged or cannot be written changes nothing but the time.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from unfreeze.audio.front_ends import patches_of_all
from unfreeze.backbones.frontend import NUMBERS, FrontEnd
from unfreeze.backbones.pretrained_weights import cache_folder
from unfreeze.core.array_files import read_arrays, write_arrays
from unfreeze.errors import UnfreezeError
from unfreeze.files import make_folder

_FILE, _NAME = "outputs.safetensors", "outputs"


def patches_of_each(sounds: Sequence[np.ndarray], front_end: FrontEnd) -> list[np.ndarray]:
    """Compute the patches of sounds, or find them in the cache where a network makes them.

    Args:
        sounds: (samples,) each, at the front end's rate.
        front_end: the settings.

    Returns:
        (patches, *patch_shape) float32 for each.
    """
    if front_end.holds != NUMBERS:
        return patches_of_all(sounds, front_end)
    file = cache_folder() / "features" / f"background-{_digest(sounds, front_end)}" / _FILE
    counts = [front_end.patches(len(sound)) for sound in sounds]
    with suppress(OSError, UnfreezeError, ValueError, KeyError):
        found = read_arrays(file)[0][_NAME]
        if found.shape == (sum(counts), *front_end.patch_shape):
            file.parent.touch()
            return np.split(found, np.cumsum(counts)[:-1])
    made = patches_of_all(sounds, front_end)
    with suppress(OSError):
        make_folder(file.parent)
        write_arrays(file, {_NAME: np.concatenate(made)})
    return made


def _digest(sounds: Sequence[np.ndarray], front_end: FrontEnd) -> str:
    digest = hashlib.sha256(json.dumps(front_end.identity, sort_keys=True).encode())
    for sound in sounds:
        digest.update(f"{len(sound)} ".encode())
        digest.update(np.ascontiguousarray(sound, "<f4").data)
    return digest.hexdigest()[:32]
