"""The log-mel features of a data set, and the caches that runs share."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from unfreeze.audio.manifest import Manifest
from unfreeze.audio.store import PatchStore, build_store, prune_stores
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.backbones.weights import cache_folder

# Both caches are shared by runs, so that a second run on the same recordings
# starts at once; the oldest entries go when they grow beyond this.
CACHE_LIMIT = 20 * 10**9


def build_features(
    manifest: Manifest, front_end: FrontEnd, progress: Callable[[int, int], None] | None = None
) -> PatchStore:
    """Make the feature store of a data set, or find it.

    Args:
        manifest: the clips.
        front_end: how waveforms become frames.
        progress: called with clips done and in all.

    Raises:
        DataError: a file has changed since it was read.
    """
    home = cache_folder() / "features"
    place = home / manifest.fingerprint[:32]
    prune_stores(home, CACHE_LIMIT, keep=place)
    return build_store(manifest, front_end, place, progress=progress)


def prefix_folder() -> Path:
    """Where the outputs of frozen layers are kept, for all runs."""
    return cache_folder() / "prefixes"


def label_numbers(manifest: Manifest) -> np.ndarray:
    """The class of each clip, (clips,) int32, as its place in the manifest's labels."""
    place = {label: number for number, label in enumerate(manifest.labels)}
    return np.array([place[clip.label] for clip in manifest.clips], dtype=np.int32)
