"""Files to patches by our feature store. Args: folder, workers, check.

The store is written to disk, and all patches are read from it once. Training
reads and judges every file before that, into a manifest; `check` counts that too.
"""

import json
import tempfile
from pathlib import Path

import numpy as np

from unfreeze.audio.feature_store import build_store
from unfreeze.audio.manifest import read_manifest
from unfreeze.backbones.frontend import FrontEnd


def prepare(args):
    """All files a round."""
    folder, workers = Path(args["folder"]), args["workers"]
    seconds = json.loads((folder / "files.json").read_text())["seconds"]
    known = read_manifest(folder, workers=workers)

    def run():
        with tempfile.TemporaryDirectory() as place:
            manifest = read_manifest(folder, workers=workers) if args["check"] else known
            store = build_store(manifest, FrontEnd(), place, workers=workers)
            view = store.patches(np.arange(store.clips))
            for start in range(0, len(view), 256):
                view[start : start + 256]
        return {"items": seconds, "patches": len(view)}

    run()
    return run
