"""Log-mel patches of a data set, split by group, for both sides of `time_to_best`.

Args: data, out, limit. With a limit, evenly spread patches are taken instead of all.
"""

from pathlib import Path

import numpy as np

from unfreeze.audio.feature_store import build_store
from unfreeze.audio.manifest import read_manifest
from unfreeze.audio.split import split_clips
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.pipeline.train_options import TrainOptions


def prepare(args):
    """Writes x and one-hot y of the training and validation parts."""

    def run():
        out = Path(args["out"])
        manifest = read_manifest(args["data"])
        defaults = TrainOptions(Path(args["data"]))
        split = split_clips(
            manifest, validation=defaults.validation, test=defaults.test, seed=defaults.seed
        )
        store = build_store(manifest, FrontEnd(), out / "store")
        labels = np.array([manifest.labels.index(clip.label) for clip in manifest.clips])
        counts = {}
        for part in ("train", "validation"):
            view = store.patches(split.parts()[part])
            rows = np.arange(len(view))
            if args["limit"] and len(rows) > args["limit"]:
                rows = np.linspace(0, len(view) - 1, args["limit"]).astype(int)
            one_hot = np.eye(len(manifest.labels), dtype=np.float32)[labels[view.clip[rows]]]
            np.save(out / f"{part}_x.npy", view[rows])
            np.save(out / f"{part}_y.npy", one_hot)
            counts[part] = len(rows)
        return counts

    return run
